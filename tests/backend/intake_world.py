"""A backend, a worker and a Redis in processes of their own, and the events sent to them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from backend.jobs import ALLOWED
from backend.redis_access import redis_folder, spool_folder
from backend.settings import Settings, load_settings
from backend.templates import labelling_config
from tests.backend.annotated import RING, annotation, brush, disc, task
from training_hooks.queues import QueueName, Queues
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.spool import survey
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

ROOT: Final = Path(__file__).parents[2]
PATIENCE_S: Final = 120.0
PROJECT: Final = 7
KEY: Final = ProjectKey("label-studio", PROJECT)
START: Final = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


class Process:
    """A program of this project in a process of its own; killed with the test."""

    def __init__(self, arguments: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(PATIENCE_S)


class World:
    """A data folder, and what runs on it. Use it as a context manager.

    Args:
        folder: Everything is put here.
        redis: Options of the server.
        settings: Further settings of the backend and the worker, as environment variables.
    """

    def __init__(
        self, folder: Path, redis: Mapping[str, Any] | None = None, **settings: str
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.env = {
            "SEGZERO_DATA_DIR": str(folder / "data"),
            "SEGZERO_PORT": str(self.port),
            **settings,
        }
        self.settings: Settings = load_settings(data_dir=folder / "data")
        self.redis = EmbeddedServer(redis_folder(self.settings), **(redis or {}))
        self.backend: Process | None = None
        self.worker: Process | None = None
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        self.client = self._resources.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in (self.backend, self.worker):
            if process is not None:
                process.kill()
                if error is not None:
                    print(process.log.name, process.log.read_text()[-8000:], sep="\n")
        self.redis.stop()
        self._resources.close()

    def start_backend(self) -> None:
        log = self.folder / "backend.log"
        self.backend = Process(["tests.backend.intake_backend"], log, self.env)
        until(self._is_up, "the backend answers")

    def start_worker(self) -> None:
        log = self.folder / "worker.log"
        self.worker = Process(["tests.backend.intake_worker"], log, self.env)

    def _is_up(self) -> bool:
        assert self.backend is not None
        assert self.backend.is_alive, self.backend.log.read_text()
        try:
            return self.client.get("/health").is_success
        except httpx.TransportError:
            return False

    def post(self, event: object) -> int:
        """Send an event; the status of the reply."""
        return self.client.post("/webhook", json=event).status_code

    def send(self, bodies: Sequence[bytes]) -> list[float]:
        """Send events one after the other; how long each took to be taken, in seconds."""
        times = []
        headers = {"Content-Type": "application/json"}
        with httpx.Client(base_url=self.client.base_url, timeout=60) as client:
            for body in bodies:
                started = time.monotonic()
                reply = client.post("/webhook", content=body, headers=headers)
                times.append(time.monotonic() - started)
                assert reply.status_code == 200, reply.text
        return times

    def metric(self, name: str) -> float:
        """A number of /metrics, by its name with its labels."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no metric {name}")

    @property
    def spooled(self) -> int:
        return survey(spool_folder(self.settings)).depth

    def stored(self) -> dict[int, datetime]:
        """What the store holds: annotation -> when it was saved."""
        with connect(self.redis.url) as client:
            store, after = CorrectionStore(client), 0
            found: dict[int, datetime] = {}
            while True:
                page = store.page(KEY, after, 1000)
                assert page.unreadable == ()
                found |= {one.key.annotation: one.revision.updated_at for one in page.corrections}
                if page.is_last:
                    return found
                after = page.after

    def dead(self) -> int:
        """How many jobs failed for good."""
        with connect(self.redis.url) as client:
            return Queues(client, ALLOWED).depth(QueueName.INGEST).dead

    def wait_until_done(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until nothing is in the spool and nothing in the queue."""
        until(self.is_done, "everything is handed over and worked off", patience_s)

    def is_done(self) -> bool:
        if self.spooled:
            return False
        with connect(self.redis.url) as client:
            depth = Queues(client, ALLOWED).depth(QueueName.INGEST)
        return depth.waiting == depth.running == depth.scheduled == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, f"not within {patience_s} s: {what}"
        time.sleep(0.05)


def share(events: Sequence[Any], people: int) -> list[list[Any]]:
    """Events dealt out to some people."""
    return [list(events[number::people]) for number in range(people)]


def memory_of(pid: int) -> int:
    """The most memory that a process has used, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def project(number: int = PROJECT) -> dict[str, Any]:
    """A project as events hold it, as far as anybody reads it."""
    return {"id": number, "title": "Scenes", "label_config": labelling_config()}


def saved(
    number: int,
    revision: int = 0,
    action: str = "ANNOTATION_CREATED",
    of_task: int | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The event of an annotation that was saved; a higher revision is later."""
    task_id = number + 1000 if of_task is None else of_task
    result = [brush(RING if revision == 0 else disc(8 + revision % 20, 8))]
    changes = {"result": result, **changes}
    made = annotation(
        id=number,
        task=task_id,
        updated_at=(START + timedelta(seconds=revision)).isoformat(),
        **changes,
    )
    return {
        "action": action,
        "annotation": made,
        "task": {**task(), "id": task_id},
        "project": project(),
    }


def deleted(*numbers: int) -> dict[str, Any]:
    """The event of deleted annotations."""
    return {
        "action": "ANNOTATIONS_DELETED",
        "annotations": [{"id": number} for number in numbers],
        "project": project(),
    }


def tasks_deleted(*numbers: int, with_project: bool = True) -> dict[str, Any]:
    """The event of deleted tasks; from some places Label Studio names no project."""
    event = {"action": "TASKS_DELETED", "tasks": [{"id": number} for number in numbers]}
    return {**event, "project": project()} if with_project else event


def encode(event: object) -> bytes:
    return json.dumps(event).encode()
