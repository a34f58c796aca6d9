"""What Label Studio's refusals mean for somebody who connects a backend, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from backend.label_studio_http import LabelStudioApiError
from segzero_ml.errors import LabelStudioError

_BLOCKED: Final = (
    "Label Studio refuses to call {url}: the address is on a private network.",
    "Start Label Studio with both ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false "
    "in its environment (one of them is not enough), then run this again.",
)

_LOGIN: Final = (
    "The backend at {url} does not accept the login.",
    "SEGZERO_USER and SEGZERO_PASSWORD must be the same here and where the backend runs.",
)

_REASONS: Final = (
    ("authentication parameters", *_LOGIN),  # refused at the health check
    ("Reason: 401", *_LOGIN),  # refused at the set-up call
    (
        "Reason: 421",
        "The backend at {url} asks for no login, and must not be called by this name then.",
        "Give --backend-url with 127.0.0.1, or name that host (as host:port) in "
        "SEGZERO_ALLOWED_HOSTS where the backend runs, or set SEGZERO_USER and "
        "SEGZERO_PASSWORD here and there.",
    ),
    (
        "Can't resolve hostname",
        "Label Studio's machine knows no host of the name in {url}.",
        "Give --backend-url as that machine sees the backend.",
    ),
    (
        "health check failed",
        "Label Studio cannot reach the backend at {url}.",
        "Start it (segzero serve), and give --backend-url as Label Studio's machine sees it: "
        "127.0.0.1 means that machine, and inside a container, the container.",
    ),
    (
        "doesn't look like a valid ML backend",
        "What answers at {url} did not accept Label Studio's set-up call.",
        "See the backend's log for the reason, and whether segzero serve is what runs there.",
    ),
)


def explain(error: LabelStudioError, url: str, leftovers: Sequence[str] = ()) -> LabelStudioError:
    """The error in the user's terms, with a remedy; the same kind of error where it is known.

    Args:
        error: What Label Studio answered, or why it did not.
        url: Address of the backend.
        leftovers: What could not be removed again after the failure.
    """
    kind, message, remedy = type(error), error.message, error.remedy
    if isinstance(error, LabelStudioApiError):
        kind = LabelStudioError
        message, remedy = _refusal(error)
    if leftovers:
        remedy += f" Remove by hand what could not be removed again: {' and '.join(leftovers)}."
    return kind(message.replace("{url}", url), remedy.strip())


def _refusal(error: LabelStudioApiError) -> tuple[str, str]:
    if error.is_blocked_address:
        return _BLOCKED
    for part, message, remedy in _REASONS:
        if part in error.detail:
            return message, remedy
    return error.message, error.remedy
