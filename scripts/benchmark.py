"""Compare an adapter with its base model: ``scripts/benchmark.py --model M --adapter A --compare``.

A thin front of ``run_benchmark``, with its flags. ``--data`` defaults to the data set the adapter was trained on; without
``--compare`` (or several adapters to rank) the base alone is measured, on that data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcp_server.cli.benchmark import run_benchmark
from mcp_server.cli.options import add_json, add_options, read_options
from mcp_server.errors import UserError
from mcp_server.evaluation.adapters import candidates
from mcp_server.evaluation.options import BenchmarkOptions


def main() -> int:
    """Run the benchmark and print the table and the verdict."""
    parser = argparse.ArgumentParser(description="Compare an adapter with its base model on held-out data.")
    parser.add_argument("--adapter", metavar="PATH", help="the adapter (same as --adapter-path)")
    parser.add_argument("--compare", action="store_true", help="measure base and adapter; without it the base alone")
    add_options(parser, BenchmarkOptions)
    add_json(parser)
    arguments = parser.parse_args()
    try:
        arguments.adapter_path = arguments.adapter_path or arguments.adapter
        if arguments.adapter_path and not arguments.compare:
            found = candidates(read_options(arguments, BenchmarkOptions))
            arguments.model = arguments.model or found.model
            arguments.data = arguments.data or found.data
            for name, own in found.names:
                setattr(arguments, name, getattr(arguments, name) or own)
            arguments.adapter_path = None
        return run_benchmark(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
