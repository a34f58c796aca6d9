"""Training batches for the bundled reasoner.

One sequence carries one image and several independent requests with their answers: the
image is read once, and each request sees the image and itself only, at the very positions
it would have if it stood alone. So every answer trains exactly what serving will ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from segzero_ml.answer import AnswerSchema, render
from segzero_ml.geometry import Frame, box_from_px, point_from_px
from segzero_ml.tiny.cache import SceneCache
from segzero_ml.tiny.reasoner import FRAME, GRID, MERGE, PATCH
from segzero_ml.tiny.requests import SceneRequest, make_request
from segzero_ml.tiny.scenes import COLOURS, SHAPES, SceneObject
from segzero_ml.types import Answer, AnswerObject, Box, ImageSize, Point

KIND_SHARES = {
    "attribute": 0.10,
    "superlative": 0.20,
    "relation": 0.17,
    "exclusion": 0.10,
    "plural": 0.14,
    "absent": 0.19,
    "implicit": 0.10,
}
"""How often each kind is asked; the harder ones more often."""

IGNORED = -100
USUAL_LENGTH, GREATEST_LENGTH = 108, 160
"""Tokens a request and its answer may take together, in most batches and in the others."""

VERDICT_WEIGHT, CONCLUSION_WEIGHT = 8.0, 3.0
"""Of the few words that decide: left at one they drown in what is only seen or copied."""

_LONG_SHARE = 0.2
_FRAME = Frame(FRAME, FRAME)
_CELL = PATCH * MERGE


@dataclass(frozen=True)
class DenseTargets:
    """What each of the image's visual tokens should know, (B, GRID * GRID) each.

    Args:
        presence: float, share of the cell that an object covers.
        colour, shape: Index of the object with the most of the cell; IGNORED where none.
        numbers: (B, GRID * GRID, 6): its box and point in the frame; IGNORED where none.
    """

    presence: Tensor
    colour: Tensor
    shape: Tensor
    numbers: Tensor


@dataclass(frozen=True)
class Batch:
    """B scenes with some requests each.

    Args:
        patches: float32, (B, 256, 600): as the image processor lays them out.
        dense: Targets for the visual tokens.
        head: Tokens of the image part; requests of equal, padded length follow.
        requests: Requests a scene.
        input_ids: int64, (B, head + requests * L).
        labels: int64, (B, S): the token to predict *at* this place, IGNORED elsewhere.
        weights: float32, (B, S): how much that token counts.
        positions: int64, (3, B, S).
    """

    patches: Tensor
    dense: DenseTargets
    input_ids: Tensor
    labels: Tensor
    weights: Tensor
    positions: Tensor
    head: int
    requests: int


class BatchMaker:
    """Makes the batch of a step, the same for the same seed and step."""

    def __init__(
        self, scenes: SceneCache, tokenizer: PreTrainedTokenizerFast, requests: int, seed: int
    ) -> None:
        self._scenes = scenes
        self._tokenizer = tokenizer
        self._requests = requests
        self._seed = seed
        encode = self._encode
        self._before = encode("<|im_start|>user\n<|vision_start|>")
        self._image = encode("<|image_pad|>") * (GRID * GRID)
        self._after_image = encode("<|vision_end|>")
        self._to_answer = encode("<|im_end|>\n<|im_start|>assistant\n")
        self._end = encode("<|im_end|>")
        (self._stop,) = encode(".")
        (self._close,) = encode("</think><answer>")
        self._verdicts = set(word_ids(tokenizer, ("yes", "no", "here")))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def make(self, step: int, count: int, with_text: bool = True) -> Batch:
        """The batch of a step: `count` scenes, each turned at random."""
        rng = np.random.default_rng([self._seed, step])
        # Requests are padded to one length; long lists of objects go into batches of their own.
        length = GREATEST_LENGTH if rng.random() < _LONG_SHARE else USUAL_LENGTH
        images, dense, rows = [], [], []
        for index in rng.integers(len(self._scenes.images), size=count):
            turn = int(rng.integers(8))
            size = ImageSize(*(int(v) for v in self._scenes.sizes[index]))
            objects, turned_size = turn_objects(self._scenes.objects(index), size, turn)
            images.append(_turn_array(self._scenes.images[index], turn))
            labels = _turn_array(self._scenes.labels[index], turn)
            dense.append(_dense(labels, objects, turned_size))
            rows.append(self._row(objects, turned_size, rng, length) if with_text else [])
        return Batch(
            patches=to_patches(np.stack(images)),
            dense=DenseTargets(
                *(torch.from_numpy(np.stack(part)) for part in zip(*dense, strict=True))
            ),
            head=len(self._before) + len(self._image) + len(self._after_image),
            requests=self._requests,
            **(self._lay_out(rows, length) if with_text else _NO_TEXT),
        )

    def _row(
        self,
        objects: Sequence[SceneObject],
        size: ImageSize,
        rng: np.random.Generator,
        longest: int,
    ) -> list[tuple[list[int], list[int]]]:
        """(prompt, answer) token ids of each request, all within a length."""
        row: list[tuple[list[int], list[int]]] = []
        while len(row) < self._requests:
            made = list(_requests(objects, size, self._requests + 1, rng))
            texts = [r.text for r in made] + [answer_text(r, objects, size) for r in made]
            ids = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
            for ask, answer in zip(ids[: len(made)], ids[len(made) :], strict=True):
                pair = (ask + self._to_answer, answer + self._end)
                if len(pair[0]) + len(pair[1]) <= longest:
                    row.append(pair)
        return row[: self._requests]

    def _lay_out(
        self, rows: Sequence[list[tuple[list[int], list[int]]]], longest: int
    ) -> dict[str, Tensor]:
        head = [*self._before, *self._image, *self._after_image]
        shape = (len(rows), len(head) + self._requests * longest)
        input_ids = np.full(shape, self._tokenizer.pad_token_id, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        weights = np.ones(shape, np.float32)
        place = self._head_positions()
        own = int(place.max()) + 1 + np.tile(np.arange(longest), self._requests)
        positions = np.concatenate([place, np.stack([own] * 3)], axis=1)
        input_ids[:, : len(head)] = head
        for i, row in enumerate(rows):
            for k, (prompt, answer) in enumerate(row):
                start = len(head) + k * longest
                stop = start + len(prompt) + len(answer)
                input_ids[i, start:stop] = prompt + answer
                first = start + len(prompt) - 1
                labels[i, first : stop - 1] = answer
                weights[i, first : stop - 1] = self._weights(answer)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(labels),
            "weights": torch.from_numpy(weights),
            "positions": torch.from_numpy(positions)[:, None].expand(-1, len(rows), -1),
        }

    def _weights(self, answer: Sequence[int]) -> NDArray[np.float32]:
        """How much each token counts: verdicts and the last sentence more than the rest."""
        close = answer.index(self._close)
        stops = [at for at in range(close) if answer[at] == self._stop]
        weights = np.ones(len(answer), np.float32)
        weights[[token in self._verdicts for token in answer]] = VERDICT_WEIGHT
        weights[stops[-2] + 1 : close] = CONCLUSION_WEIGHT
        return weights

    def _head_positions(self) -> NDArray[np.int64]:
        """(3, H): time, row and column of the image part, as Qwen2.5-VL counts them."""
        before = len(self._before)
        text = np.arange(before)
        rows, columns = np.divmod(np.arange(GRID * GRID), GRID)
        image = before + np.stack([np.zeros_like(rows), rows, columns])
        after = np.full((3, 1), before + GRID)
        return np.concatenate([np.stack([text] * 3), image, after], axis=1)


_NO_TEXT = {name: torch.empty(0) for name in ("input_ids", "labels", "weights", "positions")}


def _requests(
    objects: Sequence[SceneObject], size: ImageSize, count: int, rng: np.random.Generator
) -> Iterator[SceneRequest]:
    kinds, shares = tuple(KIND_SHARES), np.fromiter(KIND_SHARES.values(), float)
    made = 0
    while made < count:
        kind = str(rng.choice(kinds, p=shares / shares.sum()))
        request = make_request(objects, size, kind, rng)
        if request is not None:
            made += 1
            yield request


def answer_text(request: SceneRequest, objects: Sequence[SceneObject], size: ImageSize) -> str:
    """The exact text that answers a request."""
    found = tuple(
        AnswerObject(
            box_from_px(objects[i].box_px, _FRAME, size),
            (point_from_px(objects[i].point_px, _FRAME, size),),
        )
        for i in request.targets
    )
    return render(Answer(request.reasoning, found), AnswerSchema.VISION_REASONER)


def turn_objects(
    objects: Sequence[SceneObject], size: ImageSize, turn: int
) -> tuple[list[SceneObject], ImageSize]:
    """The objects of a picture that was turned; `turn` is one of the eight symmetries."""
    turned = [_turn_object(o, size, turn) for o in objects]
    return turned, ImageSize(size.height, size.width) if turn & 4 else size


def _turn_object(o: SceneObject, size: ImageSize, turn: int) -> SceneObject:
    def move(x: float, y: float) -> tuple[float, float]:
        x = size.width - x if turn & 1 else x
        y = size.height - y if turn & 2 else y
        return (y, x) if turn & 4 else (x, y)

    (ax, ay), (bx, by) = move(o.box_px.x1, o.box_px.y1), move(o.box_px.x2, o.box_px.y2)
    center = Point(*move(o.center_px.x, o.center_px.y))
    # The pointed-at place is on the left of a ring whichever way the picture is turned.
    point = Point(center.x - abs(o.center_px.x - o.point_px.x), center.y)
    return replace(
        o,
        center_px=center,
        point_px=point,
        box_px=Box(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)),
    )


def _turn_array(array: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    array = array[:, ::-1] if turn & 1 else array
    array = array[::-1] if turn & 2 else array
    return np.swapaxes(array, 0, 1) if turn & 4 else array


def to_patches(images: NDArray[np.uint8]) -> Tensor:
    """Lays pictures out as Qwen2-VL's image processor does.

    Args:
        images: uint8, (B, FRAME, FRAME, 3).

    Returns:
        float32, (B, patches, 3 * 2 * PATCH * PATCH) in [-1, 1]; the picture stands twice,
        as the two frames of a still.
    """
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    b = len(x)
    x = x.reshape(b, 3, GRID, MERGE, PATCH, GRID, MERGE, PATCH)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, gh, gw, m, m, C, P, P)
    x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return x.reshape(b, GRID * GRID * MERGE * MERGE, -1)


def _dense(
    labels: NDArray[np.uint8], objects: Sequence[SceneObject], size: ImageSize
) -> tuple[NDArray[np.generic], ...]:
    cells = labels.reshape(GRID, _CELL, GRID, _CELL).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    covered = np.stack([(cells == k + 1).mean(1) for k in range(len(objects))], axis=1)
    most = covered.argmax(1)
    known = covered.max(1) > 0.04
    colours = [tuple(COLOURS).index(o.colour) for o in objects]
    shapes = [SHAPES.index(o.shape) for o in objects]
    numbers = []
    for o in objects:
        box = box_from_px(o.box_px, _FRAME, size).as_tuple()
        point = point_from_px(o.point_px, _FRAME, size)
        numbers.append([min(max(round(v), 0), FRAME) for v in (*box, point.x, point.y)])
    return (
        covered.sum(1).astype(np.float32),
        np.where(known, np.asarray(colours)[most], IGNORED),
        np.where(known, np.asarray(shapes)[most], IGNORED),
        np.where(known[:, None], np.asarray(numbers)[most], IGNORED),
    )


def word_ids(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> list[int]:
    """The single token of each word as it stands inside a sentence."""
    ids = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in words]
    return [single for (single,) in ids]
