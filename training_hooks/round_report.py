"""What a round tells people: its outcome as `report.html` wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from training_hooks.comparison import Outcome, pictures
from training_hooks.report import RoundReport
from training_hooks.report_charts import Curve
from training_hooks.round_options import RoundOptions
from training_hooks.snapshot import Snapshot
from training_hooks.snapshot_manifest import left_out_words
from training_hooks.steps import Step
from training_hooks.train import Trained


def report_of(
    snapshot: Snapshot,
    outcome: Outcome,
    trained: Trained,
    options: RoundOptions,
    costs: Mapping[str, float],
    round_id: str,
    champion: Path | None,
    note: str = "",
) -> RoundReport:
    """The report of a round that is whole.

    Args:
        snapshot: What it learnt from and was judged by.
        outcome: What became of it.
        trained: What it left.
        options: How it learnt.
        costs: Names and values, as in `result.json`.
        round_id: Names it.
        champion: Folder of the adapter that served; None for the base.
        note: What it says besides.
    """
    project = snapshot.manifest.project
    return RoundReport(
        project=f"{project.label_studio}, project {project.project}",
        round_id=round_id,
        champion="base" if champion is None else champion.name,
        challenger=outcome.best.name,
        finished_at=datetime.now(UTC),
        verdict=outcome.verdict,
        curves=curves_of(trained.steps),
        pictures=pictures(outcome, snapshot.held_out, snapshot.folder),
        facts=(
            *((("Note", note),) if note else ()),
            ("Snapshot", snapshot.id),
            ("Learnt from", f"{len(snapshot.train)} requests"),
            ("Judged by", f"{len(snapshot.held_out)} requests"),
            ("Left out", left_out_words(snapshot.manifest.left_out) or "nothing"),
            ("Steps", str(len(trained.steps))),
            ("Learning rate, rank", f"{options.learning_rate:g}, {options.rank}"),
            ("Share kept", f"{outcome.share:.2g}"),
            ("Rollouts, prompts a step", f"{options.rollouts}, {options.prompts_per_step}"),
            *((name.replace("_", " ").capitalize(), f"{value:g}") for name, value in costs.items()),
        ),
    )


def curves_of(steps: Sequence[Step]) -> tuple[Curve, ...]:
    """Every reward and whatever else was logged, over the steps."""
    names = dict.fromkeys(name for step in steps for name in step.figures)
    shown = [name for name in names if name.startswith("reward") or name in ("kl", "entropy")]
    return tuple(
        Curve(
            name,
            tuple(
                (float(step.number), step.figures[name]) for step in steps if name in step.figures
            ),
        )
        for name in shown
    )
