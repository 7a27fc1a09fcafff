"""``mlx-training convert``."""

from __future__ import annotations

import argparse
from typing import Any

from mcp_server.cli.follow import run_job
from mcp_server.cli.options import add_json, add_options
from mcp_server.conversion.options import ConvertOptions
from mcp_server.conversion.report import ConversionResult
from mcp_server.conversion.start import start_conversion


def add_commands(commands: Any) -> None:
    convert = commands.add_parser("convert", help="convert a Hugging Face model to MLX format")
    add_options(convert, ConvertOptions)
    add_json(convert)
    convert.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    return run_job(arguments, ConvertOptions, start_conversion, ConversionResult, _said)


def _said(result: ConversionResult) -> str:
    return "\n".join([f"{result.mlx_path}: {result.summary}", *result.notes])
