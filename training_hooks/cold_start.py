"""A cold start: before rewards alone teach it, the model is shown the best it said itself.

Each prompt is answered several times, as in GRPO. Where the best answer cut the corrected
masks, its thoughts fit the truth: the model is trained on them, with the corrected boxes and
points in place of its own (rejection sampling, as in RAFT, arXiv 2304.06767). Where none did,
there are no right thoughts to learn: it is trained on boxes and points alone, after thoughts that
are left empty and not learnt. On pictures unlike those it knows, GRPO alone earns next to nothing
for long.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from PIL import Image

from segzero_ml import masks
from segzero_ml.answer import parse, render
from segzero_ml.errors import InputError
from segzero_ml.geometry import Frame, box_from_px, point_from_px
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.prompts import normalise_request
from segzero_ml.types import Answer, AnswerObject, BoolMask, ImageSize
from training_hooks.judge import Case, Judge
from training_hooks.round_options import RoundOptions

_log = logging.getLogger(__name__)

AT_ONCE: Final = 8
"""Prompts answered, or learnt from, at once."""
_TRIES: Final = 4

_ANSWER: Final = "<answer>"
_GOOD: Final = 0.7
"""Mask IoU from which an answer, and so its thoughts, counts as right."""


@dataclass(frozen=True)
class Shown:
    """One prompt with the answer that it should have.

    Args:
        image: Gives the upright image.
        request: Normalised.
        begun: What is given, and not learnt.
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
    reasoner: LocalReasoner,
    judge: Judge,
    cases: Sequence[Case],
    requests: Sequence[str],
    rehearsed: Sequence[bool],
    options: RoundOptions,
    between: Callable[[], None] = lambda: None,
) -> list[Shown]:
    """Have the model answer each case several times, and take the best answers.

    Left out are truths that the form cannot hold, such as two objects where there is room for
    one, and what is rehearsed but was not answered right: boxes without thoughts would teach
    nothing that was known before.

    Args:
        reasoner: The model.
        judge: Says which answers are best.
        cases: What is asked about, and what is true.
        requests: What is asked of each.
        rehearsed: Which of them were known before.
        options: Temperature and length of the answers.
        between: Called after each batch; what it raises ends it here.

    Raises:
        ModelError: There is not enough memory.
    """
    found: list[Shown] = []
    for start in range(0, len(cases), AT_ONCE):
        here = slice(start, start + AT_ONCE)
        batch = cases[here]
        asked = [normalise_request(one) for one in requests[here]]
        sampled = reasoner.sample(
            [case.image() for case in batch],
            asked,
            count=_TRIES,
            temperature=options.temperature,
            max_new_tokens=options.max_new_tokens,
        )
        for case, request, texts, known in zip(batch, asked, sampled, rehearsed[here], strict=True):
            with contextlib.suppress(InputError):
                begun, target = _best(texts, judge, case, reasoner)
                if not (begun and known):
                    found.append(Shown(case.image, request, begun, target))
        between()
    return found


def _best(
    texts: Sequence[str], judge: Judge, case: Case, reasoner: LocalReasoner
) -> tuple[str, str]:
    parts = judge.judge(texts, case)
    best = max(range(len(texts)), key=lambda i: (parts[i].mask, parts[i].total))
    is_good = parts[best].mask >= _GOOD
    thoughts = parse(texts[best], case.frame).reasoning if is_good else ""
    text = render(true_answer(case, thoughts), reasoner.preset.schema)
    if is_good:
        return "", text
    begun, mark, target = text.partition(_ANSWER)
    return begun + mark, target


def teach(
    model: Any,
    reasoner: LocalReasoner,
    lessons: Sequence[Shown],
    options: RoundOptions,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Train an adapter on the answers that were shown.

    Args:
        model: With the adapter that learns; nothing else of it does.
        reasoner: Whose processor and base it is.
        lessons: What is shown.
        options: Their `cold_start`, how often each is shown; learning rate and seed.
        between: Called after each batch; what it raises ends it here.
    """
    learnt = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=options.cold_start_rate, weight_decay=0.0)
    drawn = random.Random(options.seed)  # noqa: S311 - seeded, not secret
    for _ in range(options.cold_start):
        order = drawn.sample(list(lessons), len(lessons))
        for start in range(0, len(order), AT_ONCE):
            batch = order[start : start + AT_ONCE]
            loss = model(**_inputs(reasoner, batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, options.max_grad_norm)
            optimiser.step()
            optimiser.zero_grad()
            _log.info("Cold start: loss %.3f", float(loss.detach()))
            between()
    _agree(learnt)


def _agree(weights: Sequence[torch.Tensor]) -> None:
    """Of several processes that train together, all go on from what the first one learnt."""
    if torch.distributed.is_initialized():
        for one in weights:
            torch.distributed.broadcast(one.data, src=0)


def _inputs(reasoner: LocalReasoner, batch: Sequence[Shown]) -> Any:
    """What the model takes, with labels on the words of the answers only."""
    tokenizer = reasoner.processor.tokenizer
    whole = [one.begun + one.target + tokenizer.eos_token for one in batch]
    inputs = reasoner.inputs([one.image() for one in batch], [one.request for one in batch], whole)
    labels = torch.full_like(inputs["input_ids"], -100)  # (B, T); -100: not learnt
    for row, (one, text) in enumerate(zip(batch, whole, strict=True)):
        count = _tokens(tokenizer, text) - _tokens(tokenizer, one.begun)
        labels[row, -count:] = inputs["input_ids"][row, -count:]  # padded on the left
    device = reasoner.model.device
    return {**inputs.to(device), "labels": labels.to(device)}


def _tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _true_object(mask: BoolMask, frame: Frame, size: ImageSize) -> AnswerObject:
    box, point = masks.bounding_box_px(mask), masks.inner_point_px(mask)
    if box is None or point is None:
        raise InputError("A true mask is empty.")
    return AnswerObject(box_from_px(box, frame, size), (point_from_px(point, frame, size),))
