"""Which version answers for which project, and how that changes while calls are answered.

Every project has its own champion over the one base. The files that name the champions are
looked at every few seconds; a new one is loaded between two batches and proves itself before
it answers. A call takes a lease: it keeps its version to its end, however many batches that
takes, so that no response mixes two and nothing is removed under a call that needs it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from backend.model_thread import Predicts
from segzero_ml.errors import ModelError, SegZeroError, WeightsError
from segzero_ml.lineage import Lineage
from segzero_ml.registry import BASE, Registry

if TYPE_CHECKING:
    from segzero_ml.adapted_pipelines import AdaptedPipelines
    from segzero_ml.pipeline import Pipeline

_log = logging.getLogger(__name__)

LOOK_S: Final = 2.0
"""Seconds between two looks at which versions are to serve."""

_FIRST_PAUSE_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 600.0
"""Pauses before a version that failed for want of memory, say, is tried again."""


@dataclass(slots=True)
class _Served:
    """A version in memory."""

    version_id: str
    pipeline: Pipeline
    calls: int = 0


@dataclass(slots=True)
class _Again:
    """A project whose versions are to be tried again.

    Args:
        at: When, on the clock.
        pause_s: How long that is after the last time.
        told: Versions with the reasons for which they were refused.
    """

    at: float
    pause_s: float
    told: set[tuple[str, str]] = field(default_factory=set)


class Champions:
    """The versions in memory.

    `begin` and `refresh` belong to the thread in which the model answers; everything else may
    be called from any thread.

    Args:
        registries: Gives the versions on disk, by project.
        on_change: Told `served` or `refused` for each version that was to serve.
        look_s: Seconds between two looks.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        registries: Callable[[], Mapping[int, Registry]],
        on_change: Callable[[str], None] = lambda _: None,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registries = registries
        self._on_change = on_change
        self._look_s = look_s
        self._clock = clock
        self._lock = threading.Lock()
        self._base: Predicts | None = None
        self._adapted: AdaptedPipelines | None = None
        self._seen: dict[int, object] = {}
        self._again: dict[int, _Again] = {}
        self._serving: dict[int, _Served] = {}
        self._retired: list[_Served] = []
        self._next_look = -math.inf
        self._has_looked = False

    def begin(self, base: Predicts) -> None:
        """Take the base; the next `refresh` loads what is to serve over it."""
        self._base = base

    def refresh(self) -> None:
        """Between two batches: let go of what nobody uses, and look for changes if it is time."""
        self._release()
        if self._clock() >= self._next_look:
            try:
                self._look()
            finally:
                self._has_looked = True

    @contextmanager
    def lease(self, project: int | None) -> Iterator[Predicts]:
        """What answers for a project, kept until the end of the `with`.

        Raises:
            ModelError: The base is not loaded.
        """
        with self._lock:
            if self._base is None:
                raise ModelError("The model is not loaded yet.", "Try again in a moment.")
            served = None if project is None else self._serving.get(project)
            pipeline: Predicts = self._base if served is None else served.pipeline
            if served is not None:
                served.calls += 1
        try:
            yield pipeline
        finally:
            if served is not None:
                with self._lock:
                    served.calls -= 1

    def version(self, project: int | None, expected: str | None) -> str | None:
        """The version that answers for a project, or that is about to.

        Args:
            project: Its id; None for the base.
            expected: The version of the base, where that is known before it is loaded.
        """
        with self._lock:
            if self._base is not None and (self._has_looked or project is None):
                served = None if project is None else self._serving.get(project)
                return (self._base if served is None else served.pipeline).model_version
            if self._base is not None:
                expected = self._base.model_version
        if expected is None or project is None:
            return expected
        return self._announced(project, expected)

    def versions(self) -> list[str]:
        """Every version that can answer: the base first; none while that is not loaded."""
        with self._lock:
            if self._base is None or not self._has_looked:
                return []
            names = {served.pipeline.model_version for served in self._serving.values()}
            return [self._base.model_version, *sorted(names)]

    def _announced(self, project: int, base: str) -> str:
        """What the champion will be called once it is loaded, unless it is refused."""
        registry = self._registries().get(project)
        try:
            champion = None if registry is None else registry.lineage().champion
        except WeightsError:
            champion = None
        return base if champion is None else f"{base}+{champion}"

    def _look(self) -> None:
        self._next_look = self._clock() + self._look_s
        found = self._registries()
        for project in self._seen.keys() - found.keys():  # its folder was removed
            del self._seen[project]
            self._again.pop(project, None)
            self._serve(project, None)
        for project, registry in found.items():
            try:
                lineage = registry.lineage()
            except WeightsError as error:  # what serves goes on serving
                if self._is_news(project, str(error)):
                    self._note("refused", project, "-", str(error))
                continue
            if self._is_news(project, (lineage, lineage.since)) or self._is_time(project):
                self._try(project, registry, lineage)

    def _is_news(self, project: int, state: object) -> bool:
        is_news = self._seen.get(project) != state
        self._seen[project] = state
        if is_news:
            self._again.pop(project, None)
        return is_news

    def _is_time(self, project: int) -> bool:
        again = self._again.get(project)
        return again is not None and self._clock() >= again.at

    def _try(self, project: int, registry: Registry, lineage: Lineage) -> None:
        """Serve what is to serve; what fails in a way that may pass is tried again later."""
        again = self._again.get(project) or _Again(0.0, _FIRST_PAUSE_S / 2)
        again.pause_s = min(2 * again.pause_s, _LONGEST_PAUSE_S)
        again.at = self._clock() + again.pause_s
        # Noted before: so an error that nobody thought of is followed by another try as well.
        self._again[project] = again
        if self._follow(project, registry, lineage, again.told):
            del self._again[project]

    def _follow(
        self, project: int, registry: Registry, lineage: Lineage, told: set[tuple[str, str]]
    ) -> bool:
        """Serve the champion, or, if that is refused, the last one before it that is sound.

        Returns:
            Whether that is final: nothing was refused but what is damaged.
        """
        serving = self._serving.get(project)
        is_final = True
        for version_id in lineage.candidates:
            if serving is not None and serving.version_id == version_id:
                return is_final
            try:
                version = registry.version(version_id)
                pipeline = self._pipelines().put_on(version)
            except SegZeroError as error:
                is_final = is_final and isinstance(error, WeightsError)
                if (version_id, str(error)) not in told:
                    self._note("refused", project, version_id, str(error))
                told.add((version_id, str(error)))
                continue
            self._serve(project, _Served(version_id, pipeline))
            return is_final
        self._serve(project, None)
        return is_final

    def _serve(self, project: int, served: _Served | None) -> None:
        """Let the next calls have another version; those that run keep theirs."""
        with self._lock:
            old = self._serving.pop(project, None)
            if served is not None:
                self._serving[project] = served
            if old is not None:
                self._retired.append(old)
        if served is not None or old is not None:
            self._note("served", project, BASE if served is None else served.version_id)

    def _release(self) -> None:
        with self._lock:
            unused = [served for served in self._retired if not served.calls]
            self._retired = [served for served in self._retired if served.calls]
        for served in unused:
            self._pipelines().take_off(served.pipeline)

    def _pipelines(self) -> AdaptedPipelines:
        if self._adapted is None:
            # Brings PEFT, which takes seconds to import: only for who has versions.
            from segzero_ml.adapted_pipelines import AdaptedPipelines
            from segzero_ml.pipeline import Pipeline

            if not isinstance(self._base, Pipeline):
                raise WeightsError("No version can be laid over the model that is served.")
            self._adapted = AdaptedPipelines(self._base)
        return self._adapted

    def _note(self, outcome: str, project: int, version_id: str, reason: str = "") -> None:
        self._on_change(outcome)
        fields = {"project": project, "version": version_id}
        if reason:
            _log.error(f"version.{outcome}", extra={"fields": {**fields, "reason": reason}})
        else:
            _log.info(f"version.{outcome}", extra={"fields": fields})
