"""One trainer a project: a lock on this machine, and a token that only ever grows.

The lock is a `flock` on a file. It is held as long as *any* process has the file open, so the
subprocess that trains gets it too (`pass_fds=[fence.fileno()]`): when the job around it is
killed but the trainer is not, the project stays busy.

A lock alone does not stop a trainer that was thought dead (a paused machine, another host)
from finishing late. So each holder draws a token, a number greater than all before, and
promotion asks `check` whether its token is still the newest.

Redis keys: `segzero:fence:{project}`, a string, the newest token. No expiry. The lock file
repeats it, so that a Redis that lost its data does not start again at 1.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from redis import Redis
from redis.client import Pipeline

from segzero_ml.errors import JobError
from training_hooks.job_errors import StaleFenceError, TrainerBusyError
from training_hooks.redis_client import redis_errors

_PROJECT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LARGEST_FILE: Final = 4096


@dataclass(slots=True)
class Fence:
    """The right to train one project, held until `release` or the end of the process.

    Attributes:
        project: The project's name: letters, digits, `_` and `-`.
        token: Greater than that of every earlier holder; 1 or more.
        fd: The open lock file, or -1 for a fence that is only checked, or was given up.
    """

    project: str
    token: int
    fd: int = -1

    def fileno(self) -> int:
        """The lock file's descriptor, for `pass_fds`: the child then holds the lock too."""
        return self.fd

    def release(self) -> None:
        """Give the lock up. Harmless when repeated. The token stays the newest."""
        fd, self.fd = self.fd, -1  # the number is soon another file's
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __enter__(self) -> Fence:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def acquire(project: str | int, folder: Path, connection: Redis) -> Fence:
    """Become the one trainer of a project, or fail at once.

    Args:
        project: The project's number or name.
        folder: Where lock files lie; made if missing. One for all trainers of a machine.
        connection: Redis, where the newest token is kept.

    Returns:
        The fence; use it as a context manager or call `release`.

    Raises:
        TrainerBusyError: Another trainer holds the project.
        StoreError: Redis does not answer.
        JobError: The name is not one, or the lock file cannot be written.
    """
    name = _checked(project)
    with _translated_os(name):
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / f"train-{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _translated_os(name):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TrainerBusyError(
                    f"Project {name} is being trained already ({_holder(fd)}).",
                    "Wait for that training to end, or cancel it.",
                ) from None
            token = _next_token(name, _written_token(fd), connection)
            _write(fd, token)
    except BaseException:
        os.close(fd)
        raise
    return Fence(name, token, fd)


def check(fence: Fence, connection: Redis) -> None:
    """Make sure that nobody has drawn a newer token. Call it right before promoting.

    Args:
        fence: What `acquire` returned, or one built from a remembered project and token.
        connection: Redis, where the newest token is kept.

    Raises:
        StaleFenceError: A newer trainer has taken over, or the token was never drawn.
        StoreError: Redis does not answer; promote nothing then.
    """
    with redis_errors("being asked who trains the project"):
        newest = _number(connection.get(_key(fence.project)))
    if newest != fence.token:
        raise StaleFenceError(
            f"Project {fence.project} was taken over by a newer training "
            f"(token {newest}, this one has {fence.token}).",
            "Nothing was promoted; the newer training will finish by itself.",
        )


def _key(name: str) -> str:
    return f"segzero:fence:{name}"


def _checked(project: str | int) -> str:
    name = str(project)
    if not _PROJECT.fullmatch(name):
        raise JobError(
            "A project's name for training has letters, digits, _ and - only, 64 at most."
        )
    return name


def _next_token(name: str, written: int, connection: Redis) -> int:
    """Draw a token greater than the newest one in Redis and than the one in the lock file."""
    key = _key(name)

    def step(pipe: Pipeline) -> Any:
        token = max(_number(pipe.get(key)), written) + 1
        pipe.multi()
        pipe.set(key, token)
        return token

    with redis_errors("drawing a training token"):
        return int(str(connection.transaction(step, key, value_from_callable=True)))


def _number(stored: bytes | str | None) -> int:
    """A stored token; 0 for none, and for what is no number."""
    try:
        return max(0, int(stored or 0))
    except ValueError:
        return 0


def _read(fd: int) -> list[str]:
    return os.pread(fd, _LARGEST_FILE, 0).decode("utf-8", "replace").split()


def _written_token(fd: int) -> int:
    words = _read(fd)
    return _number(words[0]) if words else 0


def _holder(fd: int) -> str:
    words = _read(fd)
    return f"by process {words[1]} on {words[2]}" if len(words) == 3 else "by another process"


def _write(fd: int, token: int) -> None:
    line = f"{token} {os.getpid()} {socket.gethostname()}\n".encode()
    os.pwrite(fd, line, 0)
    os.ftruncate(fd, len(line))
    os.fsync(fd)


@contextlib.contextmanager
def _translated_os(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JobError(
            f"The training lock of project {name} cannot be used: {error.strerror}.",
            "Check the data folder: it must be writable and on a disk that supports locks.",
        ) from error
