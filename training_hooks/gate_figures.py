"""The figures of the gate: what two models made of the same cases, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segzero_ml.errors import InputError
from segzero_ml.metrics import SampleResult, summarise
from training_hooks.bootstrap import Interval, paired_interval
from training_hooks.faithfulness import Faithfulness


@dataclass(frozen=True, slots=True)
class Case:
    """What one model made of one example, decoded greedily.

    Args:
        example: Names the request and its image; one case per example.
        image: Names the image, such as by its SHA-256: cases of one image belong together.
        kind: Kind of request or label, for the breakdown; may be empty.
        iou: IoU of the mask with the true one, in [0, 1]; 1 when both are empty.
        intersection: Pixels in both masks.
        union: Pixels in either.
        has_target: Whether something in the image matches the request.
        answered_nothing: Whether no object was answered.
        format_error: Whether there was no answer that could be read.
        seconds: Time the answer took, in compute.

    Raises:
        InputError: A number is out of its range, or an id is empty.
    """

    example: str
    image: str
    kind: str
    iou: float
    intersection: int
    union: int
    has_target: bool
    answered_nothing: bool
    format_error: bool
    seconds: float

    def __post_init__(self) -> None:
        if not self.example or not self.image:
            raise InputError("A case must name its example and its image.")
        if not 0 <= self.iou <= 1:
            raise InputError(f"The IoU of a case is {self.iou}: it must be from 0 to 1.")
        if not 0 <= self.intersection <= self.union:
            raise InputError("The intersection of a case must be from 0 to its union.")
        if not 0 <= self.seconds < math.inf:
            raise InputError("The seconds of a case must be finite and 0 or more.")

    @classmethod
    def of(cls, example: str, image: str, result: SampleResult, seconds: float) -> Case:
        """A case from what `segzero_ml.evaluate.judge` says; no answer counts as unreadable."""
        return cls(
            example=example,
            image=image,
            kind=result.kind,
            iou=result.iou,
            intersection=result.intersection,
            union=result.union,
            has_target=result.has_target,
            answered_nothing=result.predicted_empty,
            format_error=result.format_error or result.failed,
            seconds=seconds,
        )

    @property
    def counted_iou(self) -> float:
        """The IoU as `metrics.summarise` counts it: what cannot be read is not "nothing"."""
        silent = self.format_error and self.answered_nothing and not self.has_target
        return 0.0 if silent else self.iou

    def as_result(self) -> SampleResult:
        """The case as `metrics.summarise` takes it."""
        return SampleResult(
            intersection=self.intersection,
            union=self.union,
            iou=self.iou,
            kind=self.kind,
            has_target=self.has_target,
            predicted_empty=self.answered_nothing,
            format_error=self.format_error,
            score=0.0,
        )


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """One model on one set of cases; None where a figure is not defined for them.

    Args:
        cases, images: How many.
        mean_iou: Mean mask IoU over all cases: gIoU under the convention of `metrics.LISA`.
        mean_iou_with_target: The same over the requests that something matches.
        ciou: All intersections over all unions.
        without_target: Requests that nothing matches.
        n_acc: Share of them that was answered with nothing.
        format_errors: Share of answers that could not be read.
        seconds_median, seconds_p95: Time of an answer.
    """

    cases: int
    images: int
    mean_iou: float | None
    mean_iou_with_target: float | None
    ciou: float | None
    without_target: int
    n_acc: float | None
    format_errors: float | None
    seconds_median: float | None
    seconds_p95: float | None


@dataclass(frozen=True, slots=True)
class KindFigures:
    """Both models on the cases of one kind of request or one label."""

    kind: str
    cases: int
    champion_iou: float
    challenger_iou: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Champion and challenger on the same cases.

    Args:
        champion, challenger: Their figures.
        gain: Challenger's mean mask IoU minus the champion's, with its interval; None
            without cases.
        readable_cases: Cases on which both answers could be read.
        readable_gain: The gain on these; None without any.
        kinds: By kind or label, sorted by name.
    """

    champion: SliceFigures
    challenger: SliceFigures
    gain: Interval | None
    readable_cases: int
    readable_gain: float | None
    kinds: tuple[KindFigures, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """All that the gate looked at.

    Args:
        held_out: On the held-out examples of the corrections.
        older: On older corrections, so that nothing learnt before is lost.
        rehearsed: On what the base knew before any correction, for the same reason.
        champion_faithfulness, challenger_faithfulness: How much the answers hang on the
            thoughts; not decided on. None where not measured.
    """

    held_out: Comparison
    older: Comparison
    rehearsed: Comparison
    champion_faithfulness: Faithfulness | None = None
    challenger_faithfulness: Faithfulness | None = None


Pairs = Sequence[tuple[Case, Case]]
"""Champion's and challenger's case of each example, sorted by example."""


def compare(
    champion: Sequence[Case],
    challenger: Sequence[Case],
    confidence: float,
    resamples: int,
    seed: int,
) -> Comparison:
    """Put two models side by side; the order of the cases does not matter.

    Args:
        champion: At most one case of each example.
        challenger: Cases of the same examples.
        confidence: Of the interval, in (0, 1).
        resamples: How often the images are drawn anew.
        seed: Of the draws.

    Raises:
        InputError: The two are not about the same examples and the same truth, or name one
            twice.
    """
    pairs = matched(champion, challenger)
    readable = [pair for pair in pairs if not any(case.format_error for case in pair)]
    differences: dict[str, list[float]] = {}
    for before, after in pairs:
        by_image = differences.setdefault(before.image, [])
        by_image.append(after.counted_iou - before.counted_iou)
    return Comparison(
        champion=_figures([before for before, _ in pairs]),
        challenger=_figures([after for _, after in pairs]),
        gain=paired_interval(differences, confidence, resamples, seed) if pairs else None,
        readable_cases=len(readable),
        readable_gain=_gain(readable) if readable else None,
        kinds=_kinds(pairs),
    )


def matched(champion: Sequence[Case], challenger: Sequence[Case]) -> Pairs:
    """Pair the cases of the same examples, sorted by example.

    Raises:
        InputError: As `compare`.
    """
    of_champion, of_challenger = (
        {case.example: case for case in cases} for cases in (champion, challenger)
    )
    if len(of_champion) != len(champion) or len(of_challenger) != len(challenger):
        raise InputError("An example occurs twice among the cases of one model.")
    if of_champion.keys() != of_challenger.keys():
        raise InputError("Champion and challenger did not answer the same examples.")
    pairs = [(of_champion[name], of_challenger[name]) for name in sorted(of_champion)]
    for before, after in pairs:
        if _asked(before) != _asked(after):
            raise InputError(f"Two cases of the example {before.example!r} differ in the truth.")
    return pairs


def _asked(case: Case) -> tuple[str, str, bool]:
    return case.image, case.kind, case.has_target


def _gain(pairs: Pairs) -> float:
    return math.fsum(after.counted_iou - before.counted_iou for before, after in pairs) / len(pairs)


def _figures(cases: Sequence[Case]) -> SliceFigures:
    summary: dict[str, Any] = summarise(case.as_result() for case in cases)
    seconds = np.array([case.seconds for case in cases])
    return SliceFigures(
        cases=len(cases),
        images=len({case.image for case in cases}),
        mean_iou=summary["gIoU"],
        mean_iou_with_target=summary["gIoU_with_target"],
        ciou=summary["cIoU"],
        without_target=sum(not case.has_target for case in cases),
        n_acc=summary["n_acc"],
        format_errors=summary["format_errors"],
        seconds_median=float(np.median(seconds)) if cases else None,
        seconds_p95=float(np.quantile(seconds, 0.95)) if cases else None,
    )


def _kinds(pairs: Pairs) -> tuple[KindFigures, ...]:
    of_kind: dict[str, list[tuple[Case, Case]]] = {}
    for pair in pairs:
        of_kind.setdefault(pair[0].kind, []).append(pair)
    return tuple(
        KindFigures(
            kind,
            len(found),
            math.fsum(before.counted_iou for before, _ in found) / len(found),
            math.fsum(after.counted_iou for _, after in found) / len(found),
        )
        for kind, found in sorted(of_kind.items())
    )
