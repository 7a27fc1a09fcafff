"""The curves as a picture for the model and for reports, and as characters for the terminal.

``python launch.py mcp_server.training.curve PNG NAME METRICS [NAME METRICS ...]`` draws in a process of its own: matplotlib
takes seconds to import and is an optional extra. The server never imports it.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcp_server import launch
from mcp_server.platform.interpreter import install
from mcp_server.training.history import AlertMark, History, Points, read_history, smooth, thin

PICTURE = "loss.png"  # in the job folder and beside the adapter
MATPLOTLIB = "matplotlib>=3.10"
_MISSING = 3  # exit code without matplotlib
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # braille dots of a cell, by column and row
_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = ("#2563eb", "#d9480f", "#2b8a3e", "#7c3aed", "#c2255c", "#0b7285", "#846358", "#495057")
_TRAIN, _VAL, _RATE, _BAD = _COLOURS[0], _COLOURS[1], "#868e96", "#c92a2a"
_NAMED_ALERTS = 4  # more than these are marked without their names, which would cover the curve
_POINTS = 2000
_NOISY = 150  # points of a training curve above which a running mean is drawn over them


def write_png(runs: Mapping[str, Path], png: Path, python: str) -> str | None:
    """Draw the runs (name → metrics.jsonl) over each other with ``python``; None, or why there is no picture."""
    words = [word for name, metrics in runs.items() for word in (name, str(metrics))]
    try:
        done = subprocess.run(
            launch.command(python, "mcp_server.training.curve", str(png), *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the picture could not be drawn: {error}"
    if done.returncode == _MISSING:
        return f"matplotlib is missing where the jobs run; {install(MATPLOTLIB, python)}"
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return None if done.returncode == 0 and png.exists() else f"the picture could not be drawn: {last[:200]}"


def sparkline(points: Points, width: int = 40) -> str:
    """The curve in a line of text with its first and last value; empty without points."""
    if not points:
        return ""
    size = max(len(points) / width, 1)
    groups = [
        points[int(n * size) : max(int((n + 1) * size), int(n * size) + 1)] for n in range(min(width, len(points)))
    ]
    means = [math.fsum(y for _, y in group) / len(group) for group in groups if group]
    low, high = min(means), max(means)
    bars = "".join(_BARS[round((y - low) / ((high - low) or 1) * (len(_BARS) - 1))] for y in means)
    return f"{points[0][1]:.4g} {bars} {points[-1][1]:.4g}"


def as_text(points: Points, *, width: int = 64, height: int = 12) -> str:
    """One curve in braille characters, ``width`` by ``height`` cells, on a logarithmic scale."""
    rows = text_plot([points], width=width, height=height)
    return "\n".join(label + "".join(character for character, _ in cells) for label, cells in rows)


PlotRow = tuple[str, list[tuple[str, int | None]]]


def text_plot(curves: Sequence[Points], *, width: int, height: int) -> list[PlotRow]:
    """The curves over each other in braille: for each line its label and its cells as (character, number of the curve).

    Logarithmic where all values are positive. The last line is the axis of steps. A later curve covers an earlier one.
    """
    everything = [point for points in curves for point in points]
    if not everything:
        return [("", [("(no points yet)", None)])]
    log = all(y > 0 for _, y in everything)
    scaled = [[(x, math.log10(y) if log else y) for x, y in thin(points, 4 * width)] for points in curves]
    xs = [x for x, _ in everything]
    ys = [y for points in scaled for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    grid: list[list[tuple[int, int | None]]] = [[(0, None)] * width for _ in range(height)]

    def place(x: float, y: float) -> tuple[int, int]:
        column = round((x - left) / ((right - left) or 1) * (width * 2 - 1))
        return column, round((high - y) / ((high - low) or 1) * (height * 4 - 1))

    for number, points in enumerate(scaled):
        for one, other in itertools.pairwise([*points[:1], *points]):
            for column, row in _between(place(*one), place(*other)):
                dots, _ = grid[row // 4][column // 2]
                grid[row // 4][column // 2] = dots | _DOTS[column % 2][row % 4], number
    labels = [f"{10**y if log else y:9.4g} ┤" for y in (high, low)]
    margin = [labels[0]] + [" " * 10 + "│"] * (height - 2) + [labels[1]]
    rows: list[PlotRow] = [
        (label, [(chr(0x2800 + dots), number) for dots, number in cells])
        for label, cells in zip(margin, grid, strict=True)
    ]
    first, last = f"{left:,.0f}", f"{right:,.0f}"
    ends = first + last.rjust(width - len(first))
    rows.append((" " * 10 + "└", [("─" * width, None)]))
    rows.append((" " * 11, [(ends, None)]))
    return rows


def _between(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots of a straight line."""
    (x0, y0), (x1, y1) = start, end
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    return [(x0 + round((x1 - x0) * n / steps), y0 + round((y1 - y0) * n / steps)) for n in range(steps + 1)]


