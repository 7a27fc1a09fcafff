"""``mlx-training demo``."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from mcp_server.cli.options import add_json


def add_commands(commands: Any) -> None:
    demo = commands.add_parser("demo", help="the whole main job, offline, on an embedded tiny model")
    demo.add_argument("--output", type=Path, help="new folder for everything the demo makes (default demo-run/<time>)")
    add_json(demo)
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from mcp_server.demo.run import run_demo  # here because it imports the MCP client

    if arguments.json:
        report = run_demo(arguments.output, Console(file=io.StringIO()))
        print(json.dumps(report, indent=1))
    else:
        run_demo(arguments.output, Console())
    return 0
