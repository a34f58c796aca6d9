"""A Redis of our own: started on a data folder, mended after a crash, stopped cleanly."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from redis import Redis
from redis.exceptions import RedisError

from segzero_ml.errors import StoreError
from training_hooks import processes
from training_hooks.aof import cut_damaged_tail
from training_hooks.redis_client import connect, redacted
from training_hooks.redis_setup import choose_url, configuration, find_program, write_private

_log = logging.getLogger(__name__)

_LONGEST_LOG: Final = 5_000_000
_LOCK_WAIT_S: Final = 10.0
_POLL_S: Final = 0.05
_TAIL_LINES: Final = 12


class EmbeddedServer:
    """A Redis or Valkey that lives as long as this process, at the longest.

    It appends every write to a file, forgets nothing to save memory, and listens on a Unix
    socket that only this user can open; where the folder's path is too long for one or its
    disk has no sockets, on loopback with a generated password.

    Args:
        folder: Its data folder; made if missing.
        max_memory: Bytes it may use; 0 for no limit. At the limit it refuses to write.
        fsync: When what it acknowledged is safe from a loss of power: within a second, or
            at once. A crash of the server alone loses next to nothing either way.
        loopback: Listen on loopback even where a socket would do.
        program: The server to start; by default `find_program` chooses.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_memory: int = 0,
        fsync: Literal["everysec", "always"] = "everysec",
        loopback: bool = False,
        program: Path | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "redis.log"
        self._max_memory = max_memory
        self._fsync = fsync
        self._loopback = loopback
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens, for `connect`; holds the password. Empty before the first start."""
        return self._url

    @property
    def pid(self) -> int | None:
        """Its process id; None when it does not run."""
        return self._process.pid if self._process is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = 120.0) -> str:
        """Start it and wait until it has loaded its data; does nothing while it runs.

        Args:
            timeout_s: Longest wait in seconds.

        Returns:
            `url`.

        Raises:
            StoreError: No program, another server on this folder, data that cannot be read,
                or not ready in time.
        """
        if self.is_running:
            return self._url
        program = self._program or find_program()
        try:
            self._prepare_folder()
            lock = self._take_lock()
            try:
                self._url = choose_url(self.folder, self._loopback)
                self._run(program, lock, time.monotonic() + timeout_s)
            except BaseException:  # an interrupt, too, leaves nothing running
                self.stop()
                raise
            finally:
                os.close(lock)  # the server has a copy, which it holds until it ends
        except OSError as error:
            raise StoreError(
                f"Redis cannot be started in {self.folder}: {error}.",
                "Check the folder's permissions and the free space on its disk.",
            ) from error
        return self._url

    def stop(self, grace_s: float = 60.0) -> None:
        """Have it write everything to disk and end; does nothing if it does not run.

        Args:
            grace_s: Seconds after which it is killed.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            _log.warning("Redis (pid %d) did not stop in %.0f s: killed", process.pid, grace_s)
            processes.signal_group(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until it ends by itself; its exit code, or None if it still runs."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def _prepare_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if self.log.exists() and self.log.stat().st_size > _LONGEST_LOG:
            self.log.replace(self.log.with_name("redis.log.1"))

    def _take_lock(self) -> int:
        """A locked file; a server whose parent was killed may need a moment to end."""
        lock = os.open(self.folder / "redis.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError as error:
                if time.monotonic() > give_up:
                    os.close(lock)
                    raise StoreError(
                        f"Another Redis server uses {self.folder}.",
                        f"Stop it, or use it by its address: see {self.folder / 'redis.url'}.",
                    ) from error
                time.sleep(_POLL_S)

    def _run(self, program: Path, lock: int, deadline: float) -> None:
        text = configuration(self.folder, self._url, self._max_memory, self._fsync)
        write_private(self.folder / "redis.conf", text)
        write_private(self.folder / "redis.url", self._url + "\n")
        self._spawn(program, lock)
        if self._wait_until_ready(deadline):
            return
        cut = cut_damaged_tail(self.folder)
        if cut is None:
            raise self._failed("Redis stopped while it started.")
        _log.warning(
            "The end of %s was damaged: %d bytes were cut off and set aside as %s",
            cut.file,
            cut.length,
            cut.saved,
        )
        self._spawn(program, lock)
        if not self._wait_until_ready(deadline):
            raise self._failed("Redis stopped while it started.")

    def _spawn(self, program: Path, lock: int) -> None:
        """Start the process from a thread that lives as long as it does: see `processes`."""
        command = [*processes.launcher(signal.SIGTERM), str(program)]
        started: Future[subprocess.Popen[bytes]] = Future()

        def live() -> None:
            try:
                with self.log.open("ab") as output:
                    self._log_start = output.tell()
                    process = subprocess.Popen(  # noqa: S603 - our own command
                        [*command, str(self.folder / "redis.conf")],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        cwd=self.folder,
                        env={**os.environ, "LC_ALL": "C"},
                        # A session of its own: Ctrl-C reaches only us, so that whoever
                        # still writes is stopped first.
                        start_new_session=True,
                        pass_fds=(lock,),
                    )
            except OSError as error:
                started.set_exception(error)
                return
            started.set_result(process)
            process.wait()

        threading.Thread(target=live, name="segzero-redis", daemon=True).start()
        self._process = started.result()

    def _wait_until_ready(self, deadline: float) -> bool:
        """Whether it answers; False when it ended instead."""
        with connect(self._url, timeout_s=1.0, retries=0) as client:
            while time.monotonic() < deadline:
                if not self.is_running:
                    return False
                if _answers(client):
                    return True
                time.sleep(_POLL_S)
        self.stop(grace_s=5.0)
        raise self._failed(f"Redis at {redacted(self._url)} was not ready in time.")

    def _failed(self, message: str) -> StoreError:
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        return StoreError(
            message,
            f"If its data cannot be read, move {self.folder} away and start again: the "
            "corrections come back from Label Studio. Its last words:\n" + "\n".join(lines),
        )


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:  # not there yet, or still loading
        return False
