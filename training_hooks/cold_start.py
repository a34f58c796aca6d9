"""A cold start: before it is rewarded, the model is shown what people corrected.

GRPO finds what the model can already say now and then; what it never says earns nothing. So
a round may begin with supervised steps: the model thinks by itself, and goes on with the
corrected boxes and points, on whose words alone it is trained. Its thoughts stay its own.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from segzero_ml import masks
from segzero_ml.answer import parse, render
from segzero_ml.errors import InputError
from segzero_ml.geometry import Frame, box_from_px, point_from_px
from segzero_ml.presets import Preset
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.prompts import normalise_request
from segzero_ml.types import Answer, AnswerObject, BoolMask, ImageSize
from training_hooks.judge import Case

_log = logging.getLogger(__name__)

_AT_ONCE = 8


@dataclass(frozen=True)
class Shown:
    """One prompt with the answer that it should have.

    Args:
        image: Gives the upright image.
        request: Normalised.
        begun: The model's own thinking, up to the answer.
        target: What it should go on with.
    """

    image: Callable[[], Image.Image]
    request: str
    begun: str
    target: str


def true_answer(case: Case, reasoning: str) -> Answer:
    """What should be answered, in the model's frame: box and inner point of each true mask."""
    size = case.truth.size
    objects = [_true_object(masks.decode(rle), case.frame, size) for rle in case.truth.rles]
    # From left to right: an order that does not hang on how somebody drew.
    objects.sort(key=lambda one: one.box.as_tuple())
    return Answer(reasoning, tuple(objects), None)


def shown(
    reasoner: LocalReasoner, cases: Sequence[Case], requests: Sequence[str], preset: Preset
) -> list[Shown]:
    """Let the model think about each case, and put the true answer after its thoughts.

    Left out are cases about which it does not think in the form it should, and truths that
    its form cannot hold, such as two objects where there is room for one.
    """
    found: list[Shown] = []
    for start in range(0, len(cases), _AT_ONCE):
        batch = cases[start : start + _AT_ONCE]
        asked = [normalise_request(one) for one in requests[start : start + _AT_ONCE]]
        outputs = reasoner.answer([case.image() for case in batch], asked)
        for case, request, output in zip(batch, asked, outputs, strict=True):
            thought = parse(output.text, case.frame)
            if thought.problem is not None:
                continue
            try:
                text = render(true_answer(case, thought.reasoning), preset.schema)
            except InputError:
                continue
            begun, mark, target = text.partition("<answer>")
            found.append(Shown(case.image, request, begun + mark, target))
    return found


def teach(
    model: Any,
    reasoner: LocalReasoner,
    lessons: Sequence[Shown],
    learning_rate: float,
    epochs: int,
    seed: int,
    max_grad_norm: float,
) -> None:
    """Train an adapter on the answers that were shown.

    Args:
        model: With the adapter that learns; nothing else of it does.
        reasoner: Whose processor and base it is.
        lessons: What is shown.
        learning_rate: Of the adapter.
        epochs: How often each is shown.
        seed: Of the order.
        max_grad_norm: Longest gradient.
    """
    learnt = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=learning_rate, weight_decay=0.0)
    drawn = random.Random(seed)  # noqa: S311 - seeded, not secret
    for _ in range(epochs):
        order = drawn.sample(list(lessons), len(lessons))
        for start in range(0, len(order), _AT_ONCE):
            batch = order[start : start + _AT_ONCE]
            loss = model(**_inputs(reasoner, batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, max_grad_norm)
            optimiser.step()
            optimiser.zero_grad()
            _log.info("Cold start: loss %.3f", float(loss.detach()))


def _inputs(reasoner: LocalReasoner, batch: Sequence[Shown]) -> Any:
    """What the model takes, with labels on the words of the targets only."""
    tokenizer = reasoner.processor.tokenizer
    whole = [one.begun + one.target + tokenizer.eos_token for one in batch]
    inputs = reasoner.inputs([one.image() for one in batch], [one.request for one in batch], whole)
    labels = torch.full_like(inputs["input_ids"], -100)  # (B, T); -100: not learnt
    for row, (one, text) in enumerate(zip(batch, whole, strict=True)):
        count = len(tokenizer(text)["input_ids"]) - len(tokenizer(one.begun)["input_ids"])
        labels[row, -count:] = inputs["input_ids"][row, -count:]  # padded on the left
    device = reasoner.model.device
    return {**inputs.to(device), "labels": labels.to(device)}


def _true_object(mask: BoolMask, frame: Frame, size: ImageSize) -> AnswerObject:
    box, point = masks.bounding_box_px(mask), masks.inner_point_px(mask)
    if box is None or point is None:
        raise InputError("A true mask is empty.")
    return AnswerObject(box_from_px(box, frame, size), (point_from_px(point, frame, size),))
