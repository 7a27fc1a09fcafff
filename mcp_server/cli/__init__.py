"""``mlx-training``: the tools' services for people, with progress on the screen or ``--json`` for programs."""

from __future__ import annotations

import argparse
import sys

from mcp_server import __version__
from mcp_server.crash import told


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked, 1 on an error, 130 when interrupted."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        return chosen.run(chosen)
    except Exception as error:
        print(f"error: {told(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    from mcp_server.cli import (
        adapters,
        benchmark,
        datasets,
        demo,
        fuse,
        generate,
        guard,
        jobs,
        models,
        planning,
        platform,
        report,
        train,
        watch,
    )

    parser = argparse.ArgumentParser(
        prog="mlx-training", description="Fine-tune language models on Apple Silicon with MLX."
    )
    parser.add_argument("--version", action="version", version=f"mlx-training {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        demo,
        platform,
        planning,
        datasets,
        models,
        train,
        benchmark,
        generate,
        fuse,
        jobs,
        watch,
        adapters,
        report,
        guard,
    ):
        module.add_commands(commands)
    return parser
