"""``mlx-training plan``, ``memory`` and ``prepare-environment``."""

from __future__ import annotations

import argparse
import json
from typing import Any

import anyio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcp_server.cli.options import add_json, add_options, read_options, show
from mcp_server.planning.measured import PlanTraining, make_plan
from mcp_server.planning.plan import Plan
from mcp_server.platform.memory import MemoryRequest, read_memory
from mcp_server.platform.prepare import PrepareEnvironment, prepare


def add_commands(commands: Any) -> None:
    plan = commands.add_parser("plan", help="arguments, memory and time of a training, before it starts")
    add_options(plan, PlanTraining)
    add_json(plan)
    plan.set_defaults(run=_plan)
    memory = commands.add_parser("memory", help="memory of the machine and of the running job, with advice")
    add_options(memory, MemoryRequest)
    add_json(memory)
    memory.set_defaults(run=_memory)
    environment = commands.add_parser("prepare-environment", help="make or repair the MLX environment that jobs run in")
    environment.add_argument(
        "--reinstall", action="store_true", help="build a new one even if the present one is whole"
    )
    add_json(environment)
    environment.set_defaults(run=_environment)


async def _tell(done: float, total: float | None, message: str) -> None:
    counted = f" {done:.0f} of {total:.0f}" if total else ""
    Console(stderr=True, markup=False, emoji=False).print(f"· {message}{counted}")


def _plan(arguments: argparse.Namespace) -> int:
    request = read_options(arguments, PlanTraining)
    plan = anyio.run(make_plan, request, None if arguments.json else _tell)
    if not arguments.json and plan.arguments is not None:
        Console().print(_table(plan))
    lines = [plan.summary, plan.memory_verdict, f"time: {plan.time_from}"]
    lines += [f"! {warning}" for warning in plan.warnings]
    show(plan, as_json=arguments.json, text="\n".join(lines))
    return 0 if plan.fits else 1


def _table(plan: Plan) -> Table:
    table = Table("argument", "value", "why", box=None)
    for name, value in (plan.arguments or {}).items():
        shown = value if isinstance(value, str) else json.dumps(value)
        table.add_row(name, Text(shown), Text(plan.reasons.get(name, "")))
    return table


def _memory(arguments: argparse.Namespace) -> int:
    report = read_memory(read_options(arguments, MemoryRequest))
    text = "\n".join([report.summary, *(f"! {line}" for line in report.advice)])
    show(report, as_json=arguments.json, text=text)
    return 0


def _environment(arguments: argparse.Namespace) -> int:
    request = PrepareEnvironment(reinstall=arguments.reinstall, wait_seconds=1800)
    answer = anyio.run(prepare, request, None if arguments.json else _tell)
    show(answer, as_json=arguments.json, text=answer.summary)
    return 0 if answer.status == "completed" else 1
