"""``mlx-training fuse``."""

from __future__ import annotations

import argparse
from typing import Any

from mcp_server.cli.follow import run_job
from mcp_server.cli.options import add_json, add_options
from mcp_server.conversion.options import FuseOptions
from mcp_server.conversion.report import FusionResult
from mcp_server.conversion.start import start_fusion


def add_commands(commands: Any) -> None:
    fuse = commands.add_parser("fuse", help="make one model of a base and an adapter, and measure what is lost")
    add_options(fuse, FuseOptions)
    add_json(fuse)
    fuse.set_defaults(run=_fuse)


def _fuse(arguments: argparse.Namespace) -> int:
    return run_job(arguments, FuseOptions, start_fusion, FusionResult, _said)


def _said(result: FusionResult) -> str:
    places = [result.save_path, *([result.gguf_path] if result.gguf_path else [])]
    return "\n".join([*places, result.summary, *result.notes])
