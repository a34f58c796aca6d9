"""A project with corrections of real scenes, and real workers that train on them: no tests."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from backend.jobs import ALLOWED
from backend.learning.folders import loop_name, rounds_folder
from backend.learning.round_state import RoundState, read_state
from backend.learning.train_queue import newest_job
from backend.model_folders import registry_of
from segzero_ml import masks
from segzero_ml.corrections import LabelledSegment, Verdict
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.registry import Registry
from segzero_ml.types import ImageSize
from tests.backend.corrected import PROJECT, ROOT, FileServer, World, world
from tests.backend.up_world import is_alive
from tests.training_hooks.store_samples import correction
from training_hooks.loop_reader import LEARNT, ROUND_ENDED, ROUND_FAILED
from training_hooks.queues import JobView, QueueName, QueuePolicy, Queues

SHORT: Final = {
    "SEGZERO_TRAIN_ROLLOUTS": "4",
    "SEGZERO_TRAIN_PROMPTS_PER_STEP": "2",
    "SEGZERO_TRAIN_MAX_STEPS": "2",
    "SEGZERO_TRAIN_SAVE_EVERY": "1",
    "SEGZERO_TRAIN_RANK": "4",
    "SEGZERO_TRAIN_COLD_START": "0",
    "SEGZERO_TRAIN_REHEARSAL_SHARE": "0",
    "SEGZERO_TRAIN_REHEARSAL_HELD_OUT": "0",
    "SEGZERO_TRAIN_HELD_OUT_SHARE": "0.6",
    "SEGZERO_TRAIN_MIN_CORRECTIONS": "4",
    "SEGZERO_TRAIN_THREADS": "1",
    "SEGZERO_TRAIN_NICE": "0",
}
"""The shortest round there is: two steps of two prompts."""

SCENES: Final = 28
"""Of these 20 are held out, as few as a round may be judged by."""

QUICK: Final = {
    "heartbeat_s": 1,
    "abandon_after_s": 3,
    "poll_s": 1,
    "tidy_every_s": 1,
    "stop_grace_s": 1.0,
}
POLICIES: Final = {name: QueuePolicy(600, (1, 1, 1), 600) for name in QueueName}
PATIENCE_S: Final = 600.0

_WORK: Final = """
import json, logging, sys
from backend.jobs import ALLOWED
from backend.redis_access import open_redis
from backend.settings import load_settings
from training_hooks.queues import QueueName
from training_hooks.worker import run_worker
from training_hooks.worker_options import WorkerOptions
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
settings = load_settings()
run_worker(QueueName.TRAIN, lambda: open_redis(settings, timeout_s=2, retries=1), ALLOWED,
           options=WorkerOptions(**json.loads(sys.argv[1])), burst="burst" in sys.argv)