def _draw(png: Path, runs: list[tuple[str, History]]) -> None:
    # Without pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    alone = len(runs) == 1
    for number, (name, history) in enumerate(runs):
        _draw_run(axes, history, None if alone else name, number)
    if alone:
        _draw_alerts(axes, runs[0][1])
        _draw_rate(axes, runs[0][1])
    losses = [y for _, history in runs for points in (history.train, history.val) for _, y in points]
    if losses and min(losses) > 0 and max(losses) > 2 * min(losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:.4g}")
        if max(losses) < 20 * min(losses):
            axes.yaxis.set_minor_formatter(lambda y, _: f"{y:.2g}" if f"{y:e}"[0] in "235" else "")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per token")
    sampled = " (samples of a long log)" if any(history.sampled for _, history in runs) else ""
    axes.set_title((runs[0][0] if alone else "training (thin) and validation (dots)") + sampled, fontsize=11)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    if losses:
        figure.legend(*axes.get_legend_handles_labels(), fontsize=9, loc="outside lower center", ncols=3, frameon=False)
    else:
        axes.text(0.5, 0.5, "no loss reported yet", ha="center", va="center", transform=axes.transAxes, color=_RATE)
    part = png.with_suffix(".part")
    figure.savefig(part, format="png")
    part.replace(png)  # whoever finds it finds it whole


def _draw_run(axes: Any, history: History, name: str | None, number: int) -> None:
    alone, colour = name is None, _COLOURS[number % len(_COLOURS)]
    if history.train:
        noisy = len(history.train) > _NOISY
        look = {"color": _TRAIN if alone else colour, "linewidth": 1.5 if alone else 0.9}
        if noisy:
            axes.plot(*_columns(history.train), **look | {"linewidth": 0.7, "alpha": 0.3})
        label = "training" + (", running mean" if noisy else "") if alone else (None if history.val else name)
        shown = smooth(history.train) if noisy else history.train
        axes.plot(*_columns(shown), label=label, **look, **_dots(history.train))
    if history.val:
        style = _VAL if alone else colour
        label = "validation" if alone else name
        axes.plot(*_columns(history.val), color=style, linewidth=1.8, label=label, **_dots(history.val))
    if history.best is not None:
        step, loss = history.best
        look = {"color": _VAL if alone else colour, "markersize": 15, "markeredgecolor": "white", "zorder": 5}
        label = f"best validation {loss:.4g} at step {step:,}" if alone else None
        axes.plot([step], [loss], "*", linestyle="none", label=label, **look)


def _columns(points: Points) -> tuple[list[float], list[float]]:
    shown = thin(points, _POINTS)
    return [x for x, _ in shown], [y for _, y in shown]


def _dots(points: Points) -> dict[str, Any]:
    """Few points are shown as such."""
    return {"marker": "o", "markersize": 4} if len(points) <= 40 else {}


def _draw_alerts(axes: Any, history: History) -> None:
    marks = [alert for alert in history.alerts if alert.step is not None]
    for place, alert in enumerate(marks):
        axes.axvline(alert.step, color=_BAD, linewidth=1, linestyle=":", label=None if place else "alert")
    groups = _by_step(marks)
    for step, kinds in groups if len(groups) <= _NAMED_ALERTS else []:
        box = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}
        look = {"rotation": 90, "fontsize": 8, "color": _BAD, "va": "bottom", "ha": "right", "bbox": box}
        place = {"xycoords": ("data", "axes fraction"), "xytext": (-3, 0), "textcoords": "offset points"}
        axes.annotate(kinds, (step, 0.02), **place, **look)
    if history.not_finite:
        top = [0.97] * len(history.not_finite)
        look = {"color": _BAD, "linestyle": "none", "markersize": 9, "markeredgewidth": 2}
        axes.plot(history.not_finite, top, "x", transform=axes.get_xaxis_transform(), label="loss not finite", **look)


def _by_step(alerts: list[AlertMark]) -> list[tuple[int, str]]:
    """Alerts of one step share one text."""
    groups = itertools.groupby(alerts, key=lambda alert: alert.step or 0)
    return [(step, ", ".join(dict.fromkeys(alert.kind for alert in group))) for step, group in groups]


def _draw_rate(axes: Any, history: History) -> None:
    if not history.learning_rate:
        return
    other = axes.twinx()
    xs, ys = _columns(history.learning_rate)
    other.plot(xs, ys, color=_RATE, linewidth=1.2, linestyle="--")
    axes.plot([], [], color=_RATE, linewidth=1.2, linestyle="--", label="learning rate (right)")
    other.set_ylim(0, max(ys) * 1.15 or 1)
    other.set_ylabel("learning rate", color=_RATE)
    other.tick_params(axis="y", colors=_RATE)
    other.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.set_zorder(other.get_zorder() + 1)  # the losses in front
    axes.patch.set_visible(False)


def main(words: list[str]) -> int:
    """Draw; 3 without matplotlib."""
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        return _MISSING
    png, *pairs = words
    runs = [(name, read_history(Path(metrics))) for name, metrics in zip(pairs[::2], pairs[1::2], strict=True)]
    _draw(Path(png), runs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
