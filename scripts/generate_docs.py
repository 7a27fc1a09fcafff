"""What is made from the code: tables in the documentation, and the specialist's project-level form.

A table stands between ``<!-- NAME: ... -->`` and ``<!-- end -->``. ``python scripts/generate_docs.py`` writes; with --check
nothing is written and a difference fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from mcp_server.cli.options import option_default
from mcp_server.conversion.options import ConvertOptions, FuseOptions, MethodOptions
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.generation.options import GenerateOptions
from mcp_server.server import build_server
from mcp_server.training.diagnose import KNOWN
from mcp_server.training.request import TrainingRequest
from scripts.tool_reference import tool_reference

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "docs/options.md",
    "docs/benchmark.md",
    "docs/convert.md",
    "docs/tools.md",
    "docs/troubleshooting.md",
)
AGENT = "agents/mlx-training-specialist.md"
PROJECT_AGENT = ".claude/agents/mlx-training-specialist.md"
# The gate's hooks, by their event in hooks.json and in an agent's frontmatter: the client makes SubagentStop of its Stop.
_GATE = {
    "pre_tool_use.py": ("PreToolUse", "PreToolUse"),
    "post_tool_use.py": ("PostToolUse", "PostToolUse"),
    "subagent_stop.py": ("SubagentStop", "Stop"),
}


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


def each_tool() -> str:
    """Every tool with all its parameters and what it returns."""
    return f"\n{tool_reference(asyncio.run(build_server().list_tools()))}\n"


def alerts() -> str:
    """Every alert of a training with cause and remedy."""
    lines = ["| alert | likely cause | what to do |", "| --- | --- | --- |"]
    lines += [f"| `{kind}` | {cause} | {remedy} |" for kind, (cause, remedy) in KNOWN.items()]
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "tools": tools,
    "each_tool": each_tool,
    "alerts": alerts,
    "options": partial(options, TrainingRequest),
    "convert": partial(options, ConvertOptions),
    "method": partial(options, MethodOptions),
    "fuse": partial(options, FuseOptions),
    "generate": partial(options, GenerateOptions),
    "benchmark": partial(options, BenchmarkOptions),
}


def generated(text: str) -> str:
    """``text`` with its tables made anew."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- (\w+): [^>]*-->)\n.*?(<!-- end -->)", table, text, flags=re.S)


def project_agent() -> str:
    """The plugin's agent with the hooks that only project and user agents may have, and skills by their full names."""
    _, frontmatter, body = (ROOT / AGENT).read_text(encoding="utf-8").split("---\n", 2)
    declared = json.loads((ROOT / "hooks/hooks.json").read_text(encoding="utf-8"))["hooks"]
    lines = ["# Made of agents/ by scripts/generate_docs.py: edit that one.", frontmatter.rstrip(), "hooks:"]
    for script, (event, name) in _GATE.items():
        found = [(group, hook) for group in declared[event] for hook in group["hooks"] if script in hook["args"]]
        lines.append(f"  {name}:")
        for group, hook in found:
            command = f'/bin/sh "$CLAUDE_PROJECT_DIR/.claude/hook" {script}'
            lines.append(f'    - matcher: "{group.get("matcher", "")}"')
            lines += ["      hooks:", "        - type: command", f"          command: '{command}'"]
            lines += [f"          {key}: {hook[key]}" for key in ("timeout", "onFailure") if key in hook]
    head = re.sub(
        r"^skills: (.*)$",
        lambda found: "skills: " + ", ".join(f"mlx-training:{name.strip()}" for name in found[1].split(",")),
        "\n".join(lines),
        flags=re.M,
    )
    return f"---\n{head}\n---\n{body}"


def main() -> int:
    """Write what is made, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a table is not what the code says")
    check = parser.parse_args().check
    stale: list[str] = []
    made = {name: generated((ROOT / name).read_text(encoding="utf-8")) for name in DOCUMENTS}
    for name, after in {**made, PROJECT_AGENT: project_agent()}.items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != after:
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(after, encoding="utf-8")
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run `python scripts/generate_docs.py`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
