"""The report of a round: one HTML file that says what was learnt and why it was (not) promoted.

The page needs nothing but itself: no script, no network, pictures as data. Its security
policy forbids everything else, and all text is escaped: requests, notes and labels come from
anybody who may annotate.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from training_hooks.gate import Verdict
from training_hooks.markup import Content, Html, el, foreign, join
from training_hooks.report_charts import Curve, curve_chart, interval_chart
from training_hooks.report_pictures import Picture
from training_hooks.report_style import STYLE
from training_hooks.report_tables import (
    checks_table,
    facts_table,
    faithfulness_table,
    figures_table,
    kinds_table,
)

__all__ = ["Curve", "Picture", "RoundReport", "render", "write_report"]

_GROUPS: Final = {
    "best": "Where the challenger gained most",
    "worst": "Where it lost most",
    "random": "Others, by chance",
}
_FAITHFULNESS: Final = (
    "Reasoning is checked, not trusted. A model whose answers do not change when its thinking "
    "is removed or replaced does not need the thinking it shows. Nothing is decided on this."
)
_LEGEND: Final = (
    "White: the model and the truth agree. Orange stripes: missed. Blue stripes: too much."
)


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What a report says.

    Args:
        project: Name of the project.
        round_id: Names the round.
        champion: Version that served when the round began.
        challenger: Version that the round made.
        finished_at: When, with its time zone.
        verdict: What the gate says.
        curves: Every reward, and whatever else was measured, over the steps.
        pictures: Cases before and after.
        facts: Names and values worth keeping, such as the snapshot's id and counts, the
            settings, time and memory.
    """

    project: str
    round_id: str
    champion: str
    challenger: str
    finished_at: datetime
    verdict: Verdict
    curves: tuple[Curve, ...] = ()
    pictures: tuple[Picture, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def write_report(path: Path, report: RoundReport) -> None:
    """Write a report; whoever opens the file meanwhile sees the old one or the new one.

    Args:
        path: The file, `report.html`; its folder exists.
        report: What it says.

    Raises:
        OSError: The file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(render(report))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def render(report: RoundReport) -> str:
    """The page as text."""
    title = f"Round {report.round_id}: {_headline(report.verdict)}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_policy(STYLE)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        # A browser reads a style sheet as it stands; ours holds nothing to be escaped.
        Html(f"<style>{STYLE}</style>"),
    )
    page = el("html", head, el("body", el("main", _sections(report))), lang="en")
    return f"<!doctype html>\n{page.text}\n"


def _policy(style: str) -> str:
    """Pictures from data and this very style sheet; nothing else is loaded, run or sent."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _headline(verdict: Verdict) -> str:
    return "better" if verdict.promote else "not better"


def _sections(report: RoundReport) -> Iterator[Html]:
    figures = report.verdict.figures
    yield _summary(report)
    yield _section("What the gate looked at", checks_table(report.verdict))
    yield _section("Held-out images", figures_table(figures.held_out))
    if figures.older.champion.cases:
        yield _section("Older corrections", figures_table(figures.older))
    if figures.rehearsed.champion.cases:
        yield _section("What is rehearsed", figures_table(figures.rehearsed))
    if len(figures.held_out.kinds) > 1:
        yield _section("By kind or label", kinds_table(figures.held_out))
    yield _section(
        "Does the answer hang on the thinking?",
        el("p", _FAITHFULNESS, class_="faint"),
        faithfulness_table(figures),
    )
    if report.curves:
        charts = (curve_chart(curve) for curve in report.curves)
        yield _section("Over the steps of the round", el("div", charts, class_="curves"))
    if report.pictures:
        yield _section(
            "Before and after", el("p", _LEGEND, class_="faint"), join(_pictures(report))
        )
    yield _section("The round", facts_table([*_own_facts(report), *report.facts]))


def _section(title: str, *children: Content) -> Html:
    return el("section", el("h2", title), *children)


def _summary(report: RoundReport) -> Html:
    verdict = report.verdict
    promoted = verdict.promote
    gain = verdict.figures.held_out.gain
    title = (
        "Better: the challenger passed the gate" if promoted else "Not better: the champion stays"
    )
    return el(
        "section",
        el("h1", title),
        el(
            "p",
            foreign(report.project, 120),
            f" · round {report.round_id} · {report.finished_at:%Y-%m-%d %H:%M %Z}",
            class_="faint",
        ),
        "" if gain is None else interval_chart(gain),
        el("p", "Gain in mean mask IoU on held-out images, with its interval.", class_="faint")
        if gain is not None
        else "",
        el("ul", (el("li", reason) for reason in verdict.reasons)),
        class_="promoted" if promoted else "kept",
    )


def _pictures(report: RoundReport) -> Iterator[Html]:
    for group, title in _GROUPS.items():
        found = [picture for picture in report.pictures if picture.group == group]
        if found:
            yield el("h3", title)
            yield join(_case(picture) for picture in found)


def _case(picture: Picture) -> Html:
    kind = (" · ", foreign(picture.kind, 80)) if picture.kind else ()
    return el(
        "div",
        el("p", "“", foreign(picture.request), "”", el("span", kind, class_="faint")),
        el(
            "div",
            _panel(picture.image, "Image", "", ""),
            _panel(
                picture.before,
                "Champion",
                f"IoU {picture.champion_iou:.2f}",
                picture.champion_note,
            ),
            _panel(
                picture.after,
                "Challenger",
                f"IoU {picture.challenger_iou:.2f}",
                picture.challenger_note,
            ),
            class_="panels",
        ),
        class_="case",
    )


def _panel(png: bytes, title: str, figure: str, note: str) -> Html:
    caption = f"{title} · {figure}" if figure else title
    return el(
        "figure",
        el("img", src=f"data:image/png;base64,{base64.b64encode(png).decode()}", alt=caption),
        el("figcaption", caption, (": ", foreign(note)) if note else ""),
    )


def _own_facts(report: RoundReport) -> Iterator[tuple[str, str]]:
    yield "Project", report.project
    yield "Round", report.round_id
    yield "Champion", report.champion
    yield "Challenger", report.challenger
    yield "Finished", f"{report.finished_at:%Y-%m-%d %H:%M:%S %Z}"
