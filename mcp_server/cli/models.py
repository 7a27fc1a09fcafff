"""``mlx-training convert`` and ``mlx-training benchmark``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from mcp_server.cli.follow import end_text, exit_code, follow
from mcp_server.cli.options import add_json, add_options, read_options, show
from mcp_server.conversion.options import ConvertOptions
from mcp_server.conversion.report import ConversionResult
from mcp_server.conversion.start import start_conversion
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.report import BenchmarkReport
from mcp_server.evaluation.start import start_benchmark


def add_commands(commands: Any) -> None:
    convert = commands.add_parser("convert", help="convert a Hugging Face model to MLX format")
    add_options(convert, ConvertOptions)
    add_json(convert)
    convert.set_defaults(run=_convert)
    benchmark = commands.add_parser("benchmark", help="compare an adapter with its base on held-out data")
    add_options(benchmark, BenchmarkOptions)
    add_json(benchmark)
    benchmark.set_defaults(run=run_benchmark)


def _convert(arguments: argparse.Namespace) -> int:
    folder = start_conversion(read_options(arguments, ConvertOptions))
    news = follow(folder.job_id, quiet=arguments.json)
    if news.result is None:
        show(news, as_json=arguments.json, text=end_text(folder))
        return exit_code(folder)
    result = ConversionResult.model_validate(news.result)
    show(result, as_json=arguments.json, text="\n".join([f"{result.mlx_path}: {result.summary}", *result.notes]))
    return 0


def run_benchmark(arguments: argparse.Namespace) -> int:
    """The command; ``scripts/benchmark.py`` is a front of it."""
    folder = start_benchmark(read_options(arguments, BenchmarkOptions))
    news = follow(folder.job_id, quiet=arguments.json)
    if news.result is None:
        show(news, as_json=arguments.json, text=end_text(folder))
        return exit_code(folder)
    report = BenchmarkReport.model_validate(news.result)
    if not arguments.json:
        Console().print(report_table(report))
        for sample in report.samples[:3]:
            print(f"\nprompt:    {sample.prompt}\nreference: {sample.reference}\nbase:      {sample.base}")
            if sample.adapter is not None:
                print(f"adapter:   {sample.adapter}")
        print()
    show(report, as_json=arguments.json, text=report.summary)
    return 0


def report_table(report: BenchmarkReport) -> Table:
    """Base and adapter side by side."""
    table = Table("", "base", *(["adapter"] if report.adapter else []), title=f"{report.rows} held-out rows")
    rows = (
        ("loss (nats per token)", "loss", "{:.4f}"),
        ("perplexity", "perplexity", "{:.3f}"),
        ("exact match", "exact_match", "{:.0%}"),
        ("prompt tokens/s", "prompt_tokens_per_second", "{:.0f}"),
        ("generated tokens/s", "generation_tokens_per_second", "{:.0f}"),
        ("peak memory, GB", "peak_memory_gb", "{:.3f}"),
    )
    for title, name, form in rows:
        values = [getattr(measured, name) for measured in (report.base, report.adapter) if measured is not None]
        if any(value is not None for value in values):
            table.add_row(title, *("–" if value is None else form.format(value) for value in values))
    return table
