"""Champion against the checkpoints of a round, on the held-out examples of its snapshot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from PIL import Image

from segzero_ml import masks
from segzero_ml.datasets import Sample
from segzero_ml.evaluate import judge as compare_masks
from segzero_ml.images import load_image
from segzero_ml.pipeline import Pipeline
from segzero_ml.types import Prediction
from training_hooks import gate
from training_hooks.faithfulness import Faithfulness
from training_hooks.gate import GateOptions, Verdict
from training_hooks.gate_figures import Case
from training_hooks.report_pictures import Group, Picture, choose, overlay, shown
from training_hooks.snapshot_records import Example

_AT_ONCE: Final = 8
_EACH: Final = 4  # pictures of each group

Asked = Callable[[], None]
"""Called between two batches; raises where the round is to end."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model made of the examples.

    Args:
        cases: As the gate takes them, in the order of the examples.
        predictions: In the same order.
        faithfulness: Whether its answers hang on its thoughts, where that was looked at.
        rehearsed: What it made of the examples of what is known already.
    """

    cases: tuple[Case, ...]
    predictions: tuple[Prediction, ...]
    faithfulness: Faithfulness | None = None
    rehearsed: tuple[Case, ...] = ()

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the masks, as the gate counts it; 0 without examples."""
        return sum(case.counted_iou for case in self.cases) / max(1, len(self.cases))


Complete = Callable[[Path, Answers], Answers]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a round.

    Args:
        best: Folder of the best checkpoint.
        verdict: The gate's, on that one.
        champion, challenger: What both answered.
        means: Mean IoU of each checkpoint, in the order given.
        share: Of what the best one learnt that is kept.
    """

    best: Path
    verdict: Verdict
    champion: Answers
    challenger: Answers
    means: tuple[float, ...]
    share: float = 1.0


def answer_all(
    pipeline: Pipeline, examples: Sequence[Example], folder: Path, between: Asked = lambda: None
) -> Answers:
    """Have a model answer examples, greedily.

    Args:
        pipeline: The model.
        examples: What is asked.
        folder: The snapshot's, where the images lie.
        between: Called before each batch.

    Raises:
        SegZeroError: An image cannot be read, or the model has not enough memory.
    """
    cases: list[Case] = []
    predictions: list[Prediction] = []
    for start in range(0, len(examples), _AT_ONCE):
        between()
        batch = examples[start : start + _AT_ONCE]
        images = [load_image(folder / one.image_file) for one in batch]
        answered = pipeline.predict(images, [one.request for one in batch], batch_size=_AT_ONCE)
        for one, image, prediction in zip(batch, images, answered, strict=True):
            result = compare_masks(_sample(one, image), prediction)
            cases.append(Case.of(name_of(one), one.image_sha256, result, prediction.seconds))
            predictions.append(prediction)
    return Answers(tuple(cases), tuple(predictions))


def name_of(example: Example) -> str:
    """Names an example in cases and reports."""
    return f"{example.image_sha256[:16]} {example.annotation} {example.request}"


def judge(
    champion: Answers,
    challengers: Sequence[tuple[Path, Answers]],
    examples: Sequence[Example],
    options: GateOptions | None = None,
    complete: Complete = lambda _, answers: answers,
) -> Outcome:
    """Ask the gate about each checkpoint, and choose the best.

    That is the one with the greatest mean IoU among those that pass; else among all. They are
    looked at in that order, so that only few are asked about what was known before, which takes
    most of the time: one that fails on the held-out examples fails in any case.

    Args:
        champion: What serves now.
        challengers: Each checkpoint's folder with its answers; at least one.
        examples: What all of them answered. The gate asks for no fall on older corrections,
            nor on what was rehearsed.
        options: What the gate asks for; the number of challengers is filled in.
        complete: Adds to a checkpoint's answers those to what is rehearsed, and its faithfulness.
    """
    strict = replace(options or GateOptions(), challengers=len(challengers))
    means = tuple(one.mean_iou for _, one in challengers)
    kept_out: list[Outcome] = []
    for path, answers in sorted(challengers, key=lambda one: -one[1].mean_iou):
        # Of the best one everything is told, passed or not.
        if kept_out and not _asked(champion, answers, examples, strict).promote:
            continue
        whole = complete(path, answers)
        verdict = _asked(champion, whole, examples, strict)
        outcome = Outcome(path, verdict, champion, whole, means)
        if verdict.promote:
            return outcome
        kept_out.append(outcome)
    return kept_out[0]


def _asked(
    champion: Answers, challenger: Answers, examples: Sequence[Example], options: GateOptions
) -> Verdict:
    """The gate's verdict; without answers to what is rehearsed, on the others alone."""
    # Not the accepted ones: the champion's own answers are the truth there.
    older = [i for i, one in enumerate(examples) if one.origin == "older"]
    known = (champion.rehearsed, challenger.rehearsed) if challenger.rehearsed else ((), ())
    return gate.judge(
        champion.cases,
        challenger.cases,
        ([champion.cases[i] for i in older], [challenger.cases[i] for i in older]),
        known,
        options,
        faithfulness=(champion.faithfulness, challenger.faithfulness),
    )


def pictures(outcome: Outcome, examples: Sequence[Example], folder: Path) -> tuple[Picture, ...]:
    """Cases before and after: where most was gained, where most was lost, and some others."""
    at = {name_of(example): i for i, example in enumerate(examples)}
    chosen = choose(outcome.champion.cases, outcome.challenger.cases, _EACH)
    groups: tuple[tuple[Group, tuple[str, ...]], ...] = (
        ("best", chosen.best),
        ("worst", chosen.worst),
        ("random", chosen.random),
    )
    return tuple(
        _picture(group, at[name], outcome, examples[at[name]], folder)
        for group, names in groups
        for name in names
    )


def _picture(group: Group, i: int, outcome: Outcome, example: Example, folder: Path) -> Picture:
    image = load_image(folder / example.image_file)
    before, after = outcome.champion.predictions[i], outcome.challenger.predictions[i]
    return Picture(
        group=group,
        request=example.request,
        kind=example.verdict.value,
        champion_iou=outcome.champion.cases[i].iou,
        challenger_iou=outcome.challenger.cases[i].iou,
        champion_note=before.reasoning,
        challenger_note=after.reasoning,
        image=shown(image),
        before=overlay(image, [one.rle for one in before.segments], example.true_masks),
        after=overlay(image, [one.rle for one in after.segments], example.true_masks),
    )


def _sample(example: Example, image: Image.Image) -> Sample:
    return Sample(
        image=lambda: image,
        request=example.request,
        masks=tuple(masks.decode(one) for one in example.true_masks),
        kind=example.verdict.value,
        sample_id=name_of(example),
    )
