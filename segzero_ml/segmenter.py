"""SAM 2: boxes and points into masks, with the image embedded once.

Outside everything is in pixels of the upright original image; inside in the square of the
model's `image_size`. The `sam2` package's own predictor is not used because it takes the
feature sizes of a 1024 pixel input for granted.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from segzero_ml.errors import ModelError, RequestError
from segzero_ml.memory import is_out_of_memory
from segzero_ml.sam2_build import (
    PUBLISHED_CONFIGS,
    build_sam2_model,
    load_published_config,
    load_segmenter_config,
)
from segzero_ml.sam2_weights import load_sam2_weights
from segzero_ml.types import BoolMask, Box, ImageSize, Point
from segzero_ml.weights import check_finite, choose_device, locate

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"
CACHE_BYTES = 256 * 1024**2
PROMPTS_AT_ONCE = 16  # bounds the memory of one decoding

# Mean and spread of the colours that SAM 2 was trained with (ImageNet's).
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
# The prompt encoder's labels.
_NEGATIVE, _POSITIVE, _TOP_LEFT, _BOTTOM_RIGHT = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Prompt:
    """Where one object is: a box, points, or both.

    Args:
        box_px: The box around it; may be None if there are points.
        points_px: Points on it, or (label False) beside it.
        labels: One for each point; all on the object when not given.

    Raises:
        RequestError: Neither box nor point, or not one label for each point.
    """

    box_px: Box | None
    points_px: tuple[Point, ...] = ()
    labels: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        if self.box_px is None and not self.points_px:
            raise RequestError("A prompt needs a box or a point.")
        if self.labels is not None and len(self.labels) != len(self.points_px):
            raise RequestError(
                f"A prompt has {len(self.points_px)} points but {len(self.labels)} labels."
            )


@dataclass(frozen=True, slots=True)
class MaskResult:
    """One mask.

    Args:
        mask: Bool, (height, width) of the original image.
        score: The model's own estimate of the mask's IoU, in [0, 1].
    """

    mask: BoolMask
    score: float


@dataclass(frozen=True, slots=True)
class Embedding:
    """What the model knows of an image; S is the model's `image_size`.

    Args:
        image: (1, C, S/16, S/16).
        high_res: (1, C/8, S/4, S/4) and (1, C/4, S/8, S/8), or nothing.
    """

    image: torch.Tensor
    high_res: tuple[torch.Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors take."""
        return sum(tensor.nbytes for tensor in (self.image, *self.high_res))


