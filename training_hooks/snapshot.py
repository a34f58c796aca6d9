"""The data set of one round: frozen, named by its content, split by image for ever.

The same corrections in any order make the same snapshot, under the same id; one changed bit
makes another. Whoever opens one knows that it is what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from segzero_ml.corrections import Correction
from segzero_ml.durable import make_folder
from segzero_ml.errors import DatasetError, InputError
from segzero_ml.images import DEFAULT_LIMITS, ImageLimits
from training_hooks import snapshot_files as files
from training_hooks.snapshot_away import check_away
from training_hooks.snapshot_choice import Choice, choose, newest
from training_hooks.snapshot_images import ImagePool
from training_hooks.snapshot_manifest import (
    Manifest,
    count,
    count_left_out,
    read_manifest,
    snapshot_id,
    write_manifest,
)
from training_hooks.snapshot_options import Side, SnapshotOptions, is_held_out
from training_hooks.snapshot_records import (
    BY_DESIGN,
    Example,
    LeftOut,
    Origin,
    Reason,
    example_line,
    left_out_line,
    left_out_record,
    read_example,
    read_left_out,
)
from training_hooks.store_values import News, ProjectKey

__all__ = [
    "Example",
    "LeftOut",
    "Manifest",
    "Origin",
    "Reason",
    "Side",
    "Snapshot",
    "SnapshotOptions",
    "build_snapshot",
    "is_held_out",
]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot on disk, as it was written.

    Args:
        folder: Where it lies; `Example.image_file` is relative to it.
        train: What is learnt from.
        held_out: What models are compared on; of no image that is in `train`.
        left_out: What is in neither, and why.
        manifest: What it says about itself.
    """

    folder: Path
    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    left_out: tuple[LeftOut, ...]
    manifest: Manifest

    @property
    def id(self) -> str:
        """16 hexadecimal digits of its content's hash."""
        return self.manifest.id

    @property
    def lost(self) -> dict[str, int]:
        """How many could not be learnt from, by reason; the others are left out by design."""
        return count_left_out(one for one in self.left_out if one.reason not in BY_DESIGN)

    @property
    def unseen(self) -> frozenset[int]:
        """Annotations that could not be looked at, as the hosts of their images were away."""
        return frozenset(one.annotation for one in self.left_out if one.reason is Reason.HOST_AWAY)

    @classmethod
    def open(cls, folder: Path) -> Snapshot:
        """Read a snapshot and make sure that every bit of it is as it was written.

        Args:
            folder: The snapshot's own.

        Raises:
            DatasetError: There is none, or it has changed; the message says where.
        """
        manifest = read_manifest(files.read_text(folder / files.MANIFEST))
        lines = files.read_text(folder / files.EXAMPLES).splitlines()
        left_out = tuple(
            read_left_out(line) for line in files.read_text(folder / files.LEFT_OUT).splitlines()
        )
        records = [*lines, *map(left_out_record, left_out)]
        found = snapshot_id(records, manifest.project, manifest.options, manifest.code_version)
        if not found == manifest.id == folder.name:
            raise _changed(folder, "its records are not those of its id")
        read = [read_example(line) for line in lines]
        for name, sha256 in {(one.image_file, one.image_sha256) for one, _ in read}:
            if files.hash_of(folder, name) != sha256:
                raise _changed(folder, f"{name} is not the image that it was")
        train, held_out = (tuple(one for one, at in read if at is side) for side in Side)
        return cls(folder, train, held_out, left_out, manifest)


