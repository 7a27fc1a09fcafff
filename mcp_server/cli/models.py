"""``mlx-training convert``."""

from __future__ import annotations

import argparse
from typing import Any

from mcp_server.cli.follow import end_text, exit_code, follow
from mcp_server.cli.options import add_json, add_options, read_options, show
from mcp_server.conversion.options import ConvertOptions
from mcp_server.conversion.report import ConversionResult
from mcp_server.conversion.start import start_conversion


def add_commands(commands: Any) -> None:
    convert = commands.add_parser("convert", help="convert a Hugging Face model to MLX format")
    add_options(convert, ConvertOptions)
    add_json(convert)
    convert.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    folder = start_conversion(read_options(arguments, ConvertOptions))
    news = follow(folder.job_id, quiet=arguments.json)
    if news.result is None:
        show(news, as_json=arguments.json, text=end_text(folder))
        return exit_code(folder)
    result = ConversionResult.model_validate(news.result)
    show(result, as_json=arguments.json, text="\n".join([f"{result.mlx_path}: {result.summary}", *result.notes]))
    return 0
