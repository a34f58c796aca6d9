"""Which annotations were in the list: a set of ids in eight bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left


class SeenIds:
    """Ids that are added first and looked up afterwards."""

    def __init__(self) -> None:
        self._ids = array("q")
        self._is_sorted = True

    def add(self, number: int) -> None:
        """Remember an id, from 1 to 2^63 - 1; any number of times."""
        self._ids.append(number)
        self._is_sorted = False

    def __contains__(self, number: int) -> bool:
        if not self._is_sorted:
            self._ids = array("q", sorted(self._ids))
            self._is_sorted = True
        at = bisect_left(self._ids, number)
        return at < len(self._ids) and self._ids[at] == number
