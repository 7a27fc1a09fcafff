"""``mlx-training adapters``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from mcp_server.adapters.compare import AdapterComparison
from mcp_server.adapters.describe import Adapter
from mcp_server.adapters.listing import AdapterRequest, list_adapters
from mcp_server.cli.options import add_json, show
from mcp_server.cli.safe import safe


def add_commands(commands: Any) -> None:
    adapters = commands.add_parser("adapters", help="list adapters, the best first, and how to repeat the best")
    adapters.add_argument("--limit", type=int, default=20, help="how many (default 20)")
    adapters.add_argument("--offset", type=int, default=0, help="adapters to leave out at the front")
    adapters.add_argument("--folder", help="folder to search besides past jobs; default the current project")
    adapters.add_argument("--compare", nargs=2, metavar=("A", "B"), help="how two differ, by path or job id")
    add_json(adapters)
    adapters.set_defaults(run=_adapters)


def _adapters(arguments: argparse.Namespace) -> int:
    found = list_adapters(
        AdapterRequest(
            limit=min(max(arguments.limit, 1), 100),
            offset=max(arguments.offset, 0),
            folder=arguments.folder,
            compare=arguments.compare,
        )
    )
    lines = [safe(found.summary)]
    if found.best is not None and found.best.command is not None:
        lines += ["repeat it with", f"  {safe(found.best.command)}"]
    if not arguments.json:
        if found.comparison is not None:
            Console().print(_compared(found.comparison))
        elif found.adapters:
            Console().print(_listed(found.adapters))
            lines.append(found.showing)
    show(found, as_json=arguments.json, text="\n".join(lines))
    return 0


def _listed(adapters: list[Adapter]) -> Table:
    table = Table(Column("adapter", overflow="fold"), "made", "val loss", "benchmark", "steps", "MB", "rank", box=None)
    for adapter in adapters:
        seen = adapter.benchmark
        measured = "–" if seen is None else seen.verdict or "done"
        if seen is not None and seen.loss_difference is not None:
            measured += f" {seen.loss_difference:+.3g}" + (" on valid.jsonl" if seen.split == "valid" else "")
        steps = str(adapter.weights_of_step or adapter.steps or "–")
        loss = "–" if adapter.val_loss is None else f"{adapter.val_loss:.4f}"
        rank = (adapter.rank or "").partition(" by ")[0]
        cells = (adapter.path, adapter.created[:10], loss, measured, steps, f"{adapter.size_mb:.1f}", rank)
        table.add_row(
            *(Text(safe(cell)) for cell in cells)
        )  # a folder's name may hold what rich takes for its own marks
    return table


def _compared(comparison: AdapterComparison) -> Table:
    table = Table("", *(escape(safe(path)) for path in comparison.adapters), box=None)
    for title, pairs in (
        ("data", comparison.data),
        ("options", comparison.options),
        ("results", comparison.results),
        ("benchmark", comparison.benchmark),
    ):
        if pairs:
            table.add_section()
            table.add_row(f"[bold]{title}[/bold]", "", "")
        for name, (first, second) in pairs.items():
            table.add_row(name, *(Text("–" if value is None else safe(str(value))) for value in (first, second)))
    return table
