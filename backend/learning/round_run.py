"""One round of a train job: snapshot, training process, verdict, promotion.

Safe to run again after a crash at any point: the round's folder is named by what it learns from,
how, and against whom, so that the next try goes on in it from its last checkpoint; a version
that was published already is not published twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from redis import Redis

from backend.learning.folders import rounds_folder, snapshots_folder
from backend.learning.held_out import too_little_held_out
from backend.learning.launch import launcher
from backend.learning.opponent import Opponent, base_of, find_opponent, still_serves
from backend.learning.patience import patiently
from backend.learning.promotion import promote
from backend.learning.round_settings import round_options, round_overrides
from backend.learning.round_state import Phase, RoundState, show_state
from backend.learning.round_words import with_left_out
from backend.learning.take_snapshot import take_snapshot
from backend.learning.trainer import peak_memory_bytes, read_json, round_arguments, run_process
from backend.settings import Settings
from segzero_ml.durable import make_folder, replace_file
from segzero_ml.errors import DatasetError, JobError
from segzero_ml.registry import Registry
from training_hooks.fence import Fence
from training_hooks.job_errors import JobCancelledError
from training_hooks.loop_reader import LoopReader
from training_hooks.redis_client import redis_errors
from training_hooks.round_files import CANCEL, OPTIONS, PROGRESS, REPORT, RESULT
from training_hooks.running_job import RunningJob, is_asked_to_end
from training_hooks.snapshot import Snapshot
from training_hooks.snapshot_records import time_text
from training_hooks.store import CorrectionStore
from training_hooks.store_values import ProjectKey

_log = logging.getLogger(__name__)

_CANCEL_PATIENCE_S: Final = 600.0
"""How long the step that runs may take on when the round is to end."""
_SHOW_EVERY_S: Final = 5.0
_COLLECT_EVERY_S: Final = 0.5
_PHASES: Final = {
    "loading": Phase.TRAINING,
    "cold start": Phase.COLD_START,
    "training": Phase.TRAINING,
    "comparing": Phase.COMPARING,
}


@dataclass(frozen=True, slots=True)
class Work:
    """What a train job works with.

    Args:
        settings: All settings.
        project: Which project.
        name: From `loop_name`.
        redis: Redis.
        registry: The project's versions.
        fence: The right to train.
        job: The job, or None outside of a worker.
    """

    settings: Settings
    project: ProjectKey
    name: str
    redis: Redis
    registry: Registry
    fence: Fence
    job: RunningJob | None

    @property
    def store(self) -> CorrectionStore:
        """The corrections."""
        return CorrectionStore(self.redis)

    @property
    def reader(self) -> LoopReader:
        """The corrections by time."""
        return LoopReader(self.redis)


class RoundRun:
    """A round that is being run.

    Args:
        work: What it works with.
        state: How it stands, from an earlier try or newly begun; kept up to date.

    Attributes:
        unseen: Annotations that it did without, as the hosts of their images were away.
    """

    def __init__(self, work: Work, state: RoundState) -> None:
        self._work = work
        self.state = state
        self._seen: Mapping[str, Any] | None = None
        self._shown_at = self._cancelled_at = float("-inf")
        self._began = time.monotonic()
        self._seconds_before = state.seconds
        self.unseen: frozenset[int] = frozenset()

    def go(self) -> RoundState:
        """Run it to its end.

        Returns:
            How it stands: promoted, the champion kept, or refused before anything was trained.
            Others see that only when its end is recorded: a try that comes after this one goes
            on as long as it is not.

        Raises:
            JobCancelledError: Somebody asked for its end.
            SegZeroError: It failed; see `train_job`.
        """
        round_options(self._work.settings)  # before hours of work
        self._find_opponent()
        snapshot = self._snapshot()
        self.unseen = snapshot.unseen
        self._check()
        held_out = snapshot.manifest.held_out
        if refusal := too_little_held_out(
            held_out.images, held_out.corrections, snapshot.manifest.options
        ):
            self._change(phase=Phase.REFUSED, verdict=(refusal.message,), text=str(refusal))
            return self.state
        folder = self._folder(snapshot)
        result = self._result(snapshot, folder)
        self._check_last(folder)
        verdict = result["verdict"]
        reasons = tuple(str(reason) for reason in verdict["reasons"])
        measured: dict[str, Any] = {
            "verdict": reasons,
            "held_out_iou": result.get("mean_iou"),
            "champion_iou": result.get("champion_mean_iou"),
            # Who looks now and then may have missed the last step.
            "step": result.get("steps", self.state.step),
        }
        if not verdict["promote"]:
            text = with_left_out("The champion stays: " + " ".join(reasons), self.state)
            self._change(**measured, phase=Phase.KEPT, text=self._remarked(text))
            return self.state
        self.note(**measured, phase=Phase.PROMOTING)
        version = promote(self._work, self.state, folder, result)
        text = self._remarked(with_left_out(f"{version} was promoted.", self.state))
        self._change(phase=Phase.PROMOTED, version=version, text=text)
        return self.state

    def note(self, **changes: Any) -> None:
        """Change how it stands, for all to see."""
        self._change(**changes)
        self._shown_at = time.monotonic()
        show_state(self._work.redis, self._work.name, self.state)

    def _change(self, **changes: Any) -> None:
        self.state = replace(
            self.state,
            **changes,
            seconds=round(self._seconds_before + time.monotonic() - self._began, 1),
            peak_memory_bytes=max(self.state.peak_memory_bytes, peak_memory_bytes()),
        )

    def _remarked(self, text: str) -> str:
        return f"{text} {self.state.remark}".strip()

    def _find_opponent(self) -> None:
        """Note what the round has to beat; what an earlier try noted holds as long as it serves."""
        registry, state = self._work.registry, self.state
        base = base_of(self._work.settings.preset)
        known = Opponent(state.base, state.against)
        if base == known.base and still_serves(registry, known):
            return
        lineage = registry.lineage()
        found = find_opponent(registry, lineage, base)
        if found.remark:
            _log.warning("The round of project %d: %s", self._work.project.project, found.remark)
        self.note(champion=lineage.champion, base=base, against=found.version, remark=found.remark)

    def _check(self) -> None:
        if self._work.job is not None:
            self._work.job.check()

    def _check_last(self, folder: Path) -> None:
        """Nothing comes of a round whose end was asked for, even if it was whole by then."""
        job, redis = self._work.job, self._work.redis

        def asked() -> bool:
            with redis_errors("being asked whether a round is to end"):
                return job is not None and is_asked_to_end(job.job_id, redis)

        if (folder / CANCEL).exists() or patiently(asked):
            raise JobCancelledError("The round was cancelled.")

    def _snapshot(self) -> Snapshot:
        """The one that an earlier try took, if it is still there; else a new one."""
        work = self._work
        if self.state.snapshot and self.state.mark:
            folder = snapshots_folder(work.settings, work.project.project) / self.state.snapshot
            try:
                return Snapshot.open(folder)
            except DatasetError as error:
                _log.warning("Taking the snapshot anew: %s", error.message)
        mark = self.state.mark or work.store.mark(work.project)
        self.note(phase=Phase.SNAPSHOT, mark=mark, step=0, steps=0)
        try:
            snapshot = take_snapshot(
                work.reader,
                work.project,
                work.settings,
                mark,
                self._collect,
                goes_without=work.job is None or work.job.is_last_try,
            )
        finally:
            self._change(step=0, steps=0)  # those of the training come next
        watermark = time_text(snapshot.manifest.watermark)
        self.note(snapshot=snapshot.id, watermark=watermark, left_out=snapshot.lost)
        return snapshot

    def _collect(self, step: int, steps: int) -> None:
        """Pass on how many corrections were looked at; ends here where that was asked for."""
        self._check()
        if time.monotonic() - self._shown_at >= _COLLECT_EVERY_S:
            self.note(step=step, steps=steps)
            if self._work.job is not None:
                self._work.job.progress(step, steps, self.state.phase.value)

    def _folder(self, snapshot: Snapshot) -> Path:
        settings = self._work.settings
        how = asdict(round_options(settings))
        against = [self.state.base, self.state.against]
        content = json.dumps([settings.preset, how, *against], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        name = f"{snapshot.id}-{digest[:8]}"
        folder = rounds_folder(settings, self._work.project.project) / name
        try:
            make_folder(folder)
            replace_file(folder / OPTIONS, json.dumps(round_overrides(settings)).encode())
        except OSError as error:
            raise JobError(
                f"The folder of the round {folder} cannot be written: {error.strerror or error}.",
                "Check the free space and the permissions of the data folder.",
            ) from error
        self.note(round=name, folder=str(folder))
        return folder

    def _result(self, snapshot: Snapshot, folder: Path) -> Mapping[str, Any]:
        (folder / CANCEL).unlink(missing_ok=True)  # of a round that ended like this before
        if not (folder / RESULT).exists():
            self._train(snapshot, folder)
        result = read_json(folder / RESULT)
        if result is None:
            (folder / RESULT).unlink(missing_ok=True)
            raise JobError("The round left no result that can be read.")
        if (folder / REPORT).exists():
            self.note(report=str(folder / REPORT))
        return result

    def _train(self, snapshot: Snapshot, folder: Path) -> None:
        (folder / PROGRESS).unlink(missing_ok=True)
        work, against = self._work, self.state.against
        ending = run_process(
            [
                *launcher(work.settings),
                *round_arguments(
                    snapshot.folder,
                    folder,
                    work.settings.preset,
                    None if against is None else work.registry.version(against).folder,
                    folder / OPTIONS,
                    self.state.remark,
                ),
            ],
            folder,
            work.settings,
            work.fence.fileno(),
            lambda: self._look(folder),
        )
        self.note()
        if (folder / CANCEL).exists() and ending.status != 0:
            raise JobCancelledError("The round was cancelled.")
        ending.check("The training process")

    def _look(self, folder: Path) -> None:
        """Pass on how far the process is, and to it that it is to end."""
        job, now = self._work.job, time.monotonic()
        if job is not None and job.cancelled():
            if not (folder / CANCEL).exists():
                (folder / CANCEL).touch()
                self._cancelled_at = now
            if now - self._cancelled_at > _CANCEL_PATIENCE_S:
                raise JobCancelledError("The round was cancelled, in the middle of a step.")
        found = read_json(folder / PROGRESS)
        if found is None or (found == self._seen and now - self._shown_at < _SHOW_EVERY_S):
            return
        self._seen = found
        step, steps = found.get("step", self.state.step), found.get("steps", self.state.steps)
        phase = _PHASES.get(str(found.get("phase")), self.state.phase)
        self.note(
            phase=phase,
            step=step,
            steps=steps,
            seconds_left=found.get("seconds_left"),
            figures=found.get("figures", self.state.figures),
            held_out_iou=found.get("held_out_iou", self.state.held_out_iou),
            champion_iou=found.get("champion_iou", self.state.champion_iou),
        )
        if job is not None:
            job.progress(step, max(steps, 1), phase.value)
