"""Group commit: threads that append at the same time share one write and one fsync."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from segzero_ml.errors import SpoolError


class Ticket:
    """One payload on its way to the disk, and what came of it.

    Attributes:
        payload: The bytes to append.
        seq: Its sequence number once it is durable.
        error: Why it is not.
    """

    __slots__ = ("done", "error", "payload", "seq")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.seq: int | None = None
        self.error: SpoolError | None = None
        self.done = False

    def result(self) -> int:
        """The sequence number; raises the error if there is none."""
        if self.error is not None:
            raise self.error
        if self.seq is None:
            raise SpoolError("The append was interrupted.", "Send the event again.")
        return self.seq


class GroupCommit:
    """Runs `commit` on one thread at a time, with everything that has gathered meanwhile.

    The first thread to arrive commits; those that arrive during its fsync wait, and one of
    them then commits for all of them.

    Args:
        commit: Gives each ticket a `seq` or an `error`.
    """

    def __init__(self, commit: Callable[[Sequence[Ticket]], None]) -> None:
        self._commit = commit
        self._changed = threading.Condition()
        self._gathered: list[Ticket] = []
        self._busy = False
        self._closed = False

    def submit(self, payload: bytes) -> int:
        """Wait until the payload is durable; returns its sequence number.

        Raises:
            SpoolError: It is not durable, or the spool is closed.
        """
        ticket = Ticket(payload)
        with self._changed:
            if self._closed:
                raise SpoolError("The spool is closed.")
            self._gathered.append(ticket)
            self._wait_for_turn(ticket)
            if ticket.done:
                return ticket.result()
            self._busy = True
            batch, self._gathered = self._gathered, []
        try:
            self._commit(batch)
        finally:
            with self._changed:
                for each in batch:
                    each.done = True
                self._busy = False
                self._changed.notify_all()
        return ticket.result()

    def _wait_for_turn(self, ticket: Ticket) -> None:
        try:
            while self._busy and not ticket.done:
                self._changed.wait()
        except BaseException:  # Ctrl-C: nobody will collect this ticket
            if ticket in self._gathered:
                self._gathered.remove(ticket)
            raise

    def close(self) -> None:
        """Accept nothing more, and wait for what was accepted."""
        with self._changed:
            self._closed = True
            while self._busy or self._gathered:
                self._changed.wait()
