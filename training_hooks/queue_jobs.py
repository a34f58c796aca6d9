"""Jobs that can do nothing but call functions named in advance.

RQ calls whatever dotted path stands in Redis, unpickles what it finds there, imports callbacks
and posts to webhooks: whoever can write to Redis runs code in the worker. Here a job names an
entry of an allow-list that the worker's own code brings along; its arguments are JSON; jobs
with callbacks, webhooks, objects or dependencies are refused.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, NoReturn

from redis import Redis
from redis.exceptions import ResponseError
from rq import Queue
from rq.exceptions import DeserializationError, NoSuchJobError, TimeoutFormatError
from rq.job import JOB_ID_PATTERN, Job

from segzero_ml.errors import ConfigError, JobError
from training_hooks.failures import reason_line
from training_hooks.job_errors import JobRefusedError

LARGEST_PAYLOAD: Final = 1 << 20
"""Bytes of JSON a job may carry. Masks travel through the store, not through a queue."""
LONGEST_TIMEOUT_S: Final = 30 * 24 * 3600
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_LONGEST_ID: Final = 150
# What RQ's parsing of a damaged job raises; none of its own errors covers it.
_MALFORMED: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
    TimeoutFormatError,
)


class JsonSerializer:
    """RQ's serializer: JSON, nothing else, of a bounded size."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """Encode; raises TypeError or ValueError for what JSON cannot say, NaN included."""
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()

    @staticmethod
    def loads(data: bytes) -> Any:
        """Decode; raises ValueError for anything but JSON of a reasonable size."""
        if len(data) > LARGEST_PAYLOAD:
            raise ValueError(f"more than {LARGEST_PAYLOAD} bytes")
        return json.loads(data.decode(), parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def freeze(allowed: Mapping[str, str]) -> Mapping[str, str]:
    """Check an allow-list and make it unchangeable.

    Args:
        allowed: Name of a function, as jobs carry it → its dotted path.

    Raises:
        ConfigError: A name or a path is not well-formed.
    """
    for name, path in allowed.items():
        if not _NAME.fullmatch(name) or not _PATH.fullmatch(path):
            raise ConfigError(
                f"The allow-list of jobs has an entry that is none: {name!r} → {path!r}.",
                "It maps a lower-case name to package.module.function.",
            )
    return MappingProxyType(dict(allowed))


def resolve(path: str) -> Callable[..., Any]:
    """Import the function at a dotted path.

    Raises:
        JobError: There is no such module or function.
    """
    module_name, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise JobError(f"The job's function {path} cannot be imported: {error}.") from error
    if not callable(function):
        raise JobError(f"The job's function {path} is not a function.")
    return function  # type: ignore[no-any-return]


def make_job_id(*parts: str | int, revision: str | int) -> str:
    """A job id that RQ takes and that names one revision of one thing.

    RQ refuses a second job of the same id only while the first one's data exists, and takes
    no colons; so the id names the revision too, and everything unusual goes into a hash.

    Args:
        parts: What the job is about: `"ingest", project, annotation`.
        revision: Which state of it: a time stamp, a content hash, a counter.

    Returns:
        At most 150 letters, digits, `_` and `-`; equal for equal arguments, and different
        for different ones.
    """
    words = [str(part) for part in (*parts, revision)]
    # Joined unambiguously for the hash: ("a-b", "c") and ("a", "b-c") must differ.
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
    readable = "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", word) for word in words)
    return f"{readable[: _LONGEST_ID - 17]}-{digest}"


