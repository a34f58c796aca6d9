"""The report for people: short lines, and tables no wider than a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from backend.commands.console import no_worker_of
from backend.learning.installed import HOW_TO_INSTALL, can_train
from backend.learning.round_state import Phase
from backend.learning.round_words import one_line
from backend.ready import BackendView
from backend.report import Numbers, RedisView, Report, SpoolView
from segzero_ml.corrections import Correction, Verdict
from training_hooks.dead_letters import DeadLetter
from training_hooks.queues import QueueName

_GOOD, _BAD, _WARN, _FAINT = "green", "bold red", "yellow", "dim"
_ROUND_STYLES = {
    Phase.PROMOTED: _GOOD,
    Phase.FAILED: _BAD,
    Phase.WAITING: _WARN,
    Phase.REFUSED: _WARN,
}


def parts(report: Report) -> Iterator[RenderableType]:
    """What to print, from top to bottom."""
    yield _states(report)
    if report.numbers is not None:
        yield _queues(report.numbers)
        yield from _missing_workers(report.numbers)
        yield from _dead_letters(report.dead_letters, report.at)
        yield from _projects(report.numbers, report.at)
        yield from _rounds(report.numbers, report.at)
        yield from _recent(report.recent, report.at)


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that says enough."""
    aware = moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)
    return f"{duration(max(0.0, (now - aware).total_seconds()))} ago"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that says enough."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def figure(value: float | None, pattern: str) -> str:
    """A number in a format, or a dash for none."""
    return "-" if value is None else format(value, pattern)


def size(number: int) -> str:
    """Bytes in a readable unit."""
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number} bytes"


