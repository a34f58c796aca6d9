"""The report: what it says, that it needs nothing but itself, and that text stays text."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segzero_ml import masks
from segzero_ml.errors import ConfigError, InputError, MaskError
from tests.training_hooks.gate_cases import case, cases
from tests.training_hooks.report_samples import picture, report, verdict
from training_hooks.bootstrap import Interval
from training_hooks.gate import GateOptions, judge
from training_hooks.markup import el, escaped, foreign
from training_hooks.report import Curve, Picture, RoundReport, render, write_report
from training_hooks.report_charts import curve_chart, interval_chart
from training_hooks.report_pictures import choose, overlay, shown

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></svg><iframe src=//evil.example>",
    "<!-- ",
    "]]><a href=http://evil.example>",
    "&lt;b&gt; &amp; &",
    "javascript:alert(1)",
    "\u202etxet desrever",
    "\x00\x1b[31m\ud800\uffff",
]
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))
QUIET = frozenset({"src", "content", "charset", "name", "http-equiv", "lang", "class", "alt"})


class Page(HTMLParser):
    """What a browser would make of a page: its elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def dot() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()


def filled_with(text: str) -> RoundReport:
    """A report in which everything that is text is this."""
    spot = Picture("best", text, text or "k", 0.1, 0.9, text or "n", text or "n", *[dot()] * 3)
    held_out = [replace(one, kind=text) for one in cases([0.2] * 3)] + [case(9, 0.1)]
    return RoundReport(
        project=text,
        round_id=text,
        champion=text,
        challenger=text,
        finished_at=report().finished_at,
        verdict=judge(held_out, held_out, options=GateOptions(resamples=100)),
        curves=(Curve(text, ((0, 0), (1, 1))),),
        pictures=(spot,),
        facts=((text, text),),
    )


@settings(max_examples=80, deadline=None)
@given(TEXTS)
def test_whatever_the_text_the_page_has_the_same_elements(text: str) -> None:
    page, plain = Page(render(filled_with(text))), Page(render(filled_with("plain")))
    assert page.elements == plain.elements
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)


@pytest.mark.parametrize("text", HOSTILE[:8])
def test_hostile_text_is_shown_as_it_stands(text: str) -> None:
    assert Page(render(filled_with(text))).texts.count(text) >= 8


def test_the_page_needs_nothing_but_itself() -> None:
    page = render(report(pictures=(picture(1),)))
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"@import|url\(", page)
    tags = {tag for tag, _ in Page(page).elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "a"}
    assert not any(name.startswith("on") for _, names in Page(page).elements for name in names)
    assert "default-src &#x27;none&#x27;" in page


def test_half_a_character_or_a_control_one_does_not_stop_the_report(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, filled_with("a\ud800b\x00c\x1bd"))
    assert "a\ufffdb\ufffdc\ufffdd" in path.read_text(encoding="utf-8")


def test_long_text_is_cut() -> None:
    assert len(foreign("x" * 100_000).text) < 700
    assert len(render(filled_with("y" * 100_000))) < 1_000_000


def test_a_promoted_and_a_kept_champion_are_told_apart_at_the_top() -> None:
    good, kept = Page(render(report(True))).text, Page(render(report(False))).text
    assert "Better: the challenger passed the gate" in good
    assert "Not better: the champion stays" in kept
    for reason in verdict(False).reasons:
        assert reason in kept


def test_the_figures_of_the_verdict_are_in_the_page() -> None:
    text = Page(render(report(pictures=(picture(1, request="the red star"),)))).text
    held_out = verdict().figures.held_out
    gain = held_out.gain
    assert gain is not None
    for figure in (held_out.champion.mean_iou, held_out.challenger.mean_iou):
        assert f"{figure:.3f}" in text
    for figure in (gain.mean, gain.low, gain.high):
        assert f"{figure:+.3f}" in text
    for piece in (
        "0.750",
        "92.0%",
        "0.860",
        "superlative",
        "120 new, 40 older",
        "the red star",
        "reward",
    ):
        assert piece in text


def test_without_anything_held_out_there_is_still_a_report() -> None:
    bare = replace(report(), verdict=judge([], []), curves=(), facts=())
    text = Page(render(bare)).text
    assert "Not better" in text
    assert "It was not measured in this round." in text


