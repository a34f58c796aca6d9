"""All tasks of a project, page by page, and whether none was left out."""

from __future__ import annotations

from collections.abc import Iterator
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
        page_size: Most tasks of a page.
        page_bytes: Most bytes of JSON of a page; a single task may take more.

    Attributes:
        total: How many tasks there are, as far as is known.
        is_complete: Whether all pages given out so far agreed with the next.
        unreadable: Id of each task whose contents Label Studio does not give -> the reason.
    """

    def __init__(
        self,
        listing: Listing,
        project_id: int,
        patience: Patience,
        *,
        calls_backend: bool = True,
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
        self.total = 0
        self.is_complete = True
        self.unreadable: dict[int, str] = {}

    def pages(self) -> Iterator[TaskPage]:
        """The pages; hold each only until the next, for they are large.

        Raises:
            LabelStudioError: Label Studio fails for good.
        """
        given = 0
        page = self._ask(after=0)
        start = 0  # the task after which `page` begins
        again = _AGAIN
        while True:
            self.total = given + page.total
            left = page.total - len(page.tasks)
            if left == 0:
                yield page
                return
            end = _id(page)
            following = self._ask(end)
            if following.total != left and again > 0:
                again -= 1
                del following
                page = self._ask(start)
                continue
            self.is_complete = self.is_complete and following.total == left
            yield page
            given += len(page.tasks)
            if not following.tasks:
                return
            page, start, again = following, end, _AGAIN

    def _ask(self, after: int) -> TaskPage:
        """A page, smaller ones if need be; a task that cannot be read comes without contents."""
        while True:
            size = 1 if self._one_by_one > 0 else self._size
            try:
                page = self._patience.call(partial(self._page, after, size))
            except LabelStudioAuthError:
                raise
            except LabelStudioError as error:
                if size == 1:
                    page = self._without_contents(after, error)
                elif isinstance(error, LabelStudioTooLargeError):
                    self._size = max(1, size // 4)
                    continue
                else:
                    self._one_by_one = size  # perhaps it is a single task that breaks the page
                    continue
            self._one_by_one = max(0, self._one_by_one - len(page.tasks))
            return page

    def _page(self, after: int, size: int) -> TaskPage:
        return self._listing.task_page(
            self._project,
            after,
            size,
            calls_backend=self._calls_backend,
            most_bytes=self._bytes if size > 1 else MOST_BYTES,
        )

    def _without_contents(self, after: int, error: LabelStudioError) -> TaskPage:
        page = self._patience.call(
            lambda: self._listing.task_page(
                self._project, after, 1, with_contents=False, calls_backend=self._calls_backend
            )
        )
        self.unreadable |= {int(task["id"]): error.message for task in page.tasks}
        return page


def _id(page: TaskPage) -> int:
    return int(page.tasks[-1]["id"])
