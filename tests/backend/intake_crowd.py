"""People who submit, correct and delete, all at once, and what must come of it."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx

from tests.backend.intake_world import START, deleted, saved, tasks_deleted, until


@dataclass
class Fate:
    """What was sent of one annotation, and what of it was acknowledged."""

    sent: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    deletion_sent: bool = False
    deletion_acknowledged: bool = False

    def problem(self, found: datetime | None) -> str | None:
        """What is wrong with what the store holds; None if it may be so."""
        if found is None:
            if self.acknowledged and not self.deletion_sent:
                return f"revision {max(self.acknowledged)} was acknowledged and is lost"
            return None
        if self.deletion_acknowledged:
            return "it was deleted and is back"
        revision = (found - START) // timedelta(seconds=1)
        if revision not in self.sent:
            return f"revision {revision} was never sent"
        newest = max(self.acknowledged, default=-1)
        return f"revision {revision} in place of {newest}" if revision < newest else None


class Crowd:
    """Threads that send events about annotations of their own, as one does with webhooks: once.

    Args:
        address: The backend's.
        seed: Decides what they do.
        people: How many threads.
        each: How many events each sends, at most.
    """

    def __init__(self, address: str, seed: int, people: int = 4, each: int = 1000) -> None:
        self.fates: dict[int, Fate] = {}
        self.sent = self.refused = 0
        self._address = address
        self._each = each
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number, random.Random(seed * 100 + number)))
            for number in range(people)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self.join()

    def wait_for(self, more: int) -> None:
        """Wait until so many more revisions are acknowledged."""
        enough = self.acknowledged + more
        until(lambda: self.acknowledged >= enough, "more is acknowledged")

    @property
    def acknowledged(self) -> int:
        return sum(len(fate.acknowledged) for fate in list(self.fates.values()))

    def problems(self, stored: dict[int, datetime]) -> list[str]:
        """Everything that must not be."""
        strangers = [f"{number}: nobody sent it" for number in stored.keys() - self.fates.keys()]
        found = ((number, fate.problem(stored.get(number))) for number, fate in self.fates.items())
        return strangers + [f"{number}: {problem}" for number, problem in found if problem]

    def _work(self, person: int, rng: random.Random) -> None:
        mine: list[int] = []
        with httpx.Client(base_url=self._address, timeout=30) as client:
            for _ in range(self._each):
                if self._stop.is_set():
                    return
                self._one(client, person, rng, mine)

    def _one(self, client: httpx.Client, person: int, rng: random.Random, mine: list[int]) -> None:
        what = rng.random()
        if what < 0.4 or not mine:
            number = 10 * (len(mine) + 1) + person
            mine.append(number)
            fate = self.fates.setdefault(number, Fate())
            self._save(client, number, fate, 0)
            return
        number = rng.choice(mine[-50:])
        fate = self.fates[number]
        if what < 0.75:
            self._save(client, number, fate, max(fate.sent) + 1)
        elif what < 0.85:  # late, or once more
            self._save(client, number, fate, rng.randrange(max(fate.sent) + 1))
        else:
            event = deleted(number) if what < 0.95 else tasks_deleted(number + 1000)
            fate.deletion_sent = True
            fate.deletion_acknowledged |= self._send(client, event)

    def _save(self, client: httpx.Client, number: int, fate: Fate, revision: int) -> None:
        fate.sent.add(revision)
        action = "ANNOTATION_UPDATED" if revision else "ANNOTATION_CREATED"
        if self._send(client, saved(number, revision, action)):
            fate.acknowledged.add(revision)

    def _send(self, client: httpx.Client, event: dict[str, Any]) -> bool:
        """Whether the event was acknowledged; if not, nobody knows what became of it."""
        self.sent += 1
        try:
            if client.post("/webhook", json=event).status_code == 200:
                return True
        except httpx.TransportError:
            time.sleep(0.05)
        self.refused += 1
        return False
