"""Which corrections become examples, on which side, and which are left out, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from segzero_ml.corrections import Correction, choose_target
from segzero_ml.datasets import checked_request
from segzero_ml.errors import DatasetError, FetchError, ImageError
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


@dataclass(slots=True)
class Choice:
    """What a snapshot will hold.

    Attributes:
        sides: The examples of each side, by annotation.
        left_out: The rest.
    """

    sides: dict[Side, list[Example]] = field(default_factory=lambda: {side: [] for side in Side})
    left_out: list[LeftOut] = field(default_factory=list)

    def leave_out(self, correction: Correction, reason: Reason, detail: str = "") -> None:
        """Note one that is not taken."""
        revision = correction.revision
        saved = time_text(revision.updated_at)
        annotation = correction.key.annotation
        self.left_out.append(LeftOut(annotation, revision.content_hash, saved, reason, detail))


def choose(
    given: list[Correction],
    images: ImagePool,
    draft: Path,
    options: SnapshotOptions,
    since: datetime | None,
) -> Choice:
    """Choose among corrections, and put the images of those that are taken into a draft.

    Args:
        given: Each annotation once, by annotation id.
        images: Has, or gets, their images.
        draft: Folder of the snapshot that is being made.
        options: How it is put together.
        since: Corrections saved after it are new; None: all are.

    Raises:
        DatasetError: A true mask is corrupt.
        OSError: The disk does not take an image.
    """
    choice = Choice()
    sides: dict[Side, list[tuple[Correction, str]]] = {side: [] for side in Side}
    for correction in _targets(given, choice):
        try:
            sha256 = images.hash_of(correction)
        except (FetchError, ImageError) as error:
            _leave_out_image(correction, error, choice)
        else:
            sides[_side(sha256, options)].append((correction, sha256))
    kept = {one.key for one in keep_held_out(sides[Side.HELD_OUT], options)}
    kept |= {one.key for one in _drawn([one for one, _ in sides[Side.TRAIN]], options, since)}
    for correction, _ in sides[Side.TRAIN] + sides[Side.HELD_OUT]:
        if correction.key not in kept:
            choice.leave_out(correction, Reason.NOT_DRAWN)
            continue
        try:
            image = images.take(correction, draft)
        except (FetchError, ImageError) as error:
            _leave_out_image(correction, error, choice)
            continue
        side = choice.sides[_side(image[0], options)]
        side.extend(_examples(correction, image, _origin(correction, since), choice))
    return choice


def _targets(given: list[Correction], choice: Choice) -> list[Correction]:
    """Of each task the correction that counts, in the order given."""
    tasks: dict[int, list[Correction]] = {}
    for correction in given:
        tasks.setdefault(correction.task, []).append(correction)
    counting = {id(choose_target(each)) for each in tasks.values()}
    for correction in given:
        if id(correction) not in counting:
            choice.leave_out(correction, Reason.OTHER_ANNOTATION)
    return [one for one in given if id(one) in counting]


def _drawn(
    corrections: list[Correction], options: SnapshotOptions, since: datetime | None
) -> list[Correction]:
    origins: dict[Origin, list[Correction]] = {"new": [], "older": [], "accepted": []}
    for correction in corrections:
        origins[_origin(correction, since)].append(correction)
    return keep_to_train(origins["new"], origins["older"], origins["accepted"], options)


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


def _origin(correction: Correction, since: datetime | None) -> Origin:
    if correction.verdict is Verdict.ACCEPTED:
        return "accepted"
    return "new" if since is None or correction.revision.updated_at > since else "older"


def _leave_out_image(
    correction: Correction, error: FetchError | ImageError, choice: Choice
) -> None:
    reason = Reason.NO_IMAGE if isinstance(error, FetchError) else Reason.BAD_IMAGE
    choice.leave_out(correction, reason, error.message)
