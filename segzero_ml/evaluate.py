"""A pipeline against samples with known masks."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from segzero_ml import masks
from segzero_ml.datasets import Sample
from segzero_ml.metrics import LISA, SampleResult, compare, summarise
from segzero_ml.pipeline import BATCH_SIZE, Pipeline
from segzero_ml.types import ImageSize, Prediction, ProblemKind


def evaluate(
    pipeline: Pipeline,
    samples: Iterable[Sample],
    progress: Callable[[int], None] | None = None,
    batch_size: int = BATCH_SIZE,
    convention: str = LISA,
) -> dict[str, Any]:
    """Answer every sample's request and compare the union of its masks with the truth.

    Args:
        pipeline: What is measured.
        samples: Read one batch at a time.
        progress: Called after each batch with the number of samples done.
        batch_size: How many samples are answered at once.
        convention: Name of the convention by which masks are compared, for the report.

    Returns:
        The report of `metrics.summarise`, and `seconds_median` (compute per sample, None
        without samples), `preset` and `model_version`.

    Raises:
        SegZeroError: A sample cannot be read, or the reasoner as a whole did not answer.
    """
    results: list[SampleResult] = []
    seconds: list[float] = []
    for batch in _batches(samples, batch_size):
        predictions = pipeline.predict(
            [sample.image() for sample in batch],
            [sample.request for sample in batch],
            batch_size=batch_size,
        )
        for sample, prediction in zip(batch, predictions, strict=True):
            results.append(judge(sample, prediction))
            seconds.append(prediction.seconds)
        if progress is not None:
            progress(len(results))
    return {
        **summarise(results, convention),
        "seconds_median": statistics.median(seconds) if seconds else None,
        "preset": pipeline.preset.name,
        "model_version": pipeline.model_version,
    }


def judge(sample: Sample, prediction: Prediction) -> SampleResult:
    """Compare one prediction with the truth.

    Raises:
        MaskError: The sample's masks are not of the image's size.
    """
    size: ImageSize = prediction.size
    predicted = masks.union((masks.decode(s.rle) for s in prediction.segments), size)
    overlap = compare(predicted, masks.union(sample.masks, size), sample.ignore)
    return SampleResult(
        intersection=overlap.intersection,
        union=overlap.union,
        iou=overlap.iou,
        kind=sample.kind,
        has_target=bool(sample.masks),
        predicted_empty=not prediction.segments,
        format_error=prediction.problem_kind is ProblemKind.UNREADABLE,
        score=prediction.score,
        failed=prediction.problem_kind is ProblemKind.FAILED,
    )


def _batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while batch := list(islice(iterator, size)):
        yield batch
