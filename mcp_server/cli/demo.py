"""``mlx-training demo``."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from mcp_server.cli.options import add_json, show
from mcp_server.demo.files import write_files


def add_commands(commands: Any) -> None:
    demo = commands.add_parser("demo", help="the whole main job, offline, on an embedded tiny model")
    demo.add_argument("--output", type=Path, help="new folder for everything the demo makes (default demo-run/<time>)")
    demo.add_argument(
        "--only-files", action="store_true", help="write the demo's model and data alone, to try things with them"
    )
    add_json(demo)
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    if arguments.only_files:
        written = write_files(arguments.output)
        show(written, as_json=arguments.json, text=f"model: {written.model}\ndata:  {written.data}")
        return 0
    from mcp_server.demo.run import run_demo  # here because it imports the MCP client

    if arguments.json:
        report = run_demo(arguments.output, Console(file=io.StringIO()))
        print(json.dumps(report, indent=1))
    else:
        run_demo(arguments.output, Console())
    return 0
