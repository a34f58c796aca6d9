"""Which corrections become examples, on which side, and which are left out, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segzero_ml.corrections import Correction, CorrectionKey, choose_target
from segzero_ml.datasets import checked_request
from segzero_ml.errors import DatasetError, FetchError, ImageError, ImageHostError
from segzero_ml.rewards import Truth
from segzero_ml.types import ImageSize
from segzero_ml.verdict import Verdict
from training_hooks.snapshot_images import ImagePool
from training_hooks.snapshot_options import (
    Side,
    SnapshotOptions,
    is_held_out,
    keep_held_out,
    keep_to_train,
)
from training_hooks.snapshot_records import Example, LeftOut, Origin, Reason, time_text
from training_hooks.store_values import News


@dataclass(slots=True)
class Choice:
    """What a snapshot will hold.

    Attributes:
        sides: The examples of each side, by annotation.
        left_out: The rest.
        away: Those of the rest whose image's host was away, with what was wrong with it.
    """

    sides: dict[Side, list[Example]] = field(default_factory=lambda: {side: [] for side in Side})
    left_out: list[LeftOut] = field(default_factory=list)
    away: list[tuple[Correction, ImageHostError]] = field(default_factory=list)

    def leave_out(self, correction: Correction, reason: Reason, detail: str = "") -> None:
        """Note one that is not taken."""
        revision = correction.revision
        saved = time_text(revision.updated_at)
        annotation = correction.key.annotation
        self.left_out.append(LeftOut(annotation, revision.content_hash, saved, reason, detail))


@dataclass(frozen=True, slots=True)
class Draw:
    """What is taken of a project's corrections.

    Args:
        train: To learn from, by origin.
        held_out: To compare models on.
    """

    train: Mapping[Origin, list[Correction]]
    held_out: list[Correction]


def newest(corrections: Iterable[Correction]) -> list[Correction]:
    """Of each annotation its newest revision, by annotation id."""
    found: dict[CorrectionKey, Correction] = {}
    for one in corrections:
        known = found.get(one.key)
        if known is None or one.revision > known.revision:
            found[one.key] = one
    return sorted(found.values(), key=lambda one: one.key.annotation)


def targets(given: Iterable[Correction]) -> list[Correction]:
    """Of each task the correction that counts, by annotation id.

    Args:
        given: Each annotation once.
    """
    tasks: dict[int, list[Correction]] = {}
    for correction in given:
        tasks.setdefault(correction.task, []).append(correction)
    found = [choose_target(each) for each in tasks.values()]
    return newest(one for one in found if one is not None)


def draw(
    found: Iterable[tuple[Correction, str]], options: SnapshotOptions, news: News | None
) -> Draw:
    """Draw from a project's corrections.

    Args:
        found: One of each task, with the SHA-256 of its image.
        options: The split and the shares.
        news: Which ones are new; None: all.
    """
    held_out: list[tuple[Correction, str]] = []
    train: dict[Origin, list[Correction]] = {"new": [], "older": [], "accepted": []}
    for correction, sha256 in found:
        if _side(sha256, options) is Side.HELD_OUT:
            held_out.append((correction, sha256))
        else:
            train[origin_of(correction, news)].append(correction)
    kept = {one.key for one in keep_to_train(**train, options=options)}
    return Draw(
        {origin: [one for one in each if one.key in kept] for origin, each in train.items()},
        keep_held_out(held_out, options),
    )


def choose(
    given: list[Correction],
    images: ImagePool,
    draft: Path,
    options: SnapshotOptions,
    news: News | None,
    between: Callable[[int, int], None] = lambda _, __: None,
) -> Choice:
    """Choose among corrections, and put the images of those that are taken into a draft.

    Args:
        given: Each annotation once, by annotation id.
        images: Has, or gets, their images.
        draft: Folder of the snapshot that is being made.
        options: How it is put together.
        news: Which ones are new; None: all.
        between: Called before each is looked at, with how many are and how many there are; what
            it raises ends the choosing there.

    Raises:
        DatasetError: A true mask is corrupt.
        OSError: The disk does not take an image.
    """
    choice = Choice()
    counting = targets(given)
    keys = {one.key for one in counting}
    looked = _Looked(len(counting), between)
    for correction in given:
        if correction.key not in keys:
            choice.leave_out(correction, Reason.OTHER_ANNOTATION)
    hashed: list[tuple[Correction, str]] = []
    for correction in counting:
        if correction.image_sha256 is None:  # to be fetched before anything is drawn
            looked.at(correction)
        try:
            hashed.append((correction, images.hash_of(correction)))
        except (FetchError, ImageError) as error:
            _leave_out_image(correction, error, choice)
    drawn = draw(hashed, options, news)
    kept = {one.key for each in (*drawn.train.values(), drawn.held_out) for one in each}
    for correction, _ in hashed:
        looked.at(correction)
        if correction.key not in kept:
            choice.leave_out(correction, Reason.NOT_DRAWN)
            continue
        try:
            image = images.take(correction, draft)
        except (FetchError, ImageError) as error:
            _leave_out_image(correction, error, choice)
            continue
        side = choice.sides[_side(image[0], options)]
        side.extend(_examples(correction, image, origin_of(correction, news), choice))
    return choice


def origin_of(correction: Correction, news: News | None) -> Origin:
    """Where a correction comes from.

    Args:
        correction: Which one.
        news: Which ones are new; None: all.
    """
    if correction.verdict is Verdict.ACCEPTED:
        return "accepted"
    return "new" if news is None or correction.key.annotation in news.annotations else "older"


class _Looked:
    """Counts each correction once, though some are looked at twice."""

    def __init__(self, total: int, tell: Callable[[int, int], None]) -> None:
        self._keys: set[CorrectionKey] = set()
        self._total = total
        self._tell = tell

    def at(self, correction: Correction) -> None:
        self._keys.add(correction.key)
        self._tell(len(self._keys), self._total)


def _examples(
    correction: Correction,
    image: tuple[str, str, ImageSize],
    origin: Origin,
    choice: Choice,
) -> list[Example]:
    sha256, name, size = image
    found = []
    for request in correction.requests:
        try:
            checked_request(request, "The correction")
        except DatasetError as error:
            choice.leave_out(correction, Reason.BAD_REQUEST, error.message)
            continue
        found.append(
            Example(
                image_sha256=sha256,
                image_file=name,
                size=size,
                request=request,
                true_masks=correction.truth(request),
                task=correction.task,
                annotation=correction.key.annotation,
                verdict=correction.verdict,
                updated_at=time_text(correction.revision.updated_at),
                origin=origin,
            )
        )
        _check_truth(found[-1])
    return found


def _check_truth(example: Example) -> None:
    """A corrupt target would teach nonsense without anybody noticing: it stops the round."""
    try:
        Truth(example.size, example.true_masks)
    except DatasetError as error:
        raise DatasetError(
            f"Annotation {example.annotation} of task {example.task} cannot be learnt from: "
            f"{error.message}",
            "Open the annotation in Label Studio and save it anew, or delete it.",
        ) from error


def _side(sha256: str, options: SnapshotOptions) -> Side:
    held_out = is_held_out(sha256, options.salt, options.held_out_share)
    return Side.HELD_OUT if held_out else Side.TRAIN


def _leave_out_image(
    correction: Correction, error: FetchError | ImageError, choice: Choice
) -> None:
    reason = Reason.NO_IMAGE if isinstance(error, FetchError) else Reason.BAD_IMAGE
    if isinstance(error, ImageHostError):
        reason = Reason.HOST_AWAY
        choice.away.append((correction, error))
    choice.leave_out(correction, reason, error.message)
