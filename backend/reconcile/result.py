"""What reconciling found and did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

KEPT_FAILURES: Final = 100
"""Failures that are told one by one; all are counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What could not be read; an older correction of it stays.

    Args:
        task: Id of the task, or None where it is not known.
        annotation: Id of the annotation, or None: all of the task, or not known.
        reason: Why, in a sentence.
    """

    task: int | None
    annotation: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How the store came to equal Label Studio.

    Args:
        project: Id of the project.
        tasks: How many tasks it has.
        annotations: How many annotations.
        added: Corrections that the store lacked.
        updated: Corrections that it had in another state.
        withdrawn: Annotations that hold no truth any more, or never did, and were not known so.
        removed: Annotations that are gone from Label Studio.
        unchanged: Annotations that the store had as they are, or newer.
        failed: What could not be read: see `failures`.
        failures: The first `KEPT_FAILURES` of them.
        is_complete: Whether Label Studio's list had everything; without, nothing is removed.
        dry_run: Whether nothing was written.
    """

    project: int
    tasks: int
    annotations: int
    added: int
    updated: int
    withdrawn: int
    removed: int
    unchanged: int
    failed: int
    failures: tuple[Failure, ...]
    is_complete: bool
    dry_run: bool

    @property
    def is_equal(self) -> bool:
        """Whether the store now equals Label Studio."""
        return self.is_complete and not self.failed and not self.dry_run

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self)


@dataclass(slots=True)
class Tally:
    """Counts while reconciling; see `Reconciled`."""

    tasks: int = 0
    annotations: int = 0
    added: int = 0
    updated: int = 0
    withdrawn: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)

    def fail(self, task: int | None, annotation: int | None, reason: str) -> None:
        """Count and keep a failure."""
        self.failed += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(Failure(task, annotation, reason))

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises TypeError or KeyError for something else."""
        return cls(**{**value, "failures": [Failure(**one) for one in value["failures"]]})

    def result(self, project: int, *, is_complete: bool, dry_run: bool) -> Reconciled:
        """What it came to."""
        counts: dict[str, Any] = asdict(self) | {"failures": tuple(self.failures)}
        return Reconciled(project=project, is_complete=is_complete, dry_run=dry_run, **counts)
