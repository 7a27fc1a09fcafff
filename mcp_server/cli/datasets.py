"""``mlx-training inspect`` and ``mlx-training prepare``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mcp_server.cli.options import add_json, add_options, read_options, show
from mcp_server.datasets.inspect import inspect_dataset
from mcp_server.datasets.preparation import PrepareRequest
from mcp_server.datasets.prepare import prepare_dataset
from mcp_server.datasets.report import InspectReport, InspectRequest
from mcp_server.datasets.tokens import Example, SplitTokens
from mcp_server.datasets.watch import Watch

Result = TypeVar("Result")


def add_commands(commands: Any) -> None:
    inspect = commands.add_parser("inspect", help="check a data set before training")
    add_options(inspect, InspectRequest)
    add_json(inspect)
    inspect.set_defaults(run=_inspect)
    prepare = commands.add_parser("prepare", help="make a data set for mlx-lm of JSON, CSV, Parquet or text")
    add_options(prepare, PrepareRequest)
    add_json(prepare)
    prepare.set_defaults(run=_prepare)


def _inspect(arguments: argparse.Namespace) -> int:
    request = read_options(arguments, InspectRequest)
    report = _with_progress(lambda watch: inspect_dataset(request, watch), quiet=arguments.json)
    if not arguments.json:
        _print_inspection(report, Console())
    show(report, as_json=arguments.json, text=report.summary)
    return 0 if report.ok else 1


def _prepare(arguments: argparse.Namespace) -> int:
    request = read_options(arguments, PrepareRequest)
    report = _with_progress(lambda watch: prepare_dataset(request, watch), quiet=arguments.json)
    if not arguments.json:
        for dropped in report.dropped:
            print(f"left out {dropped.rows:,} ({dropped.reason}): {dropped.examples[0]}")
        for warning in report.warnings:
            print(f"! {warning}")
    show(report, as_json=arguments.json, text=f"{report.summary}\n{report.output}")
    return 0


def _with_progress(service: Callable[[Watch], Result], *, quiet: bool) -> Result:
    """Run ``service`` with a bar on the terminal's standard error."""
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)
        return service(
            Watch(lambda done, total, what: progress.update(task, completed=done, total=total, description=what))
        )


def _print_inspection(report: InspectReport, console: Console) -> None:
    marks = {"error": "[red]✗[/]", "warning": "[yellow]![/]", "info": "·"}
    table = Table("split", "lines", "formats", "characters (median, most)", box=None)
    for name, split in report.splits.items():
        formats = ", ".join(f"{rows:,} {kind}" for kind, rows in split.formats.items())
        table.add_row(name, f"{split.lines:,}", formats, f"{split.characters[0]:,}, {split.characters[2]:,}")
    console.print(table)
    for found in report.findings:
        console.print(marks[found.severity], end=" ")
        print(found.text())
    console.print(report.showing, highlight=False)
    if report.tokens is not None:
        for name, split in report.tokens.splits.items():
            _print_lengths(name, split, console)
        if report.tokens.example is not None:
            _print_example(report.tokens.example)


def _print_lengths(name: str, split: SplitTokens, console: Console) -> None:
    most = max(rows for _, rows in split.histogram)
    table = Table("tokens up to", "rows", "", box=None, title=f"{name}: {split.rows_measured:,} rows measured")
    for edge, rows in split.histogram:
        table.add_row(f"{edge:,}", f"{rows:,}", "█" * round(30 * rows / most))
    console.print(table)


def _print_example(example: Example) -> None:
    print(f"\n{example.file}:{example.line} as the model sees it ({example.tokens} tokens, ⟦trained⟧):")
    shown = f"{example.not_trained}⟦{example.trained}⟧"
    if example.parts is not None:
        shown = "".join(f"⟦{part.text}⟧" if part.trained else part.text for part in example.parts)
    print(shown + (f" ✂ {example.cut}" if example.cut else "") + "\n")