"""


class Project(World):
    """Project 7 with corrections, and what its training leaves."""

    @property
    def queues(self) -> Queues:
        """The queues, with quick retries."""
        return Queues(self.client, ALLOWED, POLICIES)

    @property
    def job(self) -> JobView | None:
        """Its newest train job."""
        return newest_job(self.queues, self.settings, PROJECT.project)

    @property
    def state(self) -> RoundState | None:
        """Its newest round."""
        return read_state(self.client, loop_name(self.settings, PROJECT.project))

    @property
    def phase(self) -> str:
        """Where that is; empty before it begins."""
        state = self.state
        return "" if state is None else state.phase.value

    @property
    def registry(self) -> Registry:
        """Its versions."""
        return registry_of(self.settings, PROJECT.project)

    @property
    def rounds(self) -> list[Path]:
        """Folders of its rounds."""
        folder = rounds_folder(self.settings, PROJECT.project)
        return sorted(folder.iterdir()) if folder.is_dir() else []

    @property
    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints of its only round that are whole."""
        found = [
            one for each in self.rounds for one in each.glob("checkpoint-*/trainer_state.json")
        ]
        return sorted(int(one.parent.name.rpartition("-")[2]) for one in found)

    def until(self, phase: str, patience_s: float = PATIENCE_S) -> float:
        """Wait until the newest round is there; how many seconds that took."""
        began = time.monotonic()
        while self.phase != phase:
            assert time.monotonic() - began < patience_s, f"{self.state}, not {phase}"
            time.sleep(0.05)
        return time.monotonic() - began

    def forget_the_end(self) -> None:
        """As if the job of the newest round had died before it could record the end."""
        (key,) = self.client.keys("*:watermarks")
        self.client.hdel(key, LEARNT, ROUND_ENDED, ROUND_FAILED)

    @contextmanager
    def kept(self, server: FileServer, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Leave everything as it was: for tests that share a round."""
        point(self, server, patch)
        rows = {key: self.client.dump(key) for key in self.client.keys("segzero:*")}
        copy = self.folder.with_name("kept")
        for name in ("rounds", "models"):
            if (self.folder / name).exists():
                shutil.copytree(self.folder / name, copy / name)
        try:
            yield
        finally:
            self.client.flushdb()
            for key, row in rows.items():
                if row is not None:
                    self.client.restore(key, 0, row)
            for name in ("rounds", "models"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
                if (copy / name).exists():
                    shutil.copytree(copy / name, self.folder / name)
            shutil.rmtree(copy, ignore_errors=True)

    def ask(self, *, by_hand: bool = True) -> str:
        """Ask for a round as the command line does."""
        from backend.learning.train_queue import enqueue

        job_id = enqueue(self.queues, self.settings, PROJECT.project, by_hand=by_hand)
        assert job_id is not None
        return job_id


@contextmanager
def project(folder: Path) -> Iterator[Project]:
    """One without corrections, for the time of a `with`; to be put to use by each test."""
    with world(folder) as found:
        yield Project(*found)


def point(here: Project, server: FileServer, patch: pytest.MonkeyPatch) -> None:
    """Let the environment name it, and have rounds be short."""
    patch.setenv("SEGZERO_DATA_DIR", str(here.folder))
    patch.setenv("SEGZERO_PORT", "9")
    server.use(patch)
    for name, value in SHORT.items():
        patch.setenv(name, value)


def use(here: Project, server: FileServer, patch: pytest.MonkeyPatch, count: int = SCENES) -> None:
    """Empty it, give it corrections of so many scenes, and have rounds be short."""
    here.use(patch)
    point(here, server, patch)
    for number, sample in enumerate(scene_samples(count, 78, "shifted"), 1):
        image, stream = sample.image(), BytesIO()
        image.save(stream, "PNG")
        base = correction(number, number, task=number, project=PROJECT)
        server.files[base.image] = stream.getvalue()
        true = tuple(
            LabelledSegment(masks.encode(mask), "Object", sample.request) for mask in sample.masks
        )
        here.store.upsert(
            replace(
                base,
                image_sha256=hashlib.sha256(stream.getvalue()).hexdigest(),
                size=ImageSize(image.width, image.height),
                requests=(sample.request,),
                predicted=(),
                corrected=true,
                verdict=Verdict.DRAWN_BY_HAND if true else Verdict.NOTHING_HERE,
                edit_iou=None,
            )
        )


def trainers(here: Project) -> list[int]:
    """The processes that train in a round of a project now."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        ours = any(str(one).encode() in words for one in here.rounds)
        if b"training_hooks.round" in words and ours and is_alive(int(entry.name)):
            found.append(int(entry.name))
    return found


class TrainWorker:
    """A worker of the queue `train` in a process of its own; killed with the test."""

    def __init__(
        self, log: Path, *, burst: bool = False, before: Callable[[], None] | None = None
    ) -> None:
        self.log = log
        command = [sys.executable, "-c", _WORK, json.dumps(QUICK), *(["burst"] if burst else [])]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                preexec_fn=before,  # noqa: PLW1509 - limits a process can only set itself
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if error is not None:
            print(self.log.read_text())

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def finish(self) -> int:
        """Wait for one that stops when no job waits."""
        return self.process.wait(PATIENCE_S)
