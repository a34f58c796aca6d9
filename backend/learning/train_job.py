"""The job that runs a round of training for a project: one trainer, whatever happens.

It holds the project's lock, asks the policy whether there is to be a round at all, and carries
one through (`round_run`). It may be killed at any point and tried again: the next try finds in
`round_state` what this one had begun.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from backend.learning.facts import gather, local_now, policy_options
from backend.learning.folders import locks_folder, loop_name, rounds_folder
from backend.learning.patience import patiently
from backend.learning.round_run import RoundRun, Work
from backend.learning.round_state import Phase, RoundState, read_state, write_state
from backend.learning.tidy import tidy_rounds
from backend.learning.trainer import RoundFailedError
from backend.model_folders import registry_of
from backend.redis_access import open_redis
from backend.settings import load_settings
from segzero_ml.durable import replace_file
from segzero_ml.errors import ConfigError, InputError, SegZeroError, WeightsError
from training_hooks.failures import reason_line
from training_hooks.fence import acquire
from training_hooks.job_errors import JobCancelledError, StaleFenceError
from training_hooks.loop_reader import note_end, note_start
from training_hooks.policy import Decision, decide
from training_hooks.round_files import OUTCOME
from training_hooks.running_job import RunningJob
from training_hooks.store_values import ProjectKey

_log = logging.getLogger(__name__)

_LASTING: Final = (RoundFailedError, ConfigError, InputError, WeightsError)
"""What trying again would not help against."""


def run(project: int, by_hand: bool = False) -> dict[str, Any]:
    """Run a round for a project, or go on with the one that this job began.

    Args:
        project: Its id.
        by_hand: Whether a person asked: a round needs no other reason then.

    Returns:
        What came of it.

    Raises:
        JobCancelledError: Somebody asked for its end.
        TrainerBusyError: Another process trains this project.
        SegZeroError: It failed; the job is tried again where that may help.
    """
    settings = load_settings()
    job = RunningJob.current()
    redis = open_redis(settings, "segzero-train") if job is None else job.connection
    name = loop_name(settings, project)
    with acquire(name, locks_folder(settings), redis) as fence:
        key = ProjectKey(settings.label_studio_name, project)
        work = Work(settings, key, name, redis, registry_of(settings, project), fence, job)
        state = _earlier(work)
        if state is None:
            decision = _decide(work, by_hand)
            if not decision.train:
                return {"outcome": "no round", "why": decision.refusal}
            state = _begin(work, decision)
        # After what a later try finds it by; again with each, as one may have died in between.
        note_start(work.store, key, datetime.fromisoformat(state.started_at))
        state = _carry_through(RoundRun(work, state), work)
    return {
        "outcome": state.phase.value,
        "round": state.round,
        "version": state.version,
        "report": state.report,
    }


def _earlier(work: Work) -> RoundState | None:
    """What an earlier try of this very job had begun."""
    state = read_state(work.redis, work.name)
    mine = state is not None and state.job == _job_id(work) and not state.phase.is_over
    return state if mine else None


def _job_id(work: Work) -> str:
    return "" if work.job is None else work.job.job_id


def _decide(work: Work, by_hand: bool) -> Decision:
    options = policy_options(work.settings)
    facts = gather(work.reader, work.project, options, running=False, by_hand=by_hand)
    return decide(facts, options, local_now())


def _begin(work: Work, decision: Decision) -> RoundState:
    state = RoundState(
        job=_job_id(work),
        started_at=datetime.now(UTC).isoformat(),
        reasons=decision.reasons,
    )
    write_state(work.redis, work.name, state)
    _log.info("A round of project %d begins: %s", work.project.project, " ".join(state.reasons))
    return state


def _carry_through(going: RoundRun, work: Work) -> RoundState:
    try:
        going.go()
    except JobCancelledError as error:
        _end(work, going.state, Phase.CANCELLED, error.message)
        raise
    except StaleFenceError:  # what is known of the round is the newer trainer's
        raise
    except SegZeroError as error:
        if isinstance(error, _LASTING) and work.job is not None:
            work.job.forgo_tries()
        if work.job is None or work.job.is_last_try:
            _end(work, going.state, Phase.FAILED, str(error))
        else:
            going.note(phase=Phase.WAITING, text=reason_line(str(error)))
        raise
    return _end(work, going.state, unseen=going.unseen)


def _end(
    work: Work,
    state: RoundState,
    phase: Phase | None = None,
    text: str = "",
    unseen: Collection[int] = (),
) -> RoundState:
    """Record how a round ended, as soon as Redis is there.

    Args:
        work: What the job works with.
        state: How the round stands.
        phase: How it ended where it broke off.
        text: Why.
        unseen: What a whole one did without: it stays new.
    """
    at = datetime.now(UTC)
    ended = replace(state, ended_at=at.isoformat())
    if phase is not None:
        ended = replace(ended, phase=phase, text=reason_line(text))
    mark = ended.mark if ended.phase.is_whole else None  # its corrections stay new otherwise
    if ended.folder:
        _write_outcome(Path(ended.folder), ended)
        rounds = rounds_folder(work.settings, work.project.project)
        tidy_rounds(rounds, work.settings.train_keep_rounds)
    patiently(lambda: note_end(work.store, work.project, at, mark, unseen))
    patiently(lambda: write_state(work.redis, work.name, ended))
    _log.info("The round of project %d ended: %s", work.project.project, ended.text)
    return ended


def _write_outcome(folder: Path, state: RoundState) -> None:
    """Leave in the round's folder what came of it: its report tells of the gate only."""
    try:
        replace_file(folder / OUTCOME, json.dumps(state.to_json(), indent=1).encode())
    except OSError as error:
        _log.warning("%s cannot be written: %s", folder / OUTCOME, error.strerror or error)
