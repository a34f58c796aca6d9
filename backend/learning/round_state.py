"""What is known of a project's newest round of training, kept in Redis for all who ask.

The job writes it; `segzero train --follow`, `segzero status` and `/metrics` read it; a job that
is tried again finds in it what it had begun.

Redis keys: `segzero:round:{project}`, a string of JSON, see `RoundState`. No expiry.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from redis import Redis

from segzero_ml.errors import StoreError
from training_hooks.redis_client import redis_errors

_log = logging.getLogger(__name__)

_LARGEST: Final = 1 << 20


class Phase(StrEnum):
    """Where a round is, or how it ended."""

    SNAPSHOT = "snapshot"
    """Corrections and images are being collected; `step` counts corrections."""
    COLD_START = "cold start"
    """The model is shown the corrected boxes and points; `step` counts batches of that."""
    TRAINING = "training"
    COMPARING = "comparing"
    """Champion and checkpoints answer the held-out requests."""
    PROMOTING = "promoting"
    WAITING = "waiting"
    """It failed, and will be tried again."""
    PROMOTED = "promoted"
    KEPT = "kept"
    """It is over, and the champion stays."""
    REFUSED = "refused"
    """Nothing was trained: too little is held out to be judged by."""
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.is_whole or self in (Phase.REFUSED, Phase.CANCELLED, Phase.FAILED)

    @property
    def is_whole(self) -> bool:
        """Whether it came to its verdict: what it learnt from is new no more."""
        return self in (Phase.PROMOTED, Phase.KEPT)


@dataclass(frozen=True, slots=True)
class RoundState:
    """A round as it stands; times in ISO 8601 and UTC.

    Args:
        job: Id of its job.
        started_at: When it began.
        phase: Where it is.
        reasons: What asked for it.
        snapshot: Id of its data set, once there is one.
        mark: The store's, taken before the corrections were read for it: what the store learnt
            later is new in the next round.
        watermark: When the newest correction of it was saved.
        champion: Version that was to serve when it began; None for the base. Only while it still
            is, the round may promote.
        base: `version` of the weights that the round is over; empty before that is known.
        against: Version that it has to beat, since it is what serves; None for the base.
        remark: Why that is not the champion; empty where it is.
        round: Its id, once it has one: the name of its folder.
        folder: Its folder, on the machine that trains.
        left_out: How many corrections could not be learnt from, by reason.
        step: Steps made; in the cold start, batches; before it, corrections.
        steps: Steps there are in all; 0 while nobody knows.
        seconds_left: How long the training takes on, by the steps made so far.
        figures: What the newest step brought: mean reward and its parts.
        held_out_iou: Mean mask IoU on held-out requests of the newest model measured.
        champion_iou: The same of the version that it has to beat.
        ended_at: When it ended.
        text: What came of it, in a sentence.
        verdict: Why the gate said what it said, a sentence each.
        version: What was promoted.
        report: The report, on the machine that trains.
        seconds: How long it took, with all tries.
        peak_memory_bytes: Most memory that the training took, on the machine.
    """

    job: str
    started_at: str
    phase: Phase = Phase.SNAPSHOT
    reasons: tuple[str, ...] = ()
    snapshot: str = ""
    mark: int = 0
    watermark: str = ""
    champion: str | None = None
    base: str = ""
    against: str | None = None
    remark: str = ""
    round: str = ""
    folder: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    held_out_iou: float | None = None
    champion_iou: float | None = None
    ended_at: str = ""
    text: str = ""
    verdict: tuple[str, ...] = ()
    version: str = ""
    report: str = ""
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON's own types. Its keys are a promise to scripts: add to them, never change one."""
        return asdict(self)


def read_state(redis: Redis, name: str) -> RoundState | None:
    """A project's newest round; None where there was none, or what is there is none.

    Args:
        redis: Redis, with replies as bytes.
        name: From `loop_name`.

    Raises:
        StoreError: Redis does not answer.
    """
    with redis_errors("being asked about a round of training"):
        found: Any = redis.get(_key(name))
    if not found or len(found) > _LARGEST:
        return None
    try:
        read = json.loads(found)
        known = {one.name for one in fields(RoundState)}
        given = {name: value for name, value in read.items() if name in known}
        given["phase"] = Phase(given["phase"])
        given["reasons"] = tuple(given.get("reasons", ()))
        given["verdict"] = tuple(given.get("verdict", ()))
        return RoundState(**given)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("What Redis holds of the round of %s cannot be read: %s", name, error)
        return None


def write_state(redis: Redis, name: str, state: RoundState) -> None:
    """Remember how a round stands.

    Raises:
        StoreError: Redis does not answer or has no room.
    """
    with redis_errors("writing how a round of training stands"):
        redis.set(_key(name), json.dumps(state.to_json(), allow_nan=False))


def show_state(redis: Redis, name: str, state: RoundState) -> None:
    """The same where it does not matter if Redis is away: the next one comes soon."""
    try:
        write_state(redis, name, state)
    except StoreError as error:
        _log.warning("How the round of %s stands was not written: %s", name, error.message)


def _key(name: str) -> str:
    return f"segzero:round:{name}"
