"""The charts of a round's report, as SVG inside the page: an interval, and curves over steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from training_hooks.bootstrap import Interval
from training_hooks.markup import Html, el, foreign

_WIDTH: Final = 320
_HEIGHT: Final = 120
_LEFT: Final = 44
_BOTTOM: Final = 18
_TOP: Final = 8
_MOST_POINTS: Final = 400
"""Points of a curve beyond these are averaged: no screen shows more."""
_SMOOTHED_FROM: Final = 20
_LEAST_SPAN: Final = 0.01
"""Height of a chart at least, so that noise does not look like a mountain."""

_ABSURD: Final = 1e100

_Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure over the steps of a round.

    Args:
        name: What it is, such as `reward mask`.
        points: (step, value) in any order; what is not finite, or absurdly large, is left out.
    """

    name: str
    points: tuple[tuple[float, float], ...]


def interval_chart(interval: Interval) -> Html:
    """The gain and its interval on a line that shows 0."""
    ends = [end for end in (interval.low, interval.high) if math.isfinite(end)]
    reach = 1.25 * max([abs(value) for value in (*ends, interval.mean)] + [_LEAST_SPAN])

    def x(value: float) -> float:
        return _round(300 + 280 * max(-1.0, min(1.0, value / reach)))

    label = f"Gain {interval.mean:+.3f}, interval {interval.low:+.3f} to {interval.high:+.3f}"
    return el(
        "svg",
        el("line", x1=10, x2=590, y1=30, y2=30, class_="axis"),
        el("line", x1=300, x2=300, y1=10, y2=50, class_="zero"),
        el("line", x1=x(interval.low), x2=x(interval.high), y1=30, y2=30, class_="range"),
        el("circle", cx=x(interval.mean), cy=30, r=6, class_="mean"),
        # Each on its own side of the interval: they never meet.
        el("text", f"{interval.low:+.3f}", x=x(interval.low), y=16, text_anchor="end"),
        el("text", f"{interval.high:+.3f}", x=x(interval.high), y=16),
        el("text", "0", x=300, y=66, text_anchor="middle"),
        el("text", f"{-reach:+.3f}", x=10, y=66),
        el("text", f"{reach:+.3f}", x=590, y=66, text_anchor="end"),
        viewBox="0 0 600 72",
        role="img",
        aria_label=label,
        class_="interval",
    )


def curve_chart(curve: Curve) -> Html:
    """A curve with its running mean, its range, and where it starts and ends."""
    points = sorted(point for point in curve.points if all(abs(value) < _ABSURD for value in point))
    if not points:
        return _figure(curve.name, el("p", "There are no figures.", class_="faint"))
    points = _thinned(points)
    low, high = _range([value for _, value in points])
    first, last = points[0][0], points[-1][0]

    def path(values: Sequence[_Point], class_: str) -> Html:
        spots = [
            f"{_round(_LEFT + (step - first) / (last - first or 1) * (_WIDTH - _LEFT - 8))} "
            f"{_round(_TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM))}"
            for step, value in values
        ]
        return el("path", d="M" + " L".join(spots + spots[-1:]), class_=class_)

    smooth = _running_mean(points) if len(points) >= _SMOOTHED_FROM else points
    base = _HEIGHT - _BOTTOM
    chart = el(
        "svg",
        el("line", x1=_LEFT, x2=_WIDTH - 8, y1=base, y2=base, class_="axis"),
        el("line", x1=_LEFT, x2=_LEFT, y1=_TOP, y2=base, class_="axis"),
        el("text", f"{high:.3g}", x=_LEFT - 6, y=_TOP + 8, text_anchor="end"),
        el("text", f"{low:.3g}", x=_LEFT - 6, y=base, text_anchor="end"),
        el("text", f"step {first:g}", x=_LEFT, y=_HEIGHT - 3),
        el("text", f"{last:g}", x=_WIDTH - 8, y=_HEIGHT - 3, text_anchor="end"),
        path(points, "raw") if smooth is not points else "",
        path(smooth, "line"),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{curve.name} from {smooth[0][1]:.3g} to {smooth[-1][1]:.3g}",
    )
    return _figure(curve.name, chart, f"{smooth[0][1]:.3g} → {smooth[-1][1]:.3g}")


def _figure(name: str, chart: Html, ends: str = "") -> Html:
    caption = el("figcaption", foreign(name, 80), el("span", ends, class_="number"))
    return el("figure", caption, chart, class_="curve")


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    missing = max(0.0, _LEAST_SPAN - (high - low)) / 2
    low, high = low - missing, high + missing
    # So large that a hundredth between them is lost.
    return (low, high) if high > low else (low, math.nextafter(high, math.inf))


def _thinned(points: Sequence[_Point]) -> list[_Point]:
    """At most `_MOST_POINTS`, each the mean of its neighbours."""
    each = math.ceil(len(points) / _MOST_POINTS)
    return [_mean(points[start : start + each]) for start in range(0, len(points), each)]


def _running_mean(points: Sequence[_Point]) -> list[_Point]:
    """The mean around each point, over a tenth of the curve; the steps stay as they are."""
    reach = max(1, len(points) // 20)
    return [
        (step, _mean(points[max(0, at - reach) : at + reach + 1])[1])
        for at, (step, _) in enumerate(points)
    ]


def _mean(points: Sequence[_Point]) -> _Point:
    return (
        math.fsum(step for step, _ in points) / len(points),
        math.fsum(value for _, value in points) / len(points),
    )


def _round(number: float) -> float:
    return round(number, 1)
