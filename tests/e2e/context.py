"""What the plugin adds to a session: the client's requests with it, less those without it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .client import REPOSITORY, SPECIALIST, TOOL, Claude, agent_definition
from .scripted_model import Request, Script, ask_agent, call_mcp


@dataclass(frozen=True)
class Context:
    """The lines that the main agent is sent because of the plugin, and the specialist's first request."""

    main: list[str]
    specialist: Request


def measure(version: str, folder: Path, environment: Mapping[str, str] | None = None) -> Context:
    """Run a session without the plugin and one with it, in which the server is up and the specialist is started."""

    def main(_: Request) -> Script:
        yield from call_mcp(f"{TOOL}list_jobs")
        yield ask_agent(SPECIALIST, "go")
        yield "done"

    marker = agent_definition()[1][:200]
    bare, full = Claude(version, folder / "one"), Claude(version, folder / "two")
    variables = {**bare.offline_uv(), **(environment or {})}
    without = bare.run(main=["done"], environment=variables)
    session = full.run(
        main=main,
        agents={marker: ["done"]},
        plugin_dirs=[REPOSITORY],
        allowed_tools=[f"{TOOL}*"],
        environment=variables,
    )
    found = _added(session.of()[-1], without.of()[-1], (folder / "one", folder / "two"))
    return Context(found, session.of(marker)[0])


def _added(with_it: Request, without: Request, folders: Iterable[Path]) -> list[str]:
    """The lines of one request that the other lacks; what differs by temporary folder alone is no difference."""

    def plain(line: str) -> str:
        for folder in folders:
            line = line.replace(str(folder), "").replace(re.sub(r"[^A-Za-z0-9]", "-", str(folder)), "")
        return line

    missing = Counter(plain(line) for line in _lines(with_it)) - Counter(plain(line) for line in _lines(without))
    return list(missing.elements())


def _lines(request: Request) -> list[str]:
    """All that a request says besides the model's own turns and the tools' results, one line an entry."""
    contents = [request.body.get("system") or []]
    contents += [message["content"] for message in request.messages if message["role"] != "assistant"]
    texts = [json.dumps(tool) for tool in request.tools.values()]
    for content in contents:
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [block["text"] for block in blocks if block["type"] == "text"]
    return [line for text in texts for line in text.splitlines() if line.strip()]
