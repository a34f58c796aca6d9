"""What a round has to beat: the version that serves, which need not be the champion.

A champion that is damaged, or was made for other weights than those that are loaded now, does
not serve: the backend falls back to one before it, or to the base. A round that was judged
against it instead might promote what is worse than that.
"""

from __future__ import annotations

from dataclasses import dataclass

from segzero_ml.errors import RegistryError, WeightsError
from segzero_ml.lineage import Lineage
from segzero_ml.presets import get_preset
from segzero_ml.registry import Registry
from segzero_ml.weights import version_at


@dataclass(frozen=True, slots=True)
class Opponent:
    """What a round has to beat.

    Args:
        base: `version` of the weights below it.
        version: Id of the version; None for the base itself.
        remark: Why it is not the champion, in sentences; empty where it is.
    """

    base: str
    version: str | None = None
    remark: str = ""


def base_of(preset_name: str) -> str:
    """`version` of the weights that a preset's reasoner has now.

    Raises:
        WeightsError: There are none, or the hub cannot be asked.
    """
    preset = get_preset(preset_name)
    return version_at(preset.reasoner, preset.reasoner_revision)


def find_opponent(registry: Registry, lineage: Lineage, base: str) -> Opponent:
    """What serves a project, chosen as `backend.champions` does, but without loading anything.

    Args:
        registry: The project's versions.
        lineage: Which of them is to serve, and which did before.
        base: From `base_of`.
    """
    refusals: list[str] = []
    serving = None
    for version_id in lineage.candidates:
        refusal = _refusal(registry, version_id, base)
        if refusal is None:
            serving = version_id
            break
        refusals.append(refusal)
    if not refusals:
        return Opponent(base, serving)
    why = " ".join(refusals)
    remark = f"It was compared with {serving or 'the base'}, as the champion does not serve: {why}"
    return Opponent(base, serving, remark)


def still_serves(registry: Registry, opponent: Opponent) -> bool:
    """Whether one that was found before may still be laid over its base."""
    version_id = opponent.version
    return version_id is None or _refusal(registry, version_id, opponent.base) is None


def _refusal(registry: Registry, version_id: str, base: str) -> str | None:
    """Why a version does not serve; None where nothing speaks against it."""
    try:
        registry.check_fits(registry.version(version_id), base)
    except (RegistryError, WeightsError) as error:
        return error.message
    return None