def _states(report: Report) -> Table:
    """The parts and how each does, under each other."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Text("Redis", style="bold"), _redis(report.redis))
    grid.add_row(Text("Backend", style="bold"), _backend(report.backend))
    grid.add_row(Text("Spool", style="bold"), _spool(report.spool))
    return grid


def _redis(redis: RedisView) -> Text:
    if not redis.up:
        return _remedied(Text.assemble(("away  ", _BAD), redis.problem), redis.remedy)
    lines = Text.assemble(("up", _GOOD), f"  {redis.address}")
    for warning in redis.warnings:
        lines.append(f"\n{warning}", style=_WARN)
    return lines


def _backend(backend: BackendView) -> Text:
    if not backend.runs:
        return Text(f"does not answer at {backend.address}", style=_WARN)
    line = Text(backend.state, style=_GOOD if backend.state == "ready" else _WARN)
    line.append(f"  {backend.address}", style="default")
    if backend.model_version:
        line.append(f"  {backend.model_version}", style=_FAINT)
    return line.append(f"\n{backend.detail}") if backend.detail else line


def _spool(view: SpoolView) -> Text:
    line, found = Text(), view.survey
    if found is None:
        line.append("cannot be read", style=_BAD)
    elif found.depth:
        waiting = "1 webhook waits" if found.depth == 1 else f"{found.depth} webhooks wait"
        line.append(waiting, style=_BAD if view.alarm else "")
        if found.oldest_age_s is not None:
            line.append(f", the oldest for {duration(found.oldest_age_s)}")
        line.append(f"; {size(found.bytes)} of {size(view.capacity_bytes)}")
    else:
        line.append("empty", style=_GOOD).append(f"  {view.folder}", style=_FAINT)
    if view.alarm:
        line.append(f"\n{view.alarm}", style=_BAD)
        line = _remedied(line, view.remedy)
    if found is not None and found.quarantined:
        line.append(
            f"\n{found.quarantined} damaged places were found and set aside in its folder "
            "quarantine; segzero sync brings back what was lost there.",
            style=_WARN,
        )
    return line


def _remedied(line: Text, remedy: str) -> Text:
    return line.append(f"\nWhat to do: {remedy}") if remedy else line


def _queues(numbers: Numbers) -> Table:
    table = _table(
        "Queues", "Queue", "Waiting", "Running", "Later", "Dead", "Workers", numbers_from=1
    )
    for name, depth in numbers.queues.items():
        dead = Text(str(depth.dead), style=_BAD if depth.dead else "")
        idle = not depth.workers and (depth.waiting or depth.scheduled)
        workers = Text(str(depth.workers), style=_BAD if idle else "")
        table.add_row(
            name.value,
            *(str(number) for number in (depth.waiting, depth.running, depth.scheduled)),
            dead,
            workers,
        )
    return table


def _missing_workers(numbers: Numbers) -> Iterator[Text]:
    """Which queues wait for nobody, and what would change that."""
    for name, depth in numbers.queues.items():
        if depth.waiting and not depth.workers:
            lacks = name == QueueName.TRAIN and not can_train()
            remedy = f" What trains is not installed here. {HOW_TO_INSTALL}" if lacks else ""
            yield Text(no_worker_of(name) + remedy, style=_WARN)


def _dead_letters(letters: Sequence[DeadLetter], now: datetime) -> Iterator[RenderableType]:
    if not letters:
        return
    table = _table("Dead letters", "Failed", "Job", "Function", "Why")
    for letter in letters:
        why = Text(letter.reason)
        if not letter.can_retry:
            why.append(" (cannot be tried again)", style=_FAINT)
        table.add_row(ago(letter.at, now), Text(letter.job_id), Text(letter.function), why)
    yield table
    yield Text("Try again: segzero retry JOB, or segzero retry --all", style=_FAINT)


def _projects(numbers: Numbers, now: datetime) -> Iterator[RenderableType]:
    if not numbers.projects:
        yield Text("There are no corrections yet.", style=_FAINT)
        return
    counts = _table(
        "Corrections", "Project", "All", *map(words, Verdict), "No truth", numbers_from=1
    )
    rates = _table(
        "What they say of the predictions",
        "Project",
        "Accepted",
        "Edit IoU",
        "Time with prediction",
        "without",
        "Compared",
        numbers_from=1,
    )
    several = len({view.key.label_studio for view in numbers.projects}) > 1
    for view in numbers.projects:
        name = f"{view.key.label_studio} / {view.key.project}" if several else str(view.key.project)
        found = view.statistics
        verdicts = (str(found.verdicts[verdict]) for verdict in Verdict)
        counts.add_row(Text(name), str(found.corrections), *verdicts, str(found.withdrawn))
        rates.add_row(
            Text(name),
            figure(found.accept_rate, ".0%"),
            figure(found.mean_edit_iou, ".2f"),
            *(
                "-" if seconds is None else f"{seconds:.1f} s"
                for seconds in (found.median_lead_time_shown_s, found.median_lead_time_alone_s)
            ),
            "never" if view.reconciled_at is None else ago(view.reconciled_at, now),
        )
    yield counts
    yield rates


def _rounds(numbers: Numbers, now: datetime) -> Iterator[RenderableType]:
    """The newest round of each project that had one."""
    found = [(view.key.project, view.round) for view in numbers.projects if view.round is not None]
    if not found:
        return
    table = _table("Training", "Project", "Round", "Since", "How it stands")
    for project, state in found:
        since = state.ended_at or state.started_at
        words = Text(one_line(state), style=_ROUND_STYLES.get(state.phase, ""))
        if state.text:
            words.append(f"\n{state.text}", style="default")
        if state.report:
            words.append(f"\n{state.report}", style=_FAINT)
        table.add_row(
            str(project), Text(state.round), ago(datetime.fromisoformat(since), now), words
        )
    yield table


def _recent(corrections: Sequence[Correction], now: datetime) -> Iterator[RenderableType]:
    if corrections:
        yield corrections_table("Saved last", corrections, now)


def corrections_table(title: str, corrections: Sequence[Correction], now: datetime) -> Table:
    """Corrections, a row each."""
    table = _table(title, "Saved", "Project", "Task", "Id", "Verdict", "IoU", "User", "Request")
    table.columns[-1].no_wrap = True
    for one in corrections:
        table.add_row(
            ago(one.revision.updated_at, now),
            str(one.key.project),
            str(one.task),
            str(one.key.annotation),
            words(one.verdict),
            figure(one.edit_iou, ".2f"),
            "-" if one.annotator is None else str(one.annotator),
            Text(one.request, overflow="ellipsis"),
        )
    return table


def words(verdict: Verdict) -> str:
    """A verdict as people say it."""
    return verdict.value.replace("_", " ").capitalize()


def _table(name: str, *titles: str, numbers_from: int | None = None) -> Table:
    table = Table(title=name, title_justify="left", title_style="bold")
    for place, title in enumerate(titles):
        is_number = numbers_from is not None and place >= numbers_from
        table.add_column(title, justify="right" if is_number else "left")
    return table
