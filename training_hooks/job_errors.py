"""Errors of jobs; they hang in the tree of `segzero_ml.errors`.

```
JobError
├── JobRefusedError       the job may not run here: not on the allow-list, or not readable
├── JobCancelledError     somebody asked the running job to end
├── ImagesAwayError       new corrections cannot be learnt from yet: hosts of images are away
├── TrainerBusyError      another trainer of this project is at work
└── StaleFenceError       a newer trainer has taken over; what this one made must not count
```
"""

from __future__ import annotations

from segzero_ml.errors import JobError


class JobRefusedError(JobError):
    """The job may not run here: not on the allow-list, or not readable.

    Args:
        message: What is wrong, in one sentence.
        remedy: What the user can do about it; may be empty.
        job_id: The id as it stood in the queue.
    """

    def __init__(self, message: str, remedy: str = "", *, job_id: str = "") -> None:
        super().__init__(message, remedy)
        self.job_id = job_id


class JobCancelledError(JobError):
    """Somebody asked the running job to end."""


class ImagesAwayError(JobError):
    """New corrections cannot be learnt from yet: hosts of their images are away."""


class TrainerBusyError(JobError):
    """Another trainer of this project is at work."""


class StaleFenceError(JobError):
    """A newer trainer has taken over; what this one made must not count."""
