"""How the bundled segmenter is made: SAM 2's classes, small, from scratch on plain scenes.

Each step shows some scenes and, for each, some prompts of the kinds that reasoners and
annotators give: a loose box, a box with a point, clicks. The loss is SAM's: cross-entropy
plus dice on the mask, and the squared error of the predicted IoU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from segzero_ml.sam2_build import build_sam2_model
from segzero_ml.tiny.cache import SceneCache, load_or_draw
from segzero_ml.tiny.loop import LoopOptions, run_loop

CONFIG = Path(__file__).with_name("segmenter.yaml")
SIDE = 256
PROMPTS_PER_SCENE = 4
# What the prompts of a step are made of, and how often.
_MODES = (("box+point", 0.5), ("box", 0.15), ("point", 0.15), ("points", 0.2))
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SegmenterOptions:
    """What the recipe can be told.

    Args:
        scenes: Training scenes to draw.
        batch: Scenes a step.
        loop: Steps, learning rate, seed, device, where to keep checkpoints.
    """

    scenes: int = 4000
    batch: int = 12
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(1000, 8e-4))


def train_segmenter(options: SegmenterOptions, cache_folder: Path) -> Any:
    """Trains the segmenter; resumes where a checkpoint is.

    Returns:
        The trained model, with averaged weights.
    """
    scenes = load_or_draw(cache_folder, options.scenes, SIDE)
    torch.manual_seed(options.loop.seed)
    model = build_sam2_model(CONFIG)
    start_attention_by_place(model)

    def step(index: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([options.loop.seed, index])
        batch = _batch(scenes, options.batch, rng)
        return _loss(model, *(part.to(options.loop.device) for part in batch))

    averaged = run_loop(model, step, options.loop)
    share_mask_tokens(averaged)
    return averaged.cpu()


def start_attention_by_place(model: Any) -> None:
    """Starts each cross-attention's key projection equal to its query projection.

    From the default start a small decoder ignores its prompts for hundreds of steps; with
    keys and queries in one basis, a prompt attends to its own place from the first step.
    """
    transformer = model.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        for attention in attentions:
            attention.q_proj.weight.mul_(2.5)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.k_proj.bias.copy_(attention.q_proj.bias)


def share_mask_tokens(model: Any) -> None:
    """Gives the three ambiguity masks, which this recipe does not train, the trained one."""
    decoder = model.sam_mask_decoder
    with torch.no_grad():
        decoder.mask_tokens.weight[1:] = decoder.mask_tokens.weight[:1]
        last = decoder.iou_prediction_head.layers[-1]
        last.weight[1:] = last.weight[:1]
        last.bias[1:] = last.bias[:1]
        first = decoder.output_hypernetworks_mlps[0].state_dict()
        for mlp in decoder.output_hypernetworks_mlps[1:]:
            mlp.load_state_dict(first)


def _batch(
    scenes: SceneCache, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (B, 3, S, S), targets (B*P, S, S), points (B*P, T, 2) in pixels, labels (B*P, T)."""
    mode = str(rng.choice([m for m, _ in _MODES], p=[p for _, p in _MODES]))
    images, targets, coords, kinds = [], [], [], []
    for index in rng.integers(len(scenes.images), size=count):
        image, labels = _turned(scenes.images[index], scenes.labels[index], rng)
        images.append(_recoloured(image, rng))
        for _ in range(PROMPTS_PER_SCENE):
            target = labels == rng.integers(1, int(labels.max()) + 1)
            xy, kind = _prompt(mode, target, rng)
            targets.append(target)
            coords.append(xy)
            kinds.append(kind)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]
    return (
        pixels,
        torch.from_numpy(np.stack(targets)).float(),
        torch.from_numpy(np.stack(coords)).float(),
        torch.from_numpy(np.stack(kinds)).int(),
    )


def _turned(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if flip:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return image, labels


def _recoloured(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A segmenter should not care for colour names: other channels, brightness, contrast."""
    if rng.random() < 0.5:
        return image
    value = image[..., rng.permutation(3)].astype(np.float32)
    if rng.random() < 0.3:
        value = 255 - value
    value = (value - 128) * rng.uniform(0.6, 1.3) + 128 + rng.uniform(-40, 40)
    return np.clip(value, 0, 255).astype(np.uint8)


def _prompt(
    mode: str, target: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points (T, 2) in pixels and SAM's labels (T,): 1 in, 0 out, 2 and 3 box corners."""
    xy: list[NDArray[np.float64]] = []
    kinds: list[int] = []
    rows, columns = np.flatnonzero(target.any(1)), np.flatnonzero(target.any(0))
    if mode.startswith("box"):
        corners = np.array(
            [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], dtype=np.float64
        )
        extent = corners[1] - corners[0]
        loose = rng.normal(size=(2, 2)) * (0.08 * extent + 2.0) * rng.uniform(0, 1.5)
        corners = np.clip(corners + loose, 0, SIDE)
        xy += [corners.min(0), corners.max(0)]
        kinds += [2, 3]
    inside = np.argwhere(target)[:, ::-1]
    positives = {"box": 0, "box+point": 1, "point": 1, "points": 2}[mode]
    for _ in range(positives):
        xy.append(inside[rng.integers(len(inside))] + 0.5)
        kinds.append(1)
    if mode == "points":
        outside = np.argwhere(~target)[:, ::-1]
        xy.append(outside[rng.integers(len(outside))] + 0.5)
        kinds.append(0)
    return np.stack(xy).astype(np.float32), np.asarray(kinds)


def _loss(
    model: Any, pixels: Tensor, targets: Tensor, coords: Tensor, kinds: Tensor
) -> tuple[Tensor, dict[str, float]]:
    backbone = model.forward_image(pixels)
    _, features, _, sizes = model._prepare_backbone_features(backbone)
    features[-1] = features[-1] + model.no_mem_embed
    maps = [
        f.permute(1, 2, 0).reshape(len(pixels), -1, *size)
        for f, size in zip(features, sizes, strict=True)
    ]
    maps = [m.repeat_interleave(PROMPTS_PER_SCENE, dim=0) for m in maps]
    sparse, dense = model.sam_prompt_encoder(points=(coords, kinds), boxes=None, masks=None)
    logits, iou, _, _ = model.sam_mask_decoder(
        image_embeddings=maps[-1],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
        repeat_image=False,
        high_res_features=maps[:-1],
    )
    logits = F.interpolate(logits.float(), (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    chance = logits.sigmoid()
    overlap = (chance * targets).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (chance.sum((1, 2)) + targets.sum((1, 2)) + 1)
    # Small objects are a hundredth of the picture: their pixels count for more.
    weight = 1 + 9 * targets
    cross = (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weight).mean()
    with torch.no_grad():
        hit = logits > 0
        truth = targets > 0
        reached = (hit & truth).sum((1, 2)) / (hit | truth).sum((1, 2)).clamp(min=1)
    quality = F.mse_loss(iou.float()[:, 0], reached)
    total = 4 * cross + dice.mean() + quality
    return total, {"iou": float(reached.mean()), "quality": float(quality.detach())}