def build_snapshot(
    corrections: Iterable[Correction],
    fetch_image: Callable[[Correction], bytes],
    folder: Path,
    options: SnapshotOptions,
    news: News | None,
    limits: ImageLimits = DEFAULT_LIMITS,
    between: Callable[[int, int], None] = lambda _, __: None,
    *,
    goes_without: bool = True,
) -> Snapshot:
    """Make the snapshot of some corrections, or open it if it is there already.

    Of each task one annotation counts (`choose_target`). Of the images that are not held out,
    all new corrections are taken, and older ones and accepted predictions by their shares.

    Args:
        corrections: All that a project has, in any order; of an annotation that comes twice
            the newest revision counts.
        fetch_image: Gets the file of a correction's image. A `FetchError` or an `ImageError`
            leaves the correction out; any other error stops the making.
        folder: Of the project's snapshots; made if missing.
        options: Shares and seed. The split is the one that the project's first snapshot had.
        news: Which corrections are new; None: all.
        limits: What an image may measure.
        between: Called before each correction is looked at, with how many are by then and how
            many there are; what it raises ends the making there.
        goes_without: Whether it is made without new corrections whose images' hosts are away,
            as long as some new ones are left. Images fetched until then are kept in any case.

    Raises:
        DatasetError: A true mask is corrupt (the message names its annotation), or the disk
            does not take the snapshot.
        ImagesAwayError: Hosts of images are away, so that it is to be made later.
        InputError: The corrections are not of one project, or nothing is left to learn from.
    """
    given = _of_one_project(corrections)
    project = ProjectKey.of(given[0].key)
    with files.translated(folder):
        make_folder(folder)
        salt, share = files.fixed_split(folder, options.salt, options.held_out_share)
        options = replace(options, salt=salt, held_out_share=share)
        with files.draft(folder) as draft:
            pool = ImagePool(folder, fetch_image, limits)
            choice = choose(given, pool, draft, options, news, between)
            check_away(choice, news, goes_without=goes_without)
            if not choice.sides[Side.TRAIN]:
                raise _nothing(choice)
            since = None if news is None else news.since
            return _keep(choice, draft, project, options, since, given)


def _keep(
    choice: Choice,
    draft: Path,
    project: ProjectKey,
    options: SnapshotOptions,
    since: datetime | None,
    given: list[Correction],
) -> Snapshot:
    """Write down what was chosen, give it its name, and read it back."""
    code_version = _code_version()
    lines = [example_line(one, side) for side in Side for one in choice.sides[side]]
    records = [*lines, *map(left_out_record, choice.left_out)]
    name = snapshot_id(records, project, options, code_version)
    manifest = Manifest(
        id=name,
        project=project,
        code_version=code_version,
        options=options,
        since=since,
        watermark=max(one.revision.updated_at for one in given),
        created_at=datetime.now(UTC),
        train=count(choice.sides[Side.TRAIN]),
        held_out=count(choice.sides[Side.HELD_OUT]),
        left_out=count_left_out(choice.left_out),
    )
    files.write_lines(draft / files.EXAMPLES, lines)
    files.write_lines(draft / files.LEFT_OUT, map(left_out_line, choice.left_out))
    files.write_lines(draft / files.MANIFEST, [write_manifest(manifest)])
    return Snapshot.open(files.publish(draft, name, _is_whole))


def _is_whole(folder: Path) -> bool:
    try:
        Snapshot.open(folder)
    except DatasetError:
        return False
    return True


def _of_one_project(corrections: Iterable[Correction]) -> list[Correction]:
    """Of each annotation its newest revision, by annotation id."""
    found = newest(corrections)
    if len({ProjectKey.of(one.key) for one in found}) > 1:
        raise InputError("A snapshot can only be made of the corrections of one project.")
    if not found:
        raise InputError("There is no correction to make a snapshot of.")
    return found


def _code_version() -> str:
    try:
        return version("segzero-label-studio")
    except PackageNotFoundError:
        return "unknown"


def _changed(folder: Path, what: str) -> DatasetError:
    return DatasetError(
        f"The snapshot {folder} has changed since it was made: {what}.",
        "Delete the folder; the next round makes its own.",
    )


def _nothing(choice: Choice) -> InputError:
    reasons = count_left_out(choice.left_out)
    listed = "; ".join(f"{number} times: {reason}" for reason, number in reasons.items())
    detail = next((one.detail for one in choice.left_out if one.detail), "")
    held_out = len(choice.sides[Side.HELD_OUT])
    return InputError(
        f"There is nothing to learn from: {held_out} requests are held out for the comparison "
        f"of models, and the rest is left out ({listed or 'there is none'}).",
        f"The first problem: {detail}" if detail else "Correct more predictions.",
    )
