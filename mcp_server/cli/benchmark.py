"""``mlx-training benchmark``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcp_server.cli.follow import run_job
from mcp_server.cli.options import add_json, add_options
from mcp_server.cli.safe import safe
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.report import METRICS, BenchmarkReport, Measured, Spread
from mcp_server.evaluation.start import start_benchmark
from mcp_server.evaluation.words import figure, spread, title


def add_commands(commands: Any) -> None:
    benchmark = commands.add_parser("benchmark", help="compare adapters with their base on held-out data")
    add_options(benchmark, BenchmarkOptions)
    add_json(benchmark)
    benchmark.set_defaults(run=run_benchmark)


def run_benchmark(arguments: argparse.Namespace) -> int:
    """The command; ``scripts/benchmark.py`` is a front of it."""
    return run_job(arguments, BenchmarkOptions, start_benchmark, BenchmarkReport, _said)


def _said(report: BenchmarkReport) -> str:
    _print(report)
    return report.summary


def _print(report: BenchmarkReport) -> None:
    console = Console()
    console.print(report_table(report))
    if report.ranking:
        console.print(ranking_table(report))
    for task in report.tasks:
        after = "" if task.adapter is None else f" → {task.adapter} ({task.verdict})"
        print(f"{task.task} {task.metric}: {task.base}{after}, {task.examples} examples")
    for sample in report.samples:
        print(f"\nprompt:    {sample.prompt}\nreference: {sample.reference}\nbase:      {sample.base}")
        if sample.adapter is not None:
            print(f"adapter:   {sample.adapter}")
    for note in report.notes:
        print(f"\nnote: {note}")
    print()


def report_table(report: BenchmarkReport) -> Table:
    """Base and adapter side by side."""
    table = Table("", "base", *(["adapter"] if report.adapter else []), title=f"{report.rows} held-out rows")
    models = [measured for measured in (report.base, report.adapter) if measured is not None]
    for name, values in _lines(models):
        if any(value is not None for value in values):
            table.add_row(name, *("–" if value is None else value for value in values))
    return table


def _lines(models: list[Measured]) -> list[tuple[str, list[str | None]]]:
    lines: list[tuple[str, list[str | None]]] = [
        ("loss (nats per token)", [f"{model.loss:.4f}" for model in models]),
        ("perplexity", [f"{model.perplexity:.3f}" for model in models]),
    ]
    for name in METRICS:
        values = [getattr(model, name) for model in models]
        lines.append((title(name), [None if value is None else figure(name, value) for value in values]))
    for text, name in (
        ("prompt tokens/s", "prompt_tokens_per_second"),
        ("generated tokens/s", "generation_tokens_per_second"),
        ("generated tokens/s, batch", "batch_generation_tokens_per_second"),
        ("seconds to first token", "seconds_to_first_token"),
    ):
        lines.append((text, [_spread(getattr(model.speed, name)) if model.speed else None for model in models]))
    peaks = [None if model.speed is None else f"{model.speed.peak_memory_gb:g}" for model in models]
    return [*lines, ("peak memory, GB", peaks)]


def _spread(found: Spread | None) -> str | None:
    return None if found is None else f"{found.median:g} ({found.min:g}–{found.max:g})"


def ranking_table(report: BenchmarkReport) -> Table:
    """Every model, lowest loss first."""
    table = Table("", "loss", "against the base", "exact match", title="ranking")
    for line in report.ranking:
        against = "" if line.loss_difference is None else f"{line.loss_difference:+.3g}, {line.verdict}"
        if line.interval_95 is not None:
            against += f" ({spread(line.interval_95)})"
        exact = "" if line.exact_match is None else f"{line.exact_match:.0%}"
        table.add_row(Text(safe(line.name)), f"{line.loss:.4f}", against, exact)
    return table
