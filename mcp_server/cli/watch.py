"""``mlx-training watch``: one job live in the terminal. It only looks; leaving it leaves the job alone."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mcp_server import settings
from mcp_server.cli.follow import exit_code
from mcp_server.cli.safe import safe
from mcp_server.errors import JobError
from mcp_server.jobs import index, lock, service, store
from mcp_server.jobs.service import JobView
from mcp_server.jobs.store import JobFolder
from mcp_server.reports.words import bytes_text
from mcp_server.training.curve import text_plot
from mcp_server.training.history import LIVE_BYTES, History, read_history, smooth
from mcp_server.training.log import duration

_SECONDS = 1.0
_STATUS = {"completed": "green", "working": "cyan", "queued": "cyan", "failed": "red", "lost": "red"}
_TRAIN, _VAL = "bright_blue", "dark_orange"
_SHOWN_ALERTS = 4


def add_commands(commands: Any) -> None:
    watch = commands.add_parser(
        "watch", help="one job live: curve, speed, memory, time left, alerts; Ctrl-C leaves it alone"
    )
    watch.add_argument("job_id", nargs="?", help="default: the job that runs now, else the newest")
    watch.add_argument("--once", action="store_true", help="print it as it is now and return")
    watch.set_defaults(run=_watch)


def _watch(arguments: argparse.Namespace) -> int:
    folder = store.get(arguments.job_id or _present_job())
    console = Console()
    if arguments.once:
        console.print(frame(folder, console.width))
        return 0
    try:
        with Live(console=console, auto_refresh=False, screen=False, transient=False) as live:
            while True:
                view = service.view(folder)
                live.update(frame(folder, console.width, view), refresh=True)
                if view.status in store.TERMINAL:
                    return exit_code(folder)
                time.sleep(_SECONDS)
    except KeyboardInterrupt:
        print(
            f"\nthe job goes on; look again with `mlx-training watch {folder.job_id}`, "
            f"end it with `mlx-training stop {folder.job_id}`",
            file=sys.stderr,
        )
        raise


def _present_job() -> str:
    holder = lock.read_holder(str(settings.home() / "gpu.lock")) or {}
    running = holder.get("job_id")
    newest = index.newest(1).jobs
    if isinstance(running, str) and (store.jobs_folder() / running).is_dir():
        return running
    if not newest:
        raise JobError("there are no jobs yet; start one with `mlx-training train`")
    return newest[0].job_id


def frame(folder: JobFolder, width: int, view: JobView | None = None) -> RenderableType:
    """The job as it is now, for a terminal of ``width`` columns."""
    view = view or service.view(folder)
    history = read_history(folder.metrics, LIVE_BYTES)
    parts: list[RenderableType] = [_head(view), _progress(view, history, width)]
    if view.kind == "train":
        parts += [Text(), _plot(history, width), _legend(history)]
    parts += [Text(), _figures(view, history), *_alerts(history), *_end(view)]
    return Group(*parts)


def _head(view: JobView) -> Text:
    text = Text(view.job_id, style="bold")
    text.append(f"  {view.status}", style=_STATUS.get(view.status, "yellow"))
    return text


def _progress(view: JobView, history: History, width: int) -> RenderableType:
    if view.step is None or not view.total:
        phase = history.phases[-1] if history.phases else "nothing reported yet"
        return Text(safe(view.why or phase), style="dim")
    left = f"about {duration(view.seconds_left)} left" if view.seconds_left is not None else ""
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=view.total, completed=view.step, width=max(width - 50, 10))
    row.add_row(bar, f"step {view.step:,} of {view.total:,}", left)
    return row


def _plot(history: History, width: int) -> Text:
    noisy = len(history.train) > 100
    curves = [smooth(history.train) if noisy else history.train, history.val]
    text = Text(no_wrap=True, overflow="crop")
    for label, cells in text_plot(curves, width=max(min(width, 120) - 12, 20), height=12):
        text.append(label, style="dim")
        for character, number in cells:
            text.append(character, style=(_TRAIN, _VAL)[number] if number is not None else "dim")
        text.append("\n")
    text.rstrip()
    return text


def _legend(history: History) -> Text:
    text = Text(" " * 11)
    for name, points, style in (("training", history.train, _TRAIN), ("validation", history.val, _VAL)):
        if points:
            text.append("━ ", style=style)
            text.append(f"{name} {points[-1][1]:.4g}   ")
    if history.best is not None:
        text.append(f"best {history.best[1]:.4g} at step {history.best[0]:,}", style="bold")
    return text


def _figures(view: JobView, history: History) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    cells: list[Text] = []

    def add(name: str, value: str) -> None:
        cells.append(Text.assemble((f"{name} ", "dim"), value))

    if history.speed:
        add("speed", f"{history.speed[-1][1]:,.0f} tokens/s")
    if history.active:
        add("memory", f"{bytes_text(history.active[-1][1])}, peak {bytes_text(history.peak[-1][1])}")
        add("free here", bytes_text(history.available[-1][1]))
    if history.learning_rate:
        add("rate", f"{history.learning_rate[-1][1]:.3g}")
    if view.started is not None:
        add("since", duration((view.ended or time.time()) - view.started))
    for start in range(0, len(cells), 3):
        table.add_row(*cells[start : start + 3])
    return table


def _alerts(history: History) -> list[Text]:
    shown = [
        Text(safe(f"! {alert.message}"), style="red" if alert.level == "error" else "yellow", overflow="fold")
        for alert in history.alerts[-_SHOWN_ALERTS:]
    ]
    more = len(history.alerts) - len(shown)
    return [*([Text(f"{more} earlier alerts", style="dim")] if more > 0 else []), *shown]


def _end(view: JobView) -> list[Text]:
    if view.status not in store.TERMINAL:
        return []
    lines = [Text(safe(view.why), style=_STATUS.get(view.status, "yellow"))] if view.why else []
    if view.status == "completed" and view.kind == "train":
        lines.append(Text(safe(f"adapter: {view.adapter_path}")))
    return lines
