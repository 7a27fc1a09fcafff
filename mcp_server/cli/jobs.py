"""``mlx-training jobs``, ``log`` and ``stop``."""

from __future__ import annotations

import argparse
import time
from typing import Any

import anyio
from pydantic import ValidationError
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from mcp_server import settings
from mcp_server.cli.follow import end_text, exit_code, follow, job
from mcp_server.cli.options import add_json, show
from mcp_server.cli.safe import safe
from mcp_server.errors import JobError, PathError, explain
from mcp_server.jobs import index, service
from mcp_server.jobs.files import write_atomic
from mcp_server.jobs.wait import wait_for_end
from mcp_server.training.log import LogRequest, read_log
from mcp_server.training.picture import picture


def add_commands(commands: Any) -> None:
    jobs = commands.add_parser("jobs", help="list jobs, newest first")
    jobs.add_argument("--limit", type=int, default=20, help="how many (default 20)")
    add_json(jobs)
    jobs.set_defaults(run=_jobs)
    log = commands.add_parser("log", help="show what a job has reported")
    log.add_argument("job_id")
    log.add_argument("--follow", action="store_true", help="go on until the job ends")
    log.add_argument("--since", type=int, default=0, help="cursor of an earlier read")
    log.add_argument("--picture", metavar="FILE", help="write the curves as a new PNG file")
    log.add_argument("--compare-with", nargs="+", metavar="JOB", default=[], help="more runs in that picture")
    add_json(log)
    log.set_defaults(run=_log)
    stop = commands.add_parser("stop", help="end a job; a training saves a checkpoint and its adapter first")
    stop.add_argument("job_id")
    how = stop.add_mutually_exclusive_group()
    how.add_argument(
        "--pause", action="store_const", const="pause", dest="action", help="a checkpoint only, to go on later"
    )
    how.add_argument("--kill", action="store_const", const="kill", dest="action", help="end it at once, nothing saved")
    add_json(stop)
    stop.set_defaults(run=_stop)


def _jobs(arguments: argparse.Namespace) -> int:
    found = index.newest(max(1, arguments.limit))
    if not arguments.json:
        name = Column("job", no_wrap=True, min_width=max((len(view.job_id) for view in found.jobs), default=0))
        path = Column("adapter", overflow="fold")
        table = Table(
            name, "status", "step", "ranks", "created", path, box=None, pad_edge=False
        )  # ids are to be copied
        for view in found.jobs:
            step = f"{view.step}/{view.total}" if view.total else ""
            created = time.strftime("%m-%d %H:%M", time.localtime(view.created))
            ranks = str(view.ranks or "")
            table.add_row(
                view.job_id, view.status, step, ranks, created, Text(safe(_from_here(view.adapter_path or "")))
            )
        Console().print(table)
    show(found, as_json=arguments.json, text=found.showing)
    return 0


def _from_here(path: str) -> str:
    """As people would type it in the project, where it lies in there."""
    return path.removeprefix(f"{settings.project()}/")


def _log(arguments: argparse.Namespace) -> int:
    folder = job(arguments.job_id)
    if arguments.picture is not None:
        return _picture(arguments)
    if arguments.follow:
        news = follow(arguments.job_id, quiet=arguments.json)
        show(news, as_json=arguments.json, text=end_text(folder))
        return exit_code(folder)
    try:
        request = LogRequest(job_id=arguments.job_id, since=arguments.since)
    except ValidationError as error:
        raise explain(error, LogRequest) from error
    news = anyio.run(read_log, request)
    lines = [f"step {step}: loss {loss}" for step, loss in news.train]
    lines += [f"step {step}: validation loss {loss}" for step, loss in news.val]
    lines += [f"! {alert}" for alert in news.alerts]
    show(news, as_json=arguments.json, text="\n".join([*lines, news.summary]))
    return 0


def _picture(arguments: argparse.Namespace) -> int:
    target = settings.resolve(arguments.picture)
    if target.exists():
        raise PathError(f"--picture {target} exists; choose a new name")
    view = service.view(job(arguments.job_id))
    seen = picture(arguments.job_id, image=True, compare_with=arguments.compare_with, finished=view.ended is not None)
    if seen.png is None:
        raise JobError(f"{seen.note}\n{seen.sparkline or ''}".strip())
    try:
        write_atomic(target, seen.png)
    except OSError as error:
        raise PathError(
            f"--picture {target} can't be written: {error.strerror or error}; choose another place"
        ) from error
    print(target)
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    folder = job(arguments.job_id)
    service.ask_to_stop(folder, arguments.action or "stop")
    view = anyio.run(wait_for_end, folder, 130.0)
    show(view, as_json=arguments.json, text=end_text(folder))
    return 0 if view.ended else 1
