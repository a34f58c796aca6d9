"""RQ's worker, with what it lacks for running unattended.

- It runs `AllowedJob`s only; others become dead letters without anything being imported.
- Its child process, the work horse, dies with it; and the child that runs a job somebody else
  has taken over is killed at the next heartbeat.
- Every change of a job is one transaction (`queue_moves`), and the child waits for a Redis
  that is away before it records how the job ended.
- Forgotten and abandoned jobs are picked up within seconds (`queue_rescue`), but not right
  after Redis was away: whoever runs a job needs a moment to say so again.
- It takes no commands by publish/subscribe, so it has no second thread to fork with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, Worker, worker_registration
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.timeouts import HorseMonitorTimeoutException, JobTimeoutException
from rq.utils import now

from training_hooks import queue_moves, queue_rescue
from training_hooks.failures import summarise
from training_hooks.job_errors import JobCancelledError
from training_hooks.processes import die_with_parent, ending
from training_hooks.queue_jobs import AllowedJob, JsonSerializer
from training_hooks.queue_moves import GuardedQueue, Move
from training_hooks.running_job import forget_request
from training_hooks.worker_options import WorkerOptions

_log = logging.getLogger(__name__)

_LONGEST_PAUSE_S: Final = 5.0
_OVERTIME_S: Final = 30
_SAME_REQUEST_S: Final = 1.0  # a terminal and a supervisor may both send a signal


class GuardedWorker(Worker):
    """A worker of one queue. `run_worker` starts it, and starts it again when it ends.

    Args:
        queue_name: The queue.
        connection: Redis; replies must be bytes.
        job_class: From `bind`: what may run.
        name: Unique among all workers.
        options: Intervals.
        quiet_until: Monotonic seconds before which nothing counts as abandoned.
    """

    queue_class = GuardedQueue
    max_connection_wait_time = _LONGEST_PAUSE_S

    def __init__(
        self,
        queue_name: str,
        connection: Redis,
        job_class: type[AllowedJob],
        name: str,
        options: WorkerOptions,
        quiet_until: float = 0.0,
    ) -> None:
        self.options = options
        super().__init__(
            [queue_name],
            name=name,
            connection=connection,
            job_class=job_class,
            serializer=JsonSerializer,
            worker_ttl=options.abandon_after_s,
            maintenance_interval=options.tidy_every_s,
            job_monitoring_interval=options.heartbeat_s,
            log_job_description=False,
        )
        self.interrupted = False
        self._taken_over = False
        self._can_interrupt = False
        self._asked_at = self._stop_at = float("inf")
        self._quiet_until = quiet_until
        self._beat_at = time.monotonic()
        self._popped_since: dict[str, float] = {}

    # The loop ---------------------------------------------------------------------------

    def work(self, burst: bool = False, **_: Any) -> bool:  # type: ignore[override]
        """Run jobs until told to stop, or with `burst` until none waits.

        Raises:
            RedisError: Redis is away, or refuses; the worker is to be started again.
        """
        worked = False
        try:
            self.bootstrap(logging_level=None)
            while not self._stop_requested:
                found = self._next_job(None if burst else self.dequeue_timeout)
                if found is None:
                    break
                self.execute_job(*found)
                worked = True
        finally:
            with contextlib.suppress(RedisError):
                self.teardown()  # type: ignore[no-untyped-call]
        return worked

    def _next_job(self, timeout: int | None) -> tuple[Job, Queue] | None:
        try:
            self._can_interrupt = True
            return self.dequeue_job_and_maintain_ttl(timeout)
        except StopRequested:
            return None
        finally:
            self._can_interrupt = False

    @property
    def dequeue_timeout(self) -> int:
        """Seconds to wait for a job before tidying up."""
        return self.options.poll_s

    def subscribe(self) -> None:
        """Subscribes to nothing: commands by message may get lost, and need a thread."""

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Stop after the running job, or when its grace is over; at once if idle.

        Raises:
            StopRequested: The worker is waiting for a job; its loop catches this.
        """
        at = time.monotonic()
        if not self._stop_requested:
            self._stop_requested, self._asked_at = True, at
            self._stop_at = at + self.options.stop_grace_s
        elif at - self._asked_at > _SAME_REQUEST_S:
            self._stop_at = at
        if self._can_interrupt:
            raise StopRequested

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Say that the worker is alive; for `abandon_after_s` if nothing else is said."""
        alive_s = timeout or self.options.abandon_after_s
        if pipeline is not None:
            super().heartbeat(alive_s, pipeline)
            return
        with self.connection.pipeline() as pipe:
            super().heartbeat(alive_s, pipe)
            pipe.hexists(self.key, "birth")
            *_, known = pipe.execute()
        if not known:
            self._register_again()
        self._note_contact()

    def _register_again(self) -> None:
        """Redis forgot this worker: it lost its data, or was away for long."""
        with self.connection.pipeline() as pipe:
            pipe.hset(self.key, mapping=self.serialize())
            worker_registration.register(self, pipe)
            pipe.expire(self.key, self.options.abandon_after_s)
            pipe.execute()

    def _note_contact(self) -> None:
        """Redis answered. After a gap, others too need time to renew what they run."""
        at = time.monotonic()
        if at - self._beat_at > self.options.abandon_after_s / 2:
            self._quiet_until = at + self.options.abandon_after_s
        self._beat_at = at

    def run_maintenance_tasks(self) -> None:
        """Look after scheduled, forgotten and abandoned jobs."""
        (queue,) = self.queues
        queue_rescue.promote_due(queue)
        queue_rescue.rescue_popped(queue, self._popped_since, self.options.abandon_after_s)
        if time.monotonic() >= self._quiet_until and self._redis_is_settled():
            queue_rescue.rescue_abandoned(queue)
        queue_rescue.forget_expired(queue)
        worker_registration.clean_worker_registry(queue)
        self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ declares it None

    def _redis_is_settled(self) -> bool:
        up = self.connection.info("server").get("uptime_in_seconds", 0)
        return int(up) > self.options.abandon_after_s

    # One job, in the worker -------------------------------------------------------------

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a popped job in a process of its own, unless it is refused or not ours."""
        # A damaged job may name another queue, whose registries would then be used.
        job.origin = queue.name
        refusal = job.refusal() if isinstance(job, AllowedJob) else "Refused: not of this project."
        if refusal is not None:
            queue_moves.bury(queue, job, refusal)
            return
        execution = queue_moves.claim(queue, job, self.name, self.options.abandon_after_s)
        if execution is None:
            _log.info("Job %s waits no more; left alone.", job.id)
            return
        self.executions[execution.id] = execution
        self.set_state("busy")
        self.fork_work_horse(job, queue)
        self.monitor_work_horse(job, queue, execution)
        self.executions.pop(execution.id, None)
        self.set_state("idle")

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Start the process that runs the job: in a group of its own, and dying with us."""
        worker = os.getpid()
        horse = os.fork()
        if horse == 0:
            status = 1
            try:
                os.setpgid(0, 0)
                die_with_parent(worker)
                self.setup_work_horse_signals()  # type: ignore[no-untyped-call]
                self._is_horse = True
                self.perform_job(job, queue, next(iter(self.executions.values())))
                status = 0
            except BaseException as error:  # noqa: BLE001 - nothing may get past the fork
                _log.critical("Job %s could not be recorded: %s", job.id, summarise(error))
            finally:
                os._exit(status)
        # Also from this side: until it is in its own group, killing its group kills ours.
        with contextlib.suppress(OSError):
            os.setpgid(horse, horse)
        self._horse_pid = horse

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Wait for the horse, with a heartbeat now and then; settle what it could not."""
        self._taken_over = False
        started, horse = time.monotonic(), self._horse_pid
        status: int | None = None
        while True:
            try:
                with self.death_penalty_class(
                    self.options.heartbeat_s, HorseMonitorTimeoutException
                ):
                    _, status, _ = self.wait_for_horse()
                break
            except HorseMonitorTimeoutException:
                self._watch_over(job, queue, execution, time.monotonic() - started)
        self._horse_pid = 0
        if status == 0:
            return
        # What it left behind in its group must not go on either.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(horse, signal.SIGKILL)
        if self._taken_over:
            return
        if self.interrupted:
            self._patiently(lambda: queue_moves.put_back(queue, job, execution))
            _log.warning("Job %s was interrupted and put back.", job.id)
            return
        reason = f"Its process {ending(status)}."
        move = self._patiently(lambda: queue_moves.settle_failure(queue, job, execution, reason))
        if move is not Move.LOST:
            _log.error("Job %s failed, now %s: %s", job.id, move, reason)

    def _watch_over(self, job: Job, queue: Queue, execution: Execution, ran_s: float) -> None:
        """One heartbeat. Kills the horse if it must not go on."""
        try:
            ours = queue_moves.renew(queue, execution, self.options.abandon_after_s)
            self.heartbeat()
        except RedisError as error:
            _log.warning("Job %s goes on without Redis: %s", job.id, type(error).__name__)
            ours = True
        if not ours:
            _log.warning("Job %s is over or was taken over; ending its process.", job.id)
            self._taken_over = True
        elif time.monotonic() >= self._stop_at:
            self.interrupted = True
        # It should have ended itself at its time limit.
        overdue = ran_s > float(job.timeout or 0) + _OVERTIME_S
        if self._taken_over or self.interrupted or overdue:
            self.kill_horse()

    def _patiently(self, settle: Callable[[], Move]) -> Move:
        """Do it as soon as Redis is there."""
        pause = 0.2
        while True:
            try:
                return settle()
            except RedisError as error:
                _log.warning("Waiting for Redis to record a job: %s", type(error).__name__)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    # One job, in its own process --------------------------------------------------------

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Run the job and record how it ended. Called in the horse."""
        summary = ""
        value: Any = None
        try:
            with self.death_penalty_class(int(job.timeout or 1), JobTimeoutException):
                value = job.perform()
        except JobCancelledError:
            move = self._patiently(lambda: queue_moves.settle_cancelled(queue, job, execution))
            self._patiently(lambda: _forgotten(job))
            _log.info("Job %s was cancelled: %s.", job.id, move)
            return True
        except (Exception, SystemExit) as error:  # noqa: BLE001 - all a job raises is its failure
            summary = summarise(error)
        if summary:
            move = self._patiently(
                lambda: queue_moves.settle_failure(queue, job, execution, summary)
            )
            _log.error("Job %s failed, now %s: %s", job.id, move, summary)
            return False
        ttl_s = job.get_result_ttl(self.default_result_ttl)
        move = self._patiently(
            lambda: queue_moves.settle_success(queue, job, execution, value, max(1, ttl_s))
        )
        _log.info("Job %s: %s.", job.id, move)
        return True


def _forgotten(job: Job) -> Move:
    forget_request(job.id, job.connection)
    return Move.FINISHED
