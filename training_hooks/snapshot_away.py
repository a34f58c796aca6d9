"""When a snapshot does without corrections whose images' hosts are away, and when it waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from segzero_ml.corrections import Correction
from segzero_ml.errors import ImageHostError
from training_hooks.job_errors import ImagesAwayError
from training_hooks.snapshot_choice import Choice, origin_of
from training_hooks.snapshot_options import Side
from training_hooks.store_values import News

_MOST_NAMED: Final = 3


def check_away(choice: Choice, news: News | None, *, goes_without: bool) -> None:
    """Refuse a choice that lacks what can probably be had later.

    What an earlier round had to do without, too, is not waited for again: a host may be gone for
    good, and would hold up every round.

    Args:
        choice: What was chosen.
        news: Which corrections are new; None: all.
        goes_without: Whether some new ones are enough.

    Raises:
        ImagesAwayError: New ones are missing, or there is nothing to train on.
    """
    waited_for = frozenset[int]() if news is None else news.unseen
    missing = [
        (correction, error)
        for correction, error in choice.away
        if origin_of(correction, news) == "new" and correction.key.annotation not in waited_for
    ]
    has_new = any(one.origin == "new" for each in choice.sides.values() for one in each)
    if missing and not (goes_without and has_new):
        raise _away(missing, "new correction")
    if choice.away and not choice.sides[Side.TRAIN]:
        raise _away(choice.away, "correction")


def _away(missing: Sequence[tuple[Correction, ImageHostError]], what: str) -> ImagesAwayError:
    hosts = list(dict.fromkeys(error.host for _, error in missing))
    named = ", ".join(hosts[:_MOST_NAMED]) + (" and others" if hosts[_MOST_NAMED:] else "")
    first = missing[0][1]
    return ImagesAwayError(
        f"The images of {len(missing)} {what}{'s' if missing[1:] else ''} cannot be had at present "
        f"from {named}. {first.message}",
        f"{first.remedy} Where a host is gone for good, delete its tasks.".strip(),
    )
