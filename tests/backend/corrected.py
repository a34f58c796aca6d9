"""A data folder with a real Redis in it, for tests of what reads the corrections."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from redis import Redis

from backend.cli import main
from backend.jobs import ALLOWED
from backend.redis_access import redis_folder
from backend.settings import Settings, load_settings
from training_hooks.queues import QueueName, QueuePolicy, Queues
from training_hooks.redis_client import connect
from training_hooks.redis_server import EmbeddedServer
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

ROOT: Final = Path(__file__).parents[2]
NAME: Final = "label-studio"
PROJECT: Final = ProjectKey(NAME, 7)

_DIE: Final = """
import sys
from training_hooks.queues import QueueName
from training_hooks.redis_client import connect
from training_hooks.worker import run_worker
allowed = {"ingest": "tests.training_hooks.rq_jobs.leave"}
run_worker(QueueName.PREDICT, lambda: connect(sys.argv[1]), allowed, burst=True)
"""


class World(NamedTuple):
    """A data folder whose Redis runs."""

    folder: Path
    server: EmbeddedServer
    client: Redis
    store: CorrectionStore

    def use(self, patch: pytest.MonkeyPatch) -> World:
        """Empty it, and let the environment point to it."""
        patch.setenv("SEGZERO_DATA_DIR", str(self.folder))
        # Nothing listens there: the tests have no backend unless they start one.
        patch.setenv("SEGZERO_PORT", "9")
        self.server.start()
        self.client.flushdb()
        return self

    @property
    def settings(self) -> Settings:
        """The settings as a command reads them."""
        return load_settings()

    def make_dead_letters(self, *job_ids: str) -> None:
        """Have a real worker run jobs that die with no further try."""
        jobs = Queues(self.client, ALLOWED, {name: QueuePolicy(60, (), 600) for name in QueueName})
        for job_id in job_ids:
            assert jobs.enqueue(QueueName.PREDICT, "ingest", job_id, {})
        subprocess.run(
            [sys.executable, "-c", _DIE, self.server.url], cwd=ROOT, check=True, timeout=120
        )


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """An empty one, for the time of a `with`; to be put to use by each test."""
    with (
        EmbeddedServer(redis_folder(load_settings(data_dir=folder))) as server,
        connect(server.url) as client,
    ):
        yield World(folder, server, client, CorrectionStore(client))


class FileServer:
    """A Label Studio that only hands out files, over real HTTP on loopback."""

    token: Final = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.broken: dict[str, int] = {}
        """Paths that get a status of their own."""
        self.tokens: set[str] = set()
        self.asked: list[str] = []
        self.before: Callable[[], object] = lambda: None
        self.url = ""

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[FileServer]:
        """One on a port of its own, for the time of a `with`."""
        studio = cls()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                studio.before()
                studio.asked.append(self.path)
                studio.tokens.add(self.headers.get("Authorization", ""))
                status = studio.broken.get(self.path)
                file = studio.files.get(self.path) if status is None else None
                self.send_response(status or (404 if file is None else 200))
                self.send_header("Content-Length", str(len(file or b"")))
                self.end_headers()
                self.wfile.write(file or b"")

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            studio.url = f"http://127.0.0.1:{server.server_port}"
            try:
                yield studio
            finally:
                server.shutdown()
                thread.join()

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Let the environment name it as the Label Studio."""
        patch.setenv("SEGZERO_LABEL_STUDIO_URL", self.url)
        patch.setenv("SEGZERO_LABEL_STUDIO_TOKEN", self.token)


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """How to run `segzero` in this process."""

    def running(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    return running
