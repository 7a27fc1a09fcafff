"""``mlx-training report`` and ``mlx-training ui``: jobs to look at."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path
from typing import Any

from mcp_server.cli.options import add_json, show
from mcp_server.reports import written


def add_commands(commands: Any) -> None:
    report = commands.add_parser("report", help="write a job's report.html as it is now and say where it is")
    report.add_argument("job_id")
    report.add_argument("--open", action="store_true", help="open it in the browser")
    add_json(report)
    report.set_defaults(run=_report)
    ui = commands.add_parser("ui", help="a local page with all jobs live; only this machine, only reading")
    ui.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    ui.add_argument("--open", action="store_true", help="open it in the browser")
    ui.set_defaults(run=_ui)


def _report(arguments: argparse.Namespace) -> int:
    found = written.write(arguments.job_id)
    show(found, as_json=arguments.json, text=found.path)
    if arguments.open:
        webbrowser.open(Path(found.path).as_uri())
    return 0


def _ui(arguments: argparse.Namespace) -> int:
    from mcp_server.ui.serve import serve  # here because it imports a web server

    return serve(arguments.port, open_browser=arguments.open)
