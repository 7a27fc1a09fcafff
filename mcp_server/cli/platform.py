"""``mlx-training doctor``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcp_server.cli.options import add_json, show
from mcp_server.platform.check import check_platform


def add_commands(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="tell whether this machine can train, and what to do if not")
    add_json(doctor)
    doctor.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    report = check_platform()
    if not arguments.json:
        table = Table(show_header=False, box=None)
        marks = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]"}
        for check in report.checks:
            said = check.value + (f"\n→ {check.remedy}" if check.remedy else "")
            table.add_row(marks[check.status], check.name, Text(said))
        Console().print(table)
    show(report, as_json=arguments.json, text=report.verdict)
    return 1 if report.verdict == "not ready" else 0
