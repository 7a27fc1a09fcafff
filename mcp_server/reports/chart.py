"""Curves as inline SVG: no script, no library. Colours come from the page's style sheet (``reports.style``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mcp_server.reports.markup import Html, escape
from mcp_server.training.history import Points, thin

MOST_POINTS = 500  # per line: two for each pixel and a half of the widest chart
_MOST_LINKS = 12  # a line with fewer points shows each as a dot
_WIDE, _NARROW = 760, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 26


@dataclass(frozen=True)
class Line:
    """One curve. ``style`` is a class of the style sheet, which gives the colour."""

    name: str
    points: Points
    style: str


@dataclass(frozen=True)
class Mark:
    """A vertical line at a step (an alert), or a ring around a point (the best validation)."""

    step: float
    text: str
    style: Literal["alert", "best"]
    value: float | None = None


def chart(
    lines: Sequence[Line],
    *,
    label: str,
    log: bool = False,
    zero: bool = False,
    marks: Sequence[Mark] = (),
    height: int = 250,
    form: Callable[[float], str] | None = None,
) -> Html:
    """The lines over their steps, with a legend, for wide and for narrow windows; the style sheet shows one of them.

    ``log``: a logarithmic axis, where all values are positive; ``zero``: one that begins at
    zero. ``form`` writes the values of the axis.
    """
    lines = [Line(line.name, thin(line.points, MOST_POINTS), line.style) for line in lines if line.points]
    if not lines:
        return Html(f'<p class="empty">{escape(label)}: no data yet</p>')
    drawings = "".join(
        _Drawing(lines, label, marks, (width, height), log=log, zero=zero, form=form or _short).svg(name)
        for width, name in ((_WIDE, "wide"), (_NARROW, "narrow"))
    )
    return Html(f"<figure>{_legend(lines, label, marks)}{drawings}</figure>")


def sparkline(points: Points, *, log: bool = True) -> Html:
    """A curve of the size of a word."""
    positive = log and all(y > 0 for _, y in points)
    shown = [(x, math.log(y) if positive else y) for x, y in thin(points, 60)]
    if len(shown) < 2:
        return Html("")
    (left, right), (low, high) = _span([x for x, _ in shown]), _span([y for _, y in shown])
    path = " ".join(
        f"{1 + 98 * (x - left) / (right - left):.1f},{21 - 18 * (y - low) / (high - low):.1f}" for x, y in shown
    )
    return Html(
        f'<svg class="spark" viewBox="0 0 100 24" width="100" height="24" aria-hidden="true">'
        f'<polyline class="train" points="{path}"/></svg>'
    )


def _legend(lines: Sequence[Line], label: str, marks: Sequence[Mark]) -> str:
    named = lines if len(lines) > 1 else []
    items = [f'<span class="key {line.style}">{escape(line.name)}</span>' for line in named]
    styles = {mark.style for mark in marks}
    items += [f'<span class="key {style}">{name}</span>' for style, name in _MARK_NAMES if style in styles]
    return f"<figcaption><b>{escape(label)}</b> {' '.join(items)}</figcaption>"


_MARK_NAMES = (("best", "best checkpoint"), ("alert", "alert"))


class _Drawing:
    """One SVG of a chart."""

    def __init__(
        self,
        lines: Sequence[Line],
        label: str,
        marks: Sequence[Mark],
        size: tuple[int, int],
        *,
        log: bool,
        zero: bool,
        form: Callable[[float], str],
    ) -> None:
        self._lines, self._label, self._marks, self._form = lines, label, marks, form
        self._width, self._height = size
        ys = [y for line in lines for _, y in line.points] + [mark.value for mark in marks if mark.value is not None]
        self._log = log and min(ys) > 0
        self._left, self._right = _span([x for line in lines for x, _ in line.points] + [mark.step for mark in marks])
        self._low, self._high = _span([self._scaled(y) for y in ys] + ([0.0] if zero else []), margin=0.05)
        if zero and min(ys) >= 0:
            self._low = 0.0

    def _scaled(self, y: float) -> float:
        return math.log10(y) if self._log else y

    def _x(self, step: float) -> float:
        return _LEFT + (self._width - _LEFT - _RIGHT) * (step - self._left) / (self._right - self._left)

    def _y(self, value: float) -> float:
        share = (self._scaled(value) - self._low) / (self._high - self._low)
        return self._height - _BOTTOM - (self._height - _TOP - _BOTTOM) * share

    def svg(self, name: str) -> str:
        parts = [*self._axes(), *self._drawn_marks(behind=True)]
        parts += [self._line(line) for line in self._lines]
        parts += self._drawn_marks(behind=False)
        return (
            f'<svg class="{name}" viewBox="0 0 {self._width} {self._height}" role="img" '
            f'aria-label="{escape(self._label)}">{"".join(parts)}</svg>'
        )

    def _axes(self) -> list[str]:
        bottom, right = self._height - _BOTTOM, self._width - _RIGHT
        parts: list[str] = []
        for value in self._value_ticks():
            y = self._y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(self._form(value))}</text>')
        for step in ticks(self._left, self._right, 6 if self._width == _WIDE else 3):
            if step != round(step):
                continue
            x = self._x(step)
            # A number at the edge leans inwards, so that it is not cut.
            anchor = "end" if x > right - 24 else "middle"
            parts.append(f'<text x="{x:.1f}" y="{self._height - 8}" text-anchor="{anchor}">{step:,.0f}</text>')
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        parts.append(f'<text x="{_LEFT - 12}" y="{self._height - 8}" text-anchor="end">step</text>')
        return parts

    def _value_ticks(self) -> list[float]:
        if not self._log:
            return ticks(self._low, self._high, 5)
        found = [
            digit * 10.0**power
            for power in range(math.floor(self._low), math.ceil(self._high) + 1)
            for digit in ((1, 2, 5) if self._high - self._low < 3 else (1,))
            if self._low <= math.log10(digit) + power <= self._high
        ]
        # Less than an octave: the logarithm is nearly straight, plain numbers tell more.
        return found if len(found) > 1 else ticks(10**self._low, 10**self._high, 7)

    def _line(self, line: Line) -> str:
        places = [(self._x(x), self._y(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn = f'<polyline class="{line.style}" points="{path}"/>'
        if len(places) <= _MOST_LINKS:
            drawn += "".join(
                f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{escape(line.name)} {escape(f'{value:.5g}')} at step {step:,.0f}</title></circle>"
                for (x, y), (step, value) in zip(places, line.points, strict=True)
            )
        return drawn

    def _drawn_marks(self, *, behind: bool) -> list[str]:
        parts: list[str] = []
        for mark in self._marks:
            if (mark.style == "alert") != behind:
                continue
            x, title = self._x(mark.step), f"<title>{escape(mark.text)}</title>"
            if mark.value is None:
                bottom = self._height - _BOTTOM
                parts.append(
                    f'<g class="{mark.style}"><line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
                    f'<circle cx="{x:.1f}" cy="{_TOP}" r="4"/>{title}</g>'
                )
                continue
            y = self._y(mark.value)
            anchor, shift = ("end", -9) if x > self._width / 2 else ("start", 9)
            above = y - 10 if y > _TOP + 16 else y + 20
            parts.append(
                f'<g class="{mark.style}"><circle cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
                f'<text x="{x + shift:.1f}" y="{above:.1f}" text-anchor="{anchor}">{escape(mark.text)}</text>{title}</g>'
            )
        return parts


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about ``most`` round numbers (1, 2 or 5 times a power of ten) from ``low`` to ``high``."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _span(values: list[float], *, margin: float = 0.0) -> tuple[float, float]:
    """Lowest and highest with a margin (a share of the span); never empty, so that one point has room."""
    low, high = min(values), max(values)
    room = (high - low) * margin
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(low) * 0.1 or 0.5
    return low - room, high + room


def _short(value: float) -> str:
    return f"{value:.4g}"
