"""How a worker behaves in time."""

from __future__ import annotations

from dataclasses import dataclass

from segzero_ml.errors import ConfigError


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker behaves. The defaults suit production; tests make them shorter.

    Attributes:
        heartbeat_s: Seconds between two signs of life while a job runs.
        abandon_after_s: Seconds without a sign of life after which a job counts as abandoned.
        poll_s: Longest wait for a job before looking after the others.
        tidy_every_s: Seconds between two looks at forgotten and abandoned jobs.
        stop_grace_s: How long a running job may go on after the worker was told to stop;
            then it is put back and starts anew elsewhere.
    """

    heartbeat_s: int = 2
    abandon_after_s: int = 15
    poll_s: int = 2
    tidy_every_s: int = 5
    stop_grace_s: float = 20.0

    def __post_init__(self) -> None:
        if self.heartbeat_s < 1 or self.poll_s < 1 or self.tidy_every_s < 1:
            raise ConfigError("A worker's heartbeat, poll and tidy intervals are 1 s at least.")
        if self.abandon_after_s < self.heartbeat_s + 2:
            raise ConfigError("A job must not count as abandoned between two heartbeats.")