class AllowedJob(Job):
    """A job that runs only if its function is on the allow-list; see `bind`."""

    allowed: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @classmethod
    def fetch(cls, id: str, connection: Redis | None = None, serializer: Any = None) -> AllowedJob:
        """Read a job from Redis.

        Raises:
            NoSuchJobError: There is none of that id.
            JobRefusedError: What is there is no job that can be read.
        """
        job_id = id.partition(":")[0]
        try:
            job = cls(job_id, connection=connection, serializer=serializer or JsonSerializer)
            job.refresh()  # type: ignore[no-untyped-call]
        except _MALFORMED as error:
            raise JobRefusedError(
                reason_line(f"The job cannot be read: {type(error).__name__}: {error}."),
                job_id=id,
            ) from error
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            raise JobRefusedError("The job cannot be read: it is no hash.", job_id=id) from error
        return job

    def refusal(self) -> str | None:
        """Why this job may not run; None if it may. Imports and calls nothing."""
        try:
            name, instance = self.func_name, self.instance
            args, kwargs = self.args, self.kwargs
        except DeserializationError:
            return "Refused: its data is not JSON, as all of this project's jobs are."
        if not isinstance(name, str) or name not in self.allowed:
            return f"Refused: the function {_shown(name)} is not on the allow-list."
        if instance is not None or not isinstance(args, list) or not isinstance(kwargs, dict):
            return "Refused: its arguments are not a list and a dictionary."
        if self._success_callback_name or self._failure_callback_name:
            return "Refused: it carries callbacks."
        if self._stopped_callback_name or self.webhooks:
            return "Refused: it carries callbacks or webhooks."
        if self._dependency_ids or self.rate_limit_key or self.repeats_left:
            return "Refused: it depends on other jobs, repeats, or limits its rate."
        if self.timeout is None or not 0 < self.timeout <= LONGEST_TIMEOUT_S:
            return "Refused: it has no time limit, or one beyond all measure."
        return None

    @property
    def shown_function(self) -> str:
        """The name of the function for people; `?` when it cannot be read."""
        try:
            return _shown(self.func_name)
        except DeserializationError:
            return "?"

    @property
    def func(self) -> Callable[..., Any]:
        """The function, imported from the allow-list.

        Raises:
            JobRefusedError: The job may not run.
            JobError: The function cannot be imported.
        """
        refusal = self.refusal()
        if refusal is not None:
            raise JobRefusedError(refusal, job_id=self.id)
        return resolve(self.allowed[str(self.func_name)])

    # RQ imports these from what stands in Redis, also in the worker itself.
    @property
    def success_callback(self) -> None:
        """None: this project has no callbacks."""

    @property
    def failure_callback(self) -> None:
        """None: this project has no callbacks."""

    @property
    def stopped_callback(self) -> None:
        """None: this project has no callbacks."""

    def send_webhooks(self, status: Any, *, exc_string: str | None = None) -> None:
        """Sends nothing: addresses from Redis are not called."""


def _shown(name: object) -> str:
    text = name if isinstance(name, str) else f"({type(name).__name__})"
    return reason_line(text)[:80]


def bind(allowed: Mapping[str, str]) -> type[AllowedJob]:
    """An `AllowedJob` class that runs the functions of one allow-list.

    Raises:
        ConfigError: A name or a path is not well-formed.
    """
    return type("BoundJob", (AllowedJob,), {"allowed": freeze(allowed)})


def open_queue(name: str, connection: Redis, job_class: type[AllowedJob]) -> Queue:
    """The queue of a name, bound to an allow-list."""
    return Queue(name, connection=connection, job_class=job_class, serializer=JsonSerializer)


def fetch(queue: Queue, job_id: str, *, keep_origin: bool = False) -> AllowedJob | None:
    """Read a job with the queue's class and serializer; None if there is none.

    Args:
        queue: Where it was found.
        job_id: Its id.
        keep_origin: Believe what the job says its queue is, instead of `queue`.

    Raises:
        JobRefusedError: What is there is no job that can be read.
    """
    job_class: Any = queue.job_class
    try:
        job: AllowedJob = job_class.fetch(job_id, queue.connection, queue.serializer)
    except NoSuchJobError:
        return None
    # What stands in Redis may name another queue; its registries would be used then.
    if not keep_origin:
        job.origin = queue.name
    return job


def is_job_id(text: str) -> bool:
    """Whether RQ takes the text as a job id."""
    return JOB_ID_PATTERN.fullmatch(text) is not None
