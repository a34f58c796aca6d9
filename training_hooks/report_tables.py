"""The tables of a round's report: checks, figures, kinds, faithfulness, facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from training_hooks.faithfulness import Faithfulness
from training_hooks.gate import Outcome, Verdict
from training_hooks.gate_figures import Comparison, Figures
from training_hooks.markup import Content, Html, el, foreign

_Row = tuple[str, str, str, str]

_SIGNS = {
    Outcome.PASSED: "✓ passed",
    Outcome.FAILED: "✗ failed",
    Outcome.NOT_MEASURED: "not measured",
}
_UNKNOWN = "\N{EN DASH}"
_CLASSES = {Outcome.PASSED: "good", Outcome.FAILED: "bad", Outcome.NOT_MEASURED: "faint"}


def checks_table(verdict: Verdict) -> Html:
    """What the gate looked at, one row per check."""
    rows = [
        el(
            "tr",
            el("th", check.name, scope="row"),
            el("td", el("span", _SIGNS[check.outcome], class_=_CLASSES[check.outcome])),
            el("td", check.text),
        )
        for check in verdict.checks
    ]
    return _table(("Check", "Outcome", "What was found"), rows, "words")


def figures_table(comparison: Comparison) -> Html:
    """Champion and challenger on the same cases."""
    before, after = comparison.champion, comparison.challenger
    return _compared(
        [
            _counts("Cases", before.cases, after.cases),
            _counts("Images", before.images, after.images),
            _numbers("Mean mask IoU (gIoU)", before.mean_iou, after.mean_iou),
            _numbers(
                "Mean mask IoU of requests with a target",
                before.mean_iou_with_target,
                after.mean_iou_with_target,
            ),
            _numbers("cIoU", before.ciou, after.ciou),
            _numbers(
                f"N-acc ({before.without_target} without a target)", before.n_acc, after.n_acc
            ),
            _shares("Format errors", before.format_errors, after.format_errors),
            _seconds("Seconds, median", before.seconds_median, after.seconds_median),
            _seconds("Seconds, 95 % of answers within", before.seconds_p95, after.seconds_p95),
        ]
    )


def kinds_table(comparison: Comparison) -> Html:
    """Mean mask IoU by kind of request or label."""
    rows = [
        el(
            "tr",
            el("th", foreign(one.kind or "(none)", 120), scope="row"),
            el("td", str(one.cases)),
            el("td", f"{one.champion_iou:.3f}"),
            el("td", f"{one.challenger_iou:.3f}"),
            el("td", f"{one.challenger_iou - one.champion_iou:+.3f}"),
        )
        for one in comparison.kinds
    ]
    return _table(("Kind or label", "Cases", "Champion", "Challenger", "Difference"), rows)


def faithfulness_table(figures: Figures) -> Html:
    """How much the answers hang on the thoughts; says so where it was not measured."""
    both = (figures.champion_faithfulness, figures.challenger_faithfulness)
    if both == (None, None):
        return el("p", "It was not measured in this round.", class_="faint")
    nothing = Faithfulness(0, 0, None, None, 0, None, None, 0, None)
    before, after = (one or nothing for one in both)
    rows: list[_Row] = [
        _counts("Answers looked at", before.samples, after.samples),
        _shares(
            "Answer changes when the thinking is removed",
            before.removed_changed,
            after.removed_changed,
        ),
        _numbers("IoU with the answer without thinking", before.removed_iou, after.removed_iou),
        _shares(
            "Answer changes with another sample's thinking",
            before.swapped_changed,
            after.swapped_changed,
        ),
        _numbers(
            "IoU with the answer after another's thinking", before.swapped_iou, after.swapped_iou
        ),
        _shares("Note names what the answer shows", before.named, after.named),
    ]
    return _compared(rows)


def facts_table(facts: Iterable[tuple[str, str]]) -> Html:
    """Names and values."""
    rows = [
        el("tr", el("th", name, scope="row"), el("td", foreign(value))) for name, value in facts
    ]
    return el("table", el("tbody", rows), class_="words")


def _counts(name: str, before: int, after: int) -> _Row:
    return name, str(before), str(after), ""


def _numbers(name: str, before: float | None, after: float | None) -> _Row:
    return _row(name, before, after, ".3f")


def _shares(name: str, before: float | None, after: float | None) -> _Row:
    return _row(name, before, after, ".1%")


def _seconds(name: str, before: float | None, after: float | None) -> _Row:
    return _row(name, before, after, ".2f")


def _row(name: str, before: float | None, after: float | None, form: str) -> _Row:
    shown = [_UNKNOWN if value is None else format(value, form) for value in (before, after)]
    change = None if before is None or after is None else after - before
    return name, shown[0], shown[1], _UNKNOWN if change is None else format(change, "+" + form)


def _compared(rows: Iterable[_Row]) -> Html:
    return _table(
        ("", "Champion", "Challenger", "Difference"),
        [
            el("tr", el("th", name, scope="row"), (el("td", value) for value in values))
            for name, *values in rows
        ],
    )


def _table(heads: Sequence[str], rows: Content, class_: str | None = None) -> Html:
    head = el("thead", el("tr", (el("th", name, scope="col") for name in heads)))
    return el("table", head, el("tbody", rows), class_=class_)
