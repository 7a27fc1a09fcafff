"""Following a job on the screen: a progress bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TypeVar

from anyio.from_thread import start_blocking_portal
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mcp_server.cli.options import read_options, show
from mcp_server.jobs import service, store
from mcp_server.jobs.store import JobFolder
from mcp_server.training.log import LogDelta, LogRequest, read_log

Options = TypeVar("Options", bound=BaseModel)
Result = TypeVar("Result", bound=BaseModel)


def run_job(
    arguments: argparse.Namespace,
    options: type[Options],
    start: Callable[[Options], JobFolder],
    result: type[Result],
    said: Callable[[Result], str],
) -> int:
    """Start the job that the flags ask for, follow it to its end and show its result, as ``said`` or as JSON; the exit code."""
    folder = start(read_options(arguments, options))
    news = follow(folder.job_id, quiet=arguments.json)
    if news.result is None:
        show(news, as_json=arguments.json, text=end_text(folder))
        return exit_code(folder)
    found = result.model_validate(news.result)
    show(found, as_json=arguments.json, text="" if arguments.json else said(found))
    return 0


def follow(job_id: str, *, quiet: bool = False) -> LogDelta:
    """Show the job until it ends; the last news. Ctrl-C leaves the job running and says how to come back."""
    try:
        # In a thread of its own: a notebook runs a loop in this one already, and a thread may have one alone.
        with start_blocking_portal() as portal:
            return portal.call(_follow, job_id, quiet)
    except KeyboardInterrupt:
        print(
            f"\nthe job goes on; follow it with `mlx-training log {job_id} --follow`, "
            f"end it with `mlx-training stop {job_id}`",
            file=sys.stderr,
        )
        raise


async def _follow(job_id: str, quiet: bool) -> LogDelta:
    console = Console(stderr=True, quiet=quiet, markup=False, emoji=False)  # "[malloc] Unable to allocate" is no mark
    cursor = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task(job_id, total=None)
        while True:
            news = await read_log(LogRequest(job_id=job_id, since=cursor, wait_seconds=2))
            cursor = news.cursor
            for phase in news.phases:
                console.print(f"· {phase}")
            for step, loss in news.val:
                console.print(f"  step {step}: validation loss {loss}")
            if news.train and not console.is_terminal:
                step, loss = news.train[-1]
                console.print(f"  step {step} of {news.total}: loss {loss}")
            for alert in news.alerts:
                console.print(f"! {alert}", style="bold yellow")
            description = f"loss {news.train[-1][1]}" if news.train else news.status
            progress.update(task, completed=news.step or 0, total=news.total, description=description)
            if news.finished:
                return news


def end_text(folder: JobFolder) -> str:
    """How the job ended, in a line."""
    view = service.view(folder)
    return f"{view.job_id}: {view.status}" + (f": {view.why}" if view.why else "")


def exit_code(folder: JobFolder) -> int:
    """0 when the job completed."""
    return 0 if service.reconcile(folder).status == "completed" else 1


def job(job_id: str) -> JobFolder:
    return store.get(job_id)
