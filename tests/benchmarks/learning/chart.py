"""The curves for the README: held-out gIoU over the steps of a round, as an SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from training_hooks.markup import Html, el, join

Point = tuple[float, float]
Curves = Mapping[str, Mapping[str, Sequence[Point]]]
"""By style of the scenes, then by name of the round: (step, gIoU), gIoU in [0, 1]."""

_WIDTH: Final = 640
_HEIGHT: Final = 320
_LEFT: Final = 56
_RIGHT: Final = 132
_TOP: Final = 34
_BOTTOM: Final = 44
_COLOURS: Final = {"shifted": "#0969da", "plain": "#8250df"}
_OTHER: Final = "#57606a"
_CSS: Final = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}"
    ".title{font-weight:600;fill:#1f2328}"
    ".grid{stroke:#d0d7de}"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round}"
)


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where steps and values lie on the picture."""

    last: float
    low: float

    def x(self, step: float) -> float:
        return round(_LEFT + step / self.last * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        return round(_TOP + (1 - value) / (1 - self.low) * (_HEIGHT - _TOP - _BOTTOM), 1)


def chart(curves: Curves, title: str) -> str:
    """Draw the curves.

    Args:
        curves: At least one of them with a point.
        title: Stands above.

    Returns:
        An SVG file's text; its background is white, as a README may be shown on black.
    """
    points = [point for rounds in curves.values() for curve in rounds.values() for point in curve]
    lowest = min(int(10 * min(value for _, value in points)), 9)
    axes = _Axes(max(step for step, _ in points) or 1.0, lowest / 10)
    steps = sorted({step for step, _ in points})
    drawn = el(
        "svg",
        el("style", Html(_CSS)),
        el("rect", width=_WIDTH, height=_HEIGHT, fill="#ffffff"),
        el("text", title, x=_LEFT, y=20, class_="title"),
        [_level(tenths / 10, axes) for tenths in range(lowest, 11)],
        [
            el("text", f"{step:g}", x=axes.x(step), y=_HEIGHT - 26, text_anchor="middle")
            for step in steps
        ],
        el("text", "steps", x=axes.x(axes.last / 2), y=_HEIGHT - 8, text_anchor="middle"),
        [
            _curve(curve, style, name, axes)
            for style, rounds in curves.items()
            for name, curve in rounds.items()
        ],
        [_legend(number, style) for number, style in enumerate(curves)],
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=title,
    )
    return f"{drawn.text}\n"


def _level(value: float, axes: _Axes) -> Html:
    at = axes.y(value)
    return join(
        el("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at, class_="grid"),
        el("text", f"{value:.1f}", x=_LEFT - 8, y=at + 4, text_anchor="end"),
    )


def _curve(curve: Sequence[Point], style: str, name: str, axes: _Axes) -> Html:
    spots = [(axes.x(step), axes.y(value)) for step, value in sorted(curve)]
    colour = _COLOURS.get(style, _OTHER)
    path = "M" + " L".join(f"{x} {y}" for x, y in spots)
    label = f"{style}, {name}: " + ", ".join(f"{value:.3f}" for _, value in sorted(curve))
    return el(
        "g",
        el("title", label),
        el("path", d=path, stroke=colour, class_="line"),
        [el("circle", cx=x, cy=y, r=3, fill=colour) for x, y in spots],
    )


def _legend(number: int, style: str) -> Html:
    x, y = _WIDTH - _RIGHT + 16, _TOP + 10 + 20 * number
    return join(
        el("circle", cx=x, cy=y, r=4, fill=_COLOURS.get(style, _OTHER)),
        el("text", f"{style} scenes", x=x + 10, y=y + 4),
    )
