"""Tables in the documentation that are made from the code: ``python scripts/generate_docs.py [--check]``.

A table stands between ``<!-- NAME: ... -->`` and ``<!-- end -->``. With --check nothing is written and a difference fails.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from mcp_server.cli.options import option_default
from mcp_server.conversion.options import ConvertOptions, FuseOptions, MethodOptions
from mcp_server.generation.options import GenerateOptions
from mcp_server.server import build_server
from mcp_server.training.request import TrainingRequest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/options.md", "docs/convert.md")


def tools() -> str:
    """Every tool with the first sentence of its description."""
    lines = ["| tool | what it does |", "| --- | --- |"]
    for tool in asyncio.run(build_server().list_tools()):
        first = " ".join((tool.description or "").split("\n\n")[0].split())
        lines.append(f"| `{tool.name}` | {first} |")
    return "\n".join(lines)


def options(model: type[BaseModel]) -> str:
    """Every option of ``model``."""
    lines = ["| option | default | meaning |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        default = option_default(field)
        text = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {'' if default is None else f'`{default}`'} | {text} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "tools": tools,
    "options": partial(options, TrainingRequest),
    "convert": partial(options, ConvertOptions),
    "method": partial(options, MethodOptions),
    "fuse": partial(options, FuseOptions),
    "generate": partial(options, GenerateOptions),
}


def generated(text: str) -> str:
    """``text`` with its tables made anew."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- (\w+): [^>]*-->)\n.*?(<!-- end -->)", table, text, flags=re.S)


def main() -> int:
    """Write the tables, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a table is not what the code says")
    check = parser.parse_args().check
    stale: list[str] = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = generated(before)
        if after != before:
            stale.append(name)
            if not check:
                path.write_text(after, encoding="utf-8")
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run `python scripts/generate_docs.py`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
