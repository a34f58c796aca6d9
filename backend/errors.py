"""Errors of serving; they hang in the tree of `segzero_ml.errors`.

```
InputError
└── BodyError         the body of a call is no JSON, or not what the call takes
ModelError
└── UnavailableError  the model cannot answer now; it may later
JobError
└── CannotTrainError  a round of training is asked for, and nothing would ever run it
```
"""

from __future__ import annotations

from segzero_ml.errors import InputError, JobError, ModelError


class BodyError(InputError):
    """The body of a call is no JSON, or not what the call takes."""


class UnavailableError(ModelError):
    """The model cannot answer now; it may later.

    Args:
        message: What is wrong, in one sentence.
        remedy: What the user can do about it; may be empty.
        retry_after_s: When to ask again, in seconds.
    """

    def __init__(self, message: str, remedy: str = "", *, retry_after_s: int) -> None:
        super().__init__(message, remedy)
        self.retry_after_s = retry_after_s


class CannotTrainError(JobError):
    """A round of training is asked for, and nothing would ever run it."""
