"""Writes an export: goes through the corrections, fetches their images, keeps count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from backend.exports.folder import export_folder
from backend.exports.order import Format, LeftOut, Order, Summary
from backend.exports.targets import Chosen, targets
from backend.fetch import ImageFetcher
from backend.settings import Settings
from backend.task_files import ChangedImageError, check_size, fetch_image_file
from segzero_ml.corrections import Correction
from segzero_ml.datasets import checked_request
from segzero_ml.datasets.pictures import Picture, prepare
from segzero_ml.datasets.write_coco import CocoWriter
from segzero_ml.datasets.write_jsonl import JsonlWriter
from segzero_ml.datasets.write_reasonseg import ReasonSegWriter
from segzero_ml.datasets.writing import Item, TrueAnswer, TrueSegment, Writer
from segzero_ml.errors import DatasetError, FetchError, ImageError, InputError, MaskError
from segzero_ml.images import ImageLimits
from segzero_ml.verdict import Verdict
from training_hooks.store_reader import CorrectionReader
from training_hooks.store_values import ProjectKey

LEFT_OUT_FILE: Final = "left-out.jsonl"
"""What was left out and why, a line each; missing where nothing was."""

_AT_ONCE: Final = 4
"""Images that are fetched at the same time."""


def expected(reader: CorrectionReader, order: Order) -> int:
    """How many corrections an export will look at, about.

    Raises:
        StoreError: Redis does not answer.
    """
    verdicts = tuple(Verdict) if order.verdict is None else (order.verdict,)
    found = (reader.statistics(project).verdicts for project in order.projects)
    return sum(counts[verdict] for counts in found for verdict in verdicts)


async def export(
    order: Order,
    reader: CorrectionReader,
    fetcher: ImageFetcher,
    settings: Settings,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Write an export; it is there as a whole afterwards, or not at all.

    Args:
        order: What to export.
        reader: The store.
        fetcher: Fetches the images.
        settings: What an image may measure.
        progress: Called with the number of corrections looked at.

    Raises:
        ConfigError: The folder holds something, or cannot be written.
        InputError: There is nothing to export, or all of it was left out.
        LabelStudioError: Label Studio does not take the token.
        StoreError: Redis does not answer.
    """
    with export_folder(order.out, order.force) as folder:
        run = _Run(order, fetcher, settings, folder.path)
        try:
            for project in order.projects:
                found = targets(reader, project, order.verdict, order.since)
                for batch in _batches(found, _AT_ONCE):
                    await run.add(project, batch)
                    if progress is not None:
                        progress(run.summary.seen)
        finally:
            run.close()
        _check_some(run.summary)
        folder.describe({"format": order.format.value, **run.summary.as_dict()})
    return run.summary


class _Run:
    """One export at work."""

    def __init__(
        self, order: Order, fetcher: ImageFetcher, settings: Settings, folder: Path
    ) -> None:
        self.summary = Summary()
        self._order, self._fetcher = order, fetcher
        self._limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        self._left_out = folder / LEFT_OUT_FILE
        self._writer = _writer(order.format, folder)

    async def add(self, project: ProjectKey, batch: list[Chosen]) -> None:
        """Fetch the images of a few targets together, then write them in their order."""
        wanted = [one.target for one in batch if one.target is not None]
        fetched = await asyncio.gather(*map(self._picture, wanted))
        pictures = {
            one.key.annotation: picture for one, picture in zip(wanted, fetched, strict=True)
        }
        for one in batch:
            self.summary.seen += 1
            if one.is_damaged:
                self._leave_out(project, one.annotation, LeftOut.DAMAGED, "")
            elif one.target is None:
                self.summary.others += 1
            else:
                self._write(one.target, pictures[one.annotation])

    def close(self) -> None:
        """Complete the files."""
        self._writer.close()

    async def _picture(self, correction: Correction) -> Picture | tuple[LeftOut, str]:
        try:
            file = await fetch_image_file(self._fetcher, correction)
            only_jpeg = self._order.format is Format.REASONSEG
            picture = await asyncio.to_thread(prepare, file, self._limits, as_jpeg=only_jpeg)
            check_size(correction, picture.size)
        except FetchError as error:
            return LeftOut.NO_IMAGE, error.message
        except ChangedImageError as error:
            return LeftOut.CHANGED_IMAGE, error.message
        except ImageError as error:
            return LeftOut.BAD_IMAGE, error.message
        return picture

    def _write(self, correction: Correction, picture: Picture | tuple[LeftOut, str]) -> None:
        key = correction.key
        project = ProjectKey.of(key)
        if isinstance(picture, tuple):
            self._leave_out(project, key.annotation, *picture)
            return
        name = f"{key.project}-{correction.task}"
        try:
            item = Item(name, picture, _answers(correction), correction.verdict.value)
            is_new = self._writer.add(item)
        except MaskError as error:
            self._leave_out(project, key.annotation, LeftOut.BAD_MASK, error.message)
            return
        except DatasetError as error:
            reason = LeftOut.BAD_REQUEST if isinstance(error, _RequestError) else LeftOut.BAD_MASK
            self._leave_out(project, key.annotation, reason, error.message)
            return
        if not is_new:  # it changed while we were reading, and came again
            self.summary.others += 1
            return
        self.summary.exported += 1
        self.summary.requests += len(item.answers)
        self.summary.nothing_here += sum(1 for answer in item.answers if not answer.segments)

    def _leave_out(
        self, project: ProjectKey, annotation: int, reason: LeftOut, detail: str
    ) -> None:
        self.summary.left_out[reason] += 1
        self.summary.first_problem = self.summary.first_problem or detail
        line = {
            "project": project.project,
            "annotation": annotation,
            "reason": reason.value,
            "detail": detail,
        }
        with self._left_out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


class _RequestError(DatasetError):
    """A request that no reasoner takes."""


def _answers(correction: Correction) -> tuple[TrueAnswer, ...]:
    answers = []
    for request in correction.requests:
        try:
            checked_request(request, "The correction")
        except DatasetError as error:
            raise _RequestError(error.message, error.remedy) from error
        segments = tuple(
            TrueSegment(one.rle, one.label)
            for one in correction.corrected
            if one.request == request
        )
        answers.append(TrueAnswer(request, segments))
    return tuple(answers)


def _writer(form: Format, folder: Path) -> Writer:
    if form is Format.JSONL:
        return JsonlWriter(folder)
    if form is Format.COCO:
        return CocoWriter(folder, "Corrections, exported by SegZero for Label Studio")
    return ReasonSegWriter(folder)


def _check_some(summary: Summary) -> None:
    if summary.exported:
        return
    if not summary.left_out:
        raise InputError(
            "There is no correction to export.",
            "segzero corrections list shows those there are.",
        )
    reasons = "; ".join(
        f"{number} times: {reason.value}" for reason, number in summary.left_out.most_common()
    )
    raise InputError(
        f"All corrections were left out, and nothing was written ({reasons}).",
        f"The first problem: {summary.first_problem}" if summary.first_problem else "",
    )


def _batches(found: Iterable[Chosen], count: int) -> Iterator[list[Chosen]]:
    iterator = iter(found)
    while batch := list(islice(iterator, count)):
        yield batch
