"""The loss curve: a PNG for reports and the model, characters for the terminal.

``python launch.py mcp_server.training.curve METRICS PNG`` draws in a process of its own: matplotlib takes seconds to import
and is an optional extra. The server never imports it.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

from mcp_server import launch
from mcp_server.jobs.events import read_since, without_repeats

Points = list[tuple[float, float]]

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # braille dots of a cell, by column and row


def losses(metrics: Path) -> dict[str, Points]:
    """The finite points of each curve: {"train": [(step, loss)], "val": [...]}."""
    curves: dict[str, Points] = {"train": [], "val": []}
    for event in without_repeats(read_since(metrics, 0).events):
        if event["type"] in curves and isinstance(event.get("loss"), float | int):
            curves[event["type"]].append((event["step"], event["loss"]))
    return curves


def write_png(metrics: Path, png: Path, python: str) -> bool:
    """Draw the curve with ``python``; False when it has no matplotlib or nothing could be drawn."""
    done = subprocess.run(
        launch.command(python, "mcp_server.training.curve", str(metrics), str(png)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.returncode == 0 and png.exists()


def as_text(points: Points, *, width: int = 64, height: int = 12) -> str:
    """The curve in braille characters, ``width`` by ``height`` cells, loss on a logarithmic scale."""
    positive = [(x, math.log10(y)) for x, y in points if y > 0]
    if len(positive) < 2:
        return "(too few points for a curve)"
    xs, ys = [x for x, _ in positive], [y for _, y in positive]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    columns, rows = width * 2 - 1, height * 4 - 1
    cells = [[0] * width for _ in range(height)]

    def place(x: float, y: float) -> tuple[int, int]:
        column = round((x - left) / ((right - left) or 1) * columns)
        return column, round((high - y) / ((high - low) or 1) * rows)

    for one, other in itertools.pairwise(positive):
        (x0, y0), (x1, y1) = place(*one), place(*other)
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for number in range(steps + 1):
            x, y = x0 + round((x1 - x0) * number / steps), y0 + round((y1 - y0) * number / steps)
            cells[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
    lines = ["".join(chr(0x2800 + cell) for cell in row) for row in cells]
    labels = [f"{10**high:9.4g} ┤"] + [" " * 10 + "│"] * (height - 2) + [f"{10**low:9.4g} ┤"]
    axis = " " * 10 + "└" + "─" * width
    ends = " " * 11 + f"{left:<{width // 2}g}{right:>{width - width // 2}g}"
    return "\n".join([label + line for label, line in zip(labels, lines, strict=True)] + [axis, ends])


def _draw(metrics: Path, png: Path) -> None:
    # Without pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = losses(metrics)
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, colour, marker in (("train", "#4c72b0", None), ("val", "#dd8452", "o")):
        if curves[name]:
            xs, ys = zip(*curves[name], strict=True)
            label = "training" if name == "train" else "validation"
            axes.plot(xs, ys, color=colour, marker=marker, markersize=4, linewidth=1.6, label=label)
    if curves["val"]:
        step, loss = min(curves["val"], key=lambda point: point[1])
        axes.annotate(
            f"best validation {loss:.4g} at step {step}",
            (step, loss),
            xytext=(0, 22),
            textcoords="offset points",
            ha="right",
            arrowprops={"arrowstyle": "->", "color": "#555555"},
        )
    if all(loss > 0 for points in curves.values() for _, loss in points):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per token")
    axes.set_title(metrics.parent.name)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.savefig(png)


if __name__ == "__main__":
    _draw(Path(sys.argv[1]), Path(sys.argv[2]))