class Segmenter:
    """A SAM 2 model with a cache of image embeddings; safe to use from several threads.

    Args:
        model: A model of the `sam2` package, in evaluation mode, on its device.
        version: Identifies the weights.
        cache_bytes: The most that cached embeddings may take together.
    """

    def __init__(self, model: SAM2Base, version: str, cache_bytes: int = CACHE_BYTES) -> None:
        self.model = model
        self.version = version
        self._cache = EmbeddingCache(cache_bytes)

    @classmethod
    def load(
        cls,
        ref: str | Path,
        device: str | torch.device | None = None,
        *,
        revision: str | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> Segmenter:
        """Load a segmenter.

        Args:
            ref: A directory with `config.yaml` and `model.safetensors`, or the hub id of a
                published SAM 2.1, such as `facebook/sam2.1-hiera-large`.
            device: Where it runs; the first GPU, or else the CPU, when not given.
            revision: Commit or tag on the hub.
            cache_bytes: The most that cached embeddings may take together.

        Raises:
            WeightsError: The weights or the configuration are missing, refused or damaged.
        """
        target = choose_device(device)
        published = not Path(ref).is_dir() and str(ref) in PUBLISHED_CONFIGS
        weights = locate(ref, revision, files=("config.json", WEIGHTS_FILE))
        config = (
            load_published_config(str(ref))
            if published
            else load_segmenter_config(weights.path / CONFIG_FILE)
        )
        model = build_sam2_model(config)
        load_sam2_weights(model, weights.path / WEIGHTS_FILE)
        check_finite(model, ref)
        return cls(model.to(target).eval(), weights.version, cache_bytes)

    def segment(self, image: Image.Image, prompts: Sequence[Prompt]) -> list[MaskResult]:
        """Cut one mask for each prompt; the image is embedded once.

        Args:
            image: Upright, any mode and size.
            prompts: In pixels of this image.

        Returns:
            One mask for each prompt, in their order, in the size of the image.

        Raises:
            ModelError: There is not enough memory.
        """
        return list(self.stream(image, prompts))

    def stream(self, image: Image.Image, prompts: Sequence[Prompt]) -> Iterator[MaskResult]:
        """The same, one mask after the other: full-size masks of many objects are large."""
        if not prompts:
            return
        size = ImageSize(image.width, image.height)
        try:
            embedding = self.embed(image)
            for logits, score in self._decode(embedding, prompts, size):
                yield MaskResult(_full_size(logits, size), _unit(score))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ModelError(
                "There is not enough memory for the segmenter.",
                "Choose a preset with a smaller segmenter, or free memory.",
            ) from error

    def embed(self, image: Image.Image) -> Embedding:
        """The image's embedding, from the cache if the image was seen lately."""
        side: int = self.model.image_size
        # The model sees nothing but this square, so this is what the cache is keyed by.
        square = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        key = hashlib.blake2b(square.tobytes(), digest_size=16).digest()
        return self._cache.get_or_make(key, lambda: self._embed(square))

    @torch.inference_mode()
    def _embed(self, square: Image.Image) -> Embedding:
        model = self.model
        pixels = torch.from_numpy(np.array(square)).to(model.device)  # (S, S, 3) uint8
        pixels = pixels.permute(2, 0, 1)[None].float() / 255  # (1, 3, S, S)
        mean, std = (pixels.new_tensor(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
        levels = model.forward_image((pixels - mean) / std)["backbone_fpn"]
        *high_res, image = levels[-model.num_feature_levels :]
        if model.directly_add_no_mem_embed:
            image = image + model.no_mem_embed.view(1, -1, 1, 1)
        return Embedding(image, tuple(high_res))

    def _decode(
        self, embedding: Embedding, prompts: Sequence[Prompt], size: ImageSize
    ) -> Iterator[tuple[torch.Tensor, float]]:
        """Logits, (S/4, S/4), and estimated IoU of each prompt, in the prompts' order."""
        decoded: dict[int, tuple[torch.Tensor, float]] = {}
        # Prompts of one length go together: padding would change the shorter ones' masks.
        lengths: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            lengths.setdefault(_length(prompt), []).append(index)
        for indices in lengths.values():
            for start in range(0, len(indices), PROMPTS_AT_ONCE):
                chunk = indices[start : start + PROMPTS_AT_ONCE]
                logits, scores = self._decode_batch(embedding, [prompts[i] for i in chunk], size)
                decoded.update(zip(chunk, zip(logits, scores, strict=True), strict=True))
        for index in range(len(prompts)):
            yield decoded.pop(index)

    @torch.inference_mode()
    def _decode_batch(
        self, embedding: Embedding, prompts: Sequence[Prompt], size: ImageSize
    ) -> tuple[list[torch.Tensor], list[float]]:
        model = self.model
        scale = torch.tensor([model.image_size / size.width, model.image_size / size.height])
        rows = [_tokens(prompt) for prompt in prompts]
        coordinates = torch.tensor([[xy for xy, _ in row] for row in rows]) * scale  # (P, N, 2)
        labels = torch.tensor([[label for _, label in row] for row in rows], dtype=torch.int)
        sparse, dense = model.sam_prompt_encoder(
            points=(coordinates.to(model.device), labels.to(model.device)), boxes=None, masks=None
        )
        logits, scores, _, _ = model.sam_mask_decoder(
            image_embeddings=embedding.image,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=True,
            high_res_features=list(embedding.high_res) or None,
        )  # (P, 1, S/4, S/4) and (P, 1)
        return list(logits[:, 0].float().unbind(0)), scores[:, 0].float().tolist()


class EmbeddingCache:
    """The embeddings used last, as many as fit into a number of bytes; thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._entries: OrderedDict[bytes, Embedding] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._making: dict[bytes, threading.Lock] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that the cached embeddings take."""
        return self._bytes

    def get_or_make(self, key: bytes, make: Callable[[], Embedding]) -> Embedding:
        """The embedding of this key, made once however many ask for it at the same time."""
        embedding = self.get(key)
        if embedding is not None:
            return embedding
        with self._lock:
            turn = self._making.setdefault(key, threading.Lock())
        with turn:
            embedding = self.get(key)
            if embedding is None:
                try:
                    embedding = make()
                    self.put(key, embedding)
                finally:
                    with self._lock:
                        self._making.pop(key, None)
        return embedding

    def get(self, key: bytes) -> Embedding | None:
        """The embedding of this key, which is now the last used; None if it is not here."""
        with self._lock:
            embedding = self._entries.get(key)
            if embedding is not None:
                self._entries.move_to_end(key)
            return embedding

    def put(self, key: bytes, embedding: Embedding) -> None:
        """Keep an embedding, and drop the longest unused ones beyond the limit."""
        with self._lock:
            previous = self._entries.pop(key, None)
            self._bytes += embedding.nbytes - (previous.nbytes if previous else 0)
            self._entries[key] = embedding
            while self._bytes > self._limit:
                _, dropped = self._entries.popitem(last=False)
                self._bytes -= dropped.nbytes


def _tokens(prompt: Prompt) -> list[tuple[tuple[float, float], int]]:
    """The prompt as the encoder takes it: x, y and label of each corner and point."""
    box = prompt.box_px
    tokens = (
        [] if box is None else [((box.x1, box.y1), _TOP_LEFT), ((box.x2, box.y2), _BOTTOM_RIGHT)]
    )
    labels = prompt.labels if prompt.labels is not None else (True,) * len(prompt.points_px)
    tokens += [
        ((point.x, point.y), _POSITIVE if label else _NEGATIVE)
        for point, label in zip(prompt.points_px, labels, strict=True)
    ]
    return tokens


def _length(prompt: Prompt) -> int:
    return len(prompt.points_px) + (0 if prompt.box_px is None else 2)


def _full_size(logits: torch.Tensor, size: ImageSize) -> BoolMask:
    """Logits of any size into a mask of the image's size."""
    large = F.interpolate(
        logits[None, None], (size.height, size.width), mode="bilinear", align_corners=False
    )
    mask: BoolMask = (large[0, 0] > 0).cpu().numpy()
    return mask


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
