"""Whether a round could be judged at all, which is known before anything is trained."""

from __future__ import annotations

import math

from segzero_ml.errors import JobError
from training_hooks.gate import GateOptions, too_few_images
from training_hooks.snapshot_options import SnapshotOptions


def too_little_held_out(images: int, corrections: int, options: SnapshotOptions) -> JobError | None:
    """What the gate would say in the end of a round that is held out too little for.

    Args:
        images: That are held out.
        corrections: Of these images.
        options: How the snapshot is put together.

    Returns:
        Why training would be in vain, with what helps; None where enough is held out.
    """
    refusal = too_few_images(images)
    if refusal is None:
        return None
    if corrections >= options.held_out_most:
        return JobError(refusal, f"SEGZERO_TRAIN_HELD_OUT_MOST must be more than {corrections}.")
    share = options.held_out_share
    more = math.ceil((GateOptions().least_images - images) / share)
    return JobError(refusal, f"About {more} more will do: {100 * share:.3g} % are held out.")
