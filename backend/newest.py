"""The corrections of several projects from the newest to the oldest, whatever their number."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from segzero_ml.corrections import Correction, Verdict
from training_hooks.store_reader import CorrectionReader
from training_hooks.store_values import ProjectKey

_PAGE: Final = 50


def newest(
    reader: CorrectionReader, projects: Iterable[ProjectKey], verdict: Verdict | None = None
) -> Iterator[Correction]:
    """Read corrections page by page, holding one page of each project.

    Within a project they come in the order in which the store learnt them, the last first;
    projects are merged by the time at which Label Studio saved the correction.

    Args:
        reader: The store.
        projects: Which ones.
        verdict: Only those with this verdict.

    Raises:
        StoreError: Redis does not answer.
    """
    each = [_of_project(reader, project, verdict) for project in projects]
    return heapq.merge(*each, key=_saved_at, reverse=True)


def _of_project(
    reader: CorrectionReader, project: ProjectKey, verdict: Verdict | None
) -> Iterator[Correction]:
    before, is_last = 0, False
    while not is_last:
        page = reader.page(project, before, _PAGE, verdict, newest_first=True)
        yield from page.corrections
        before, is_last = page.after, page.is_last


def _saved_at(one: Correction) -> datetime:
    return one.revision.updated_at
