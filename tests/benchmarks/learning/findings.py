"""What the measurements say: the checks that must hold, and the table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from segzero_ml.tiny.scenes import Style
from tests.benchmarks.learning.plan import MOST_CORRECTIONS

STYLES: Final[tuple[Style, ...]] = ("shifted", "plain")
LEAST_GAIN: Final = 0.10
MOST_LOSS: Final = 0.02
MOST_CPU_S: Final = 20 * 60.0
_ROUNDING: Final = 1e-9

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One promise.

    Args:
        text: What was promised, and what was found.
        holds: Whether it was kept.
    """

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Learnt:
    """One project, before and after its round.

    Args:
        name: Of the project.
        is_shuffled: Whether its corrections had the masks of other pictures.
        loop: What happened in it, see `loop.run`.
        before: Reports of `segzero_ml.evaluate` of the base, by style.
        after: The same of what serves after the round, by style.
    """

    name: str
    is_shuffled: bool
    loop: Report
    before: Mapping[Style, Report]
    after: Mapping[Style, Report]

    def gain(self, style: Style, figure: str = "gIoU") -> float:
        """By how much a figure rose."""
        return float(self.after[style][figure]) - float(self.before[style][figure])


def checks(one: Learnt) -> Iterator[Check]:
    """What must hold for one project."""
    promoted = bool(one.loop["promoted"])
    if one.is_shuffled:
        phase = one.loop["round"]["phase"]
        text = f"the gate kept wrong corrections out: the round is {phase}"
        yield Check(text, phase == "kept" and not promoted)
        return
    loop = one.loop
    yield Check("the round's model was promoted", promoted)
    served = loop["served"]
    yield Check("Label Studio shows it on the next prediction", promoted and bool(served))
    corrections = loop["annotator"]["corrections"]
    text = f"{corrections} corrections, at most {MOST_CORRECTIONS}"
    yield Check(text, corrections <= MOST_CORRECTIONS)
    cpu = float(loop["cpu_seconds"])
    yield Check(f"{cpu / 60:.1f} CPU minutes, at most {MOST_CPU_S / 60:g}", cpu <= MOST_CPU_S)
    shifted, plain = one.gain("shifted"), one.gain("plain")
    text = f"shifted gIoU {100 * shifted:+.1f} points, at least {100 * LEAST_GAIN:+g}"
    yield Check(text, shifted >= LEAST_GAIN - _ROUNDING)
    text = f"plain gIoU {100 * plain:+.1f} points, at least {-100 * MOST_LOSS:+g}"
    yield Check(text, plain >= -MOST_LOSS - _ROUNDING)
    for style in STYLES:
        fall = one.gain(style, "n_acc")
        text = f"N-acc on {style} scenes {100 * fall:+.1f} points, at least +0"
        yield Check(text, fall >= -_ROUNDING)


def table(all_of_them: Sequence[Learnt]) -> str:
    """A row for each project, in Markdown."""
    head = ["seed", "corrections", "accepted", "steps", "CPU", "promoted"]
    for style in STYLES:
        head += [f"{style} gIoU", "N-acc", "unreadable"]
    rows = [head, ["---"] * len(head)]
    for one in all_of_them:
        annotator = one.loop["annotator"]
        rows.append(
            [
                one.name,
                str(annotator["corrections"]),
                str(annotator["accepted"]),
                str(one.loop["steps"]),
                f"{float(one.loop['cpu_seconds']) / 60:.1f} min",
                "yes" if one.loop["promoted"] else "no",
                *(cell for style in STYLES for cell in _cells(one, style)),
            ]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(one: Learnt, style: Style) -> list[str]:
    before, after = one.before[style], one.after[style]
    pairs = {
        figure: (float(before[figure]), float(after[figure]))
        for figure in ("gIoU", "n_acc", "format_errors")
    }
    giou, n_acc, unreadable = pairs["gIoU"], pairs["n_acc"], pairs["format_errors"]
    return [
        f"{giou[0]:.3f} → {giou[1]:.3f}",
        f"{n_acc[0]:.2f} → {n_acc[1]:.2f}",
        f"{100 * unreadable[0]:.1f} % → {100 * unreadable[1]:.1f} %",
    ]
