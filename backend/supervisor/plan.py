"""Which processes an installation has, and the lock on its data folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from backend.learning.installed import can_train
from backend.redis_access import redis_folder
from backend.settings import ENV_PREFIX, Settings
from backend.supervisor.redis_service import RedisService
from backend.supervisor.service import Program, ProgramService, Service
from segzero_ml.errors import ConfigError
from training_hooks.redis_server import EmbeddedServer
from training_hooks.worker_options import WorkerOptions

WORKERS: Final = ("ingest", "predict")
"""The queues that always have a worker here. `segzero worker` knows what each preloads."""

TRAIN: Final = "train"
"""Has a worker where what trains is installed."""

_SERVE: Final = "serve"
_TIDYING_S: Final = 5.0
"""What a process gets on top of the time that it gives to its work at the end."""


def names(settings: Settings) -> tuple[str, ...]:
    """The processes there will be, in the order in which they start."""
    embedded = () if settings.redis_url is not None else (RedisService.name,)
    return (*embedded, *workers(), _SERVE)


def workers() -> tuple[str, ...]:
    """The queues that have a worker here."""
    return (*WORKERS, TRAIN) if can_train() else WORKERS


def stages(
    settings: Settings,
    write: Callable[[str, str], None],
    environment: Mapping[str, str],
    on_serve: Callable[[], None],
) -> list[list[Service]]:
    """What to run: Redis, unless there is one already; then the workers; then the backend.

    Args:
        settings: Those of `segzero up`; every process gets the same.
        write: Called with the name of a process and each line that it writes.
        environment: What the processes get besides.
        on_serve: Called after each start of the backend.
    """
    env = child_environment(settings, environment)
    found: list[list[Service]] = []
    if settings.redis_url is None:
        found.append([RedisService(EmbeddedServer(redis_folder(settings)))])
    worker_grace_s = WorkerOptions().stop_grace_s + _TIDYING_S
    found.append(
        [
            ProgramService(Program(queue, command("worker", queue), env, worker_grace_s), write)
            for queue in workers()
        ]
    )
    serve = Program(_SERVE, command("serve"), env, settings.drain_s + _TIDYING_S)
    found.append([ProgramService(serve, write, on_serve)])
    return found


def command(*arguments: str) -> Sequence[str]:
    """A `segzero` command, run by this interpreter, whatever lies in the current folder."""
    return (sys.executable, "-P", "-m", "backend.cli", *arguments)


def child_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the processes: secrets travel in it, not on command lines."""
    given = {
        "HOST": settings.host,
        "PORT": str(settings.port),
        "PRESET": settings.preset,
        "DATA_DIR": str(settings.data_dir.absolute()),
    }
    if settings.redis_url is not None:
        given["REDIS_URL"] = settings.redis_url.get_secret_value()
    return {
        **environment,
        **{ENV_PREFIX + name: value for name, value in given.items()},
        "PYTHONUNBUFFERED": "1",
    }


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Keep a second `segzero up` out of a data folder; makes the folder.

    The lock ends with this process, however that ends.

    Raises:
        ConfigError: One runs there, or the folder cannot be used.
    """
    path = data_dir.absolute() / "up.lock"
    with contextlib.ExitStack() as stack:
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = stack.enter_context(path.open("a+", encoding="ascii"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
        except BlockingIOError:
            pid = path.read_text(encoding="ascii").strip()
            raise ConfigError(
                f"segzero up already runs on {data_dir.absolute()} (process {pid or 'unknown'}).",
                "Stop that one with Ctrl-C or SIGTERM, or give this one a data folder of its own "
                "(--data-dir) and another --port.",
            ) from None
        except OSError as error:
            raise ConfigError(
                f"The data folder {data_dir.absolute()} cannot be used: {error.strerror}.",
                "Choose one that you may write to: --data-dir or SEGZERO_DATA_DIR.",
            ) from error
        yield
