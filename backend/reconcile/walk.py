"""All tasks of a project, page by page, and whether none was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from backend.label_studio_http import LabelStudioTooLargeError
from backend.label_studio_listing import MOST_BYTES, Listing, TaskPage
from backend.reconcile.patience import Patience
from segzero_ml.errors import LabelStudioAuthError, LabelStudioError

PAGE_SIZE: Final = 50
PAGE_BYTES: Final = 32 << 20
"""Bytes of JSON of a page; where tasks are heavier, pages hold fewer of them."""

_AGAIN: Final = 4


@dataclass(frozen=True, slots=True)
class Part:
    """Some tasks of the walk.

    Args:
        page: The tasks, and how many there are from here on.
        unreadable: Id of each whose contents Label Studio does not give -> the reason.
    """

    page: TaskPage
    unreadable: Mapping[int, str] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """Id of the last task."""
        return int(self.page.tasks[-1]["id"])


class TaskWalk:
    """Goes through all tasks of a project once, by rising id.

    Each page says how many tasks are left. A page is given out only when what the next one
    says agrees; where it does not, both are asked for again, a few times. So a page that lacks
    a task in its middle is noticed, and one that lacks its end goes on in the next.

    Args:
        listing: The Label Studio.
        project_id: The project.
        patience: How often a page is asked for.
        calls_backend: See `Listing.task_page`.
        start: Id of the task after which to begin.
        given: How many tasks there were up to there.
        page_size: Most tasks of a page.
        page_bytes: Most bytes of JSON of a page; a single task may take more.

    Attributes:
        total: How many tasks there are, as far as is known.
        is_complete: Whether all pages given out so far agreed with the next.
    """

    def __init__(
        self,
        listing: Listing,
        project_id: int,
        patience: Patience,
        *,
        calls_backend: bool = True,
        start: int = 0,
        given: int = 0,
        page_size: int = PAGE_SIZE,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self._listing = listing
        self._project = project_id
        self._patience = patience
        self._calls_backend = calls_backend
        self._size = page_size
        self._bytes = page_bytes
        self._one_by_one = 0
        self._start = start
        self._given = given
        self.total = given
        self.is_complete = True

    def parts(self) -> Iterator[Part]:
        """The pages; hold each only until the next, for they are large.

        Raises:
            LabelStudioError: Label Studio fails for good.
        """
        start, given, again = self._start, self._given, _AGAIN
        part = self._ask(start)
        while True:
            self.total = given + part.page.total
            left = part.page.total - len(part.page.tasks)
            if left == 0:
                yield part
                return
            following = self._ask(part.end)
            agrees = following.page.total == left
            if not agrees and again > 0:
                again -= 1
                del following
                part = self._ask(start)
                continue
            self.is_complete = self.is_complete and agrees
            yield part
            given += len(part.page.tasks)
            if not following.page.tasks:
                return
            start, part, again = part.end, following, _AGAIN

    def _ask(self, after: int) -> Part:
        """A page, smaller ones if need be; a task that cannot be read comes without contents."""
        while True:
            size = 1 if self._one_by_one > 0 else self._size
            try:
                part = Part(self._patience.call(partial(self._page, after, size)))
            except LabelStudioAuthError:
                raise
            except LabelStudioError as error:
                if size > 1:
                    self._shrink(size, error)
                    continue
                part = self._without_contents(after, error)
            self._one_by_one = max(0, self._one_by_one - len(part.page.tasks))
            return part

    def _shrink(self, size: int, error: LabelStudioError) -> None:
        if isinstance(error, LabelStudioTooLargeError):
            self._size = max(1, size // 4)
        else:
            self._one_by_one = size  # perhaps it is a single task that breaks the page

    def _page(self, after: int, size: int) -> TaskPage:
        return self._listing.task_page(
            self._project,
            after,
            size,
            calls_backend=self._calls_backend,
            most_bytes=self._bytes if size > 1 else MOST_BYTES,
        )

    def _without_contents(self, after: int, error: LabelStudioError) -> Part:
        ask = partial(
            self._listing.task_page,
            self._project,
            after,
            1,
            with_contents=False,
            calls_backend=self._calls_backend,
        )
        page = self._patience.call(ask)
        return Part(page, {int(task["id"]): error.message for task in page.tasks})