def test_writing_replaces_the_old_report_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, report(True))
    write_report(path, report(False))
    assert "Not better" in path.read_text(encoding="utf-8")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.mkdir()
    with pytest.raises(OSError, match="report"):
        write_report(path, report())
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_text_is_escaped_and_markup_is_not() -> None:
    assert el("p", "a < b", el("b", '"'), class_="x").text == (
        '<p class="x">a &lt; b<b>&quot;</b></p>'
    )
    assert el("img", src='a"b', alt=None).text == '<img src="a&quot;b">'
    assert escaped("a\tb\nc") == "a\tb\nc"


ENDS = st.floats(allow_nan=False)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=60), st.text(max_size=5))
def test_any_curve_can_be_drawn(points: list[tuple[float, float]], name: str) -> None:
    chart = curve_chart(Curve(name, tuple(points))).text
    drawn = re.findall(r'd="([^"]*)"', chart)
    numbers = [float(number) for path in drawn for number in re.findall(r"[^ ML]+", path)]
    assert all(0 <= number <= 320 for number in numbers)
    assert bool(drawn) == any(max(map(abs, point)) < 1e100 for point in points if _real(point))


def _real(point: tuple[float, float]) -> bool:
    return all(map(math.isfinite, point))


@given(ENDS, ENDS, st.floats(-1, 1))
def test_any_interval_can_be_drawn(low: float, high: float, mean: float) -> None:
    chart = interval_chart(Interval(mean, min(low, high), max(low, high), 0.95, 1, 1, 100, 0)).text
    places = [float(number) for number in re.findall(r' c?x[12]?="([^"]*)"', chart)]
    assert all(0 <= place <= 600 for place in places)


def test_a_curve_is_drawn_from_left_to_right_and_upwards() -> None:
    chart = curve_chart(Curve("reward", ((10, 1.0), (0, 0.0), (5, 0.5)))).text
    assert 'd="M44.0 102.0 L178.0 55.0 L312.0 8.0 L312.0 8.0"' in chart
    assert "0 → 1" in chart


def test_a_long_curve_is_thinned_to_what_can_be_seen() -> None:
    chart = curve_chart(Curve("r", tuple((float(i), float(i)) for i in range(100_000)))).text
    assert len(chart) < 20_000
    assert "step 124.5" in chart  # the mean of the first 250


def test_the_best_the_worst_and_others_are_chosen_once_each() -> None:
    champion = cases([0.5] * 20)
    ious = [0.9, 0.8, 0.7, 0.1, 0.2, *[0.5] * 15]
    chosen = choose(champion, cases(ious), each=2, seed=4)
    assert chosen.best == ("example-0", "example-1")
    assert chosen.worst == ("example-3", "example-4")
    assert len(chosen.random) == 2
    assert not set(chosen.random) & {*chosen.best, *chosen.worst}
    assert choose(champion[::-1], cases(ious), each=2, seed=4) == chosen
    everything = choose(champion, cases(ious), each=100)
    assert Counter(map(len, (everything.best, everything.worst, everything.random))) == Counter(
        (3, 2, 15)
    )
    assert choose(champion, champion, each=1).best == ()
    assert choose([], []) == choose(champion, champion, each=0)
    with pytest.raises(ConfigError):
        choose(champion, champion, each=-1)


def test_an_overlay_shows_what_is_right_missed_and_too_much() -> None:
    true, found = np.zeros((2, 400, 400), dtype=bool)
    true[100:300, 100:200] = True
    found[100:300, 150:250] = True
    data = overlay(
        Image.new("RGB", (400, 400), "grey"), [masks.encode(found)], [masks.encode(true)]
    )
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    agreed, missed, surplus, ground = (
        pixels[120:280, left : left + 30].reshape(-1, 3).mean(axis=0)
        for left in (160, 110, 210, 300)
    )
    assert np.ptp(agreed) < 8
    assert agreed.mean() > 130
    assert missed[0] > missed[2] + 60  # orange
    assert surplus[2] > surplus[0] + 60  # blue
    assert np.ptp(ground) < 8
    assert ground.mean() < 80


def test_a_mask_of_another_size_is_refused() -> None:
    mask = masks.encode(np.ones((3, 3), dtype=bool))
    with pytest.raises(MaskError):
        overlay(Image.new("RGB", (4, 4)), [mask], [])


def test_pictures_are_small_enough_for_a_page() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3000, 4000, 3), dtype=np.uint8)
    data = shown(Image.fromarray(noise))
    assert Image.open(io.BytesIO(data)).size == (560, 420)
    assert len(data) < 300_000


def test_a_picture_that_is_no_png_is_refused() -> None:
    with pytest.raises(InputError):
        replace(picture(1), after=b"<svg onload=alert(1)>")
