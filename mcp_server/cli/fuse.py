"""``mlx-training fuse``."""

from __future__ import annotations

import argparse
from typing import Any

from mcp_server.cli.follow import end_text, exit_code, follow
from mcp_server.cli.options import add_json, add_options, read_options, show
from mcp_server.conversion.options import FuseOptions
from mcp_server.conversion.report import FusionResult
from mcp_server.conversion.start import start_fusion


def add_commands(commands: Any) -> None:
    fuse = commands.add_parser("fuse", help="make one model of a base and an adapter, and measure what is lost")
    add_options(fuse, FuseOptions)
    add_json(fuse)
    fuse.set_defaults(run=_fuse)


def _fuse(arguments: argparse.Namespace) -> int:
    folder = start_fusion(read_options(arguments, FuseOptions))
    news = follow(folder.job_id, quiet=arguments.json)
    if news.result is None:
        show(news, as_json=arguments.json, text=end_text(folder))
        return exit_code(folder)
    result = FusionResult.model_validate(news.result)
    places = [result.save_path, *([result.gguf_path] if result.gguf_path else [])]
    show(result, as_json=arguments.json, text="\n".join([*places, result.summary, *result.notes]))
    return 0
