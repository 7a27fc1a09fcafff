"""Compare an adapter with its base model: ``scripts/benchmark.py --model M --adapter A --compare``.

A thin front of ``run_benchmark``. ``--data`` defaults to the data set the adapter was trained on (its provenance names
it); without ``--compare`` the model is measured with the adapter named, if any, as the comparison as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcp_server.cli.models import run_benchmark
from mcp_server.cli.options import add_json, add_options
from mcp_server.errors import PathError, UserError
from mcp_server.evaluation.options import BenchmarkOptions


def main() -> int:
    """Run the benchmark and print the table and the verdict."""
    parser = argparse.ArgumentParser(description="Compare an adapter with its base model on held-out data.")
    parser.add_argument(
        "--adapter", dest="adapter_path_short", metavar="PATH", help="the adapter (same as --adapter-path)"
    )
    parser.add_argument("--compare", action="store_true", help="measure base and adapter; without it the base alone")
    add_options(parser, BenchmarkOptions)
    add_json(parser)
    for action in parser._actions:
        if action.dest == "data":
            action.required = False
    arguments = parser.parse_args()
    try:
        arguments.adapter_path = arguments.adapter_path or arguments.adapter_path_short
        arguments.data = arguments.data or _data_of(arguments.adapter_path)
        if not arguments.compare:
            arguments.adapter_path = None
        return run_benchmark(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _data_of(adapter: str | None) -> str:
    if adapter is not None:
        try:
            record = json.loads((Path(adapter) / "provenance.json").read_text(encoding="utf-8"))
            return str(record["data"]["path"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
    raise PathError("--data is missing and the adapter's provenance.json names none; give the folder with test.jsonl")


if __name__ == "__main__":
    sys.exit(main())
