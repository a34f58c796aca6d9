"""The loop: starts in order, starts again what ends, stops in the opposite order."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from types import FrameType
from typing import Final

from backend.supervisor.restarts import Restarts
from backend.supervisor.service import Ending, Service
from segzero_ml.errors import ConfigError

_log = logging.getLogger(__name__)

_TICK_S: Final = 0.1
_STILL_EVERY_S: Final = 15.0


class _Kept:
    """A service, and when it was started or will be."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.name = service.name
        self._restarts = Restarts()
        self._started_at = 0.0
        self._due_at: float | None = None
        self._is_said = False

    def start(self) -> None:
        self._started_at, self._due_at, self._is_said = time.monotonic(), None, False
        try:
            self.service.start()
        except OSError as error:
            self._plan_restart(Ending(f"cannot be started: {error}", None))

    def look(self) -> None:
        """Start it again if it is time to; if it has ended, say so and plan when.

        Raises:
            ConfigError: It cannot start at all.
        """
        if self._due_at is not None:
            if time.monotonic() >= self._due_at:
                self.start()
            return
        ending = self.service.ending()
        if ending is not None:
            self._plan_restart(ending)
        elif not self._is_said and self.service.is_ready():
            self._is_said = True
            _log.info("%s runs (%s)", self.name, self.service.where)

    def is_alive(self) -> bool:
        """Whether there is something to stop."""
        started = self._started_at > 0 and self._due_at is None
        return started and self.service.ending() is None

    def _plan_restart(self, ending: Ending) -> None:
        life_s = time.monotonic() - self._started_at
        pause_s = self._restarts.after(life_s, ending.code)
        if pause_s is None:
            raise ConfigError(
                f"{self.name} cannot start: it {ending.how}, three times in a row.",
                f"Its last lines say why:\n{self.service.last_words()}",
            )
        _log.warning(
            "%s %s after %.0f s; it is started again in %.0f s.",
            self.name,
            ending.how,
            life_s,
            pause_s,
        )
        self._due_at = time.monotonic() + pause_s


class Supervisor:
    """Keeps services running until SIGTERM, SIGINT or SIGHUP.

    Args:
        stages: What is started together. A stage starts when the one before is ready; they
            are stopped the other way round.
    """

    def __init__(self, stages: Sequence[Sequence[Service]]) -> None:
        self._stages = [[_Kept(service) for service in stage] for stage in stages]
        self._watched: list[_Kept] = []
        self._asked = 0

    def run(self) -> None:
        """Run until told to stop; returns when nothing is left. To be called in the main thread.

        What ends is started again after a pause that grows from 1 to 30 s. A second signal
        hurries the end.

        Raises:
            ConfigError: One of them cannot start at all.
            SegZeroError: One of them failed in its first start.
        """
        with self._listening():
            try:
                for stage in self._stages:
                    self._start(stage)
                while not self._asked:
                    self._look()
                    time.sleep(_TICK_S)
            finally:
                self._stop()

    def _start(self, stage: Sequence[_Kept]) -> None:
        say_at = time.monotonic() + _STILL_EVERY_S
        if not self._asked:
            for kept in stage:
                kept.start()
        while not self._asked and not all(kept.service.is_ready() for kept in stage):
            self._look()
            time.sleep(_TICK_S)
            if time.monotonic() > say_at:
                say_at += _STILL_EVERY_S
                _log.info("Still waiting for %s", ", ".join(kept.name for kept in stage))
        self._watched += stage

    def _look(self) -> None:
        for kept in self._watched:
            kept.look()

    def _stop(self) -> None:
        for stage in reversed(self._stages):
            self._stop_stage([kept for kept in stage if kept.is_alive()])
        for kept in chain.from_iterable(self._stages):
            kept.service.close()
        _log.info("Everything has stopped.")

    def _stop_stage(self, alive: list[_Kept]) -> None:
        if alive:
            _log.info("Stopping %s", ", ".join(kept.name for kept in alive))
        requests, since = 0, time.monotonic()
        killed: set[str] = set()
        while alive := [kept for kept in alive if kept.is_alive()]:
            hurried = self._asked > 1
            if requests < 1 + hurried:
                requests, since = 1 + hurried, time.monotonic()
                for kept in alive:
                    kept.service.ask_to_stop()
            for kept in alive:
                grace_s = kept.service.hurried_grace_s if hurried else kept.service.grace_s
                if time.monotonic() - since > grace_s and kept.name not in killed:
                    _log.warning("%s did not stop in %.0f s: it is killed.", kept.name, grace_s)
                    killed.add(kept.name)
                    kept.service.kill()
            time.sleep(_TICK_S)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def ask(number: int, frame: FrameType | None) -> None:
            self._asked += 1

        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants it ignored
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, ask) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
