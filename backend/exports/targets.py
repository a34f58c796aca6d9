"""Which corrections are exported: of each task the one to learn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from segzero_ml.corrections import Correction, Verdict, choose_target
from segzero_ml.errors import StoreError
from training_hooks.store_reader import CorrectionReader
from training_hooks.store_values import ProjectKey

_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class Chosen:
    """What became of one correction of the store.

    Args:
        annotation: Its annotation.
        target: The correction, if it is the one of its task to learn from and was asked for.
        is_damaged: It is in the store, but cannot be read.
    """

    annotation: int
    target: Correction | None = None
    is_damaged: bool = False


def targets(
    reader: CorrectionReader,
    project: ProjectKey,
    verdict: Verdict | None = None,
    since: datetime | None = None,
) -> Iterator[Chosen]:
    """Go through a project's corrections, a page at a time.

    The target of a task is chosen among all its corrections; only then it is looked at whether
    that one was asked for. One that changes meanwhile may come twice.

    Args:
        reader: The store.
        project: Which project.
        verdict: Only targets with this verdict.
        since: Only targets saved then or later.

    Raises:
        StoreError: Redis does not answer.
    """
    after, is_last = 0, False
    while not is_last:
        page = reader.page(project, after, _PAGE, verdict)
        tasks = [correction.task for correction in page.corrections]
        counts = reader.annotations_of(project, tasks)
        for correction, count in zip(page.corrections, counts, strict=True):
            asked = since is None or correction.revision.updated_at >= since
            is_target = asked and (count == 1 or _is_target(reader, project, correction))
            yield Chosen(correction.key.annotation, correction if is_target else None)
        for annotation in page.unreadable:
            yield Chosen(annotation, is_damaged=True)
        after, is_last = page.after, page.is_last


def _is_target(reader: CorrectionReader, project: ProjectKey, correction: Correction) -> bool:
    try:
        target = choose_target(reader.of_task(project, correction.task))
    except StoreError:
        # Either Redis is away, which this tells, or another one of the task is damaged.
        reader.mark(project)
        return True
    return target is not None and target.key == correction.key
