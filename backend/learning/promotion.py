"""Makes the best checkpoint of a round the champion, if whoever made it still may."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.learning.patience import patiently
from backend.learning.trainer import read_json
from segzero_ml.checks import check_keys
from segzero_ml.errors import InputError, RegistryError, WeightsError
from segzero_ml.versions import Golden, VersionInfo, read_golden
from training_hooks.fence import check
from training_hooks.round_files import GOLDEN

if TYPE_CHECKING:
    from backend.learning.round_run import Work
    from backend.learning.round_state import RoundState

_log = logging.getLogger(__name__)

_SHOWN: Final = {
    "mean_iou": "mean IoU",
    "ciou": "cIoU",
    "n_acc": "N-acc",
    "format_errors": "format errors",
}


def promote(work: Work, state: RoundState, folder: Path, result: Mapping[str, Any]) -> str:
    """Publish the best checkpoint of a round and have it serve.

    Args:
        work: What the job works with.
        state: How the round stands.
        folder: The round's.
        result: What its process found.

    Returns:
        The version's id.

    Raises:
        StaleFenceError: Another trainer took over; nothing changed.
        RegistryError: It cannot be written, or another version was put in service meanwhile;
            what served serves on.
        WeightsError: The checkpoint, or what was noted of it, is damaged.
        StoreError: Redis was away for too long.
    """
    registry = work.registry
    best = folder / str(result["best"])
    base, golden = read_noted(folder / GOLDEN)
    version = registry.publish(
        best,
        VersionInfo(
            preset=work.settings.preset,
            base=base,
            round=state.round,
            snapshot=state.snapshot,
            figures=_figures(result),
            golden=golden,
        ),
    )

    def still_valid() -> None:
        check(work.fence, work.redis)
        serving = registry.lineage().champion
        if serving not in (state.champion, version.id):
            raise RegistryError(
                f"Another version was put in service while the round ran: {serving or 'the base'}. "
                f"The round was judged against {state.against or 'the base'}.",
                f"segzero rollback --project {work.project.project} --to {version.id} has this "
                "one serve nevertheless.",
            )

    patiently(lambda: registry.promote(version.id, still_valid))
    _log.info("Project %d is answered by %s now", work.project.project, version.id)
    return version.id


def read_noted(path: Path) -> tuple[str, tuple[Golden, ...]]:
    """The base that a round's best checkpoint lies over, and what it answered.

    Raises:
        WeightsError: The file is not there, or is none.
    """
    try:
        found = check_keys(GOLDEN, read_json(path), {"base", "golden"})
        golden = read_golden(found["golden"])
    except InputError as error:
        raise WeightsError(
            f"What the round noted of its best checkpoint is damaged: {error}"
        ) from error
    return str(found["base"]), golden


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """What the gate measured, by name; what it could not measure is left out."""
    compared = result["verdict"]["figures"]["held_out"]
    found: dict[str, Any] = {}
    for key, name in _SHOWN.items():
        found[name] = compared["challenger"].get(key)
        found[f"{name} before"] = compared["champion"].get(key)
    found["steps"] = result.get("steps")
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
