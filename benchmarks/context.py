"""What the plugin costs in tokens: in every session, in the specialist, and for a whole fine-tuning.

The fixed part is what the real Claude Code sends to the model with the plugin and does not send without it, taken from
its requests to the scripted model of ``tests/e2e``. The main job runs on the demo's model through the real tools; what is
counted is each result as the client shows it to the model, compact JSON of the structured content.

Counted with the vocabulary that the package anthropic 0.38.0 carries (an older model's; the newest are not published) and as
characters / 4 beside it:

    python benchmarks/context.py [--client 2.1.197]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from mcp.client import Client

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import environments
from mcp_server.demo import BASE, task
from mcp_server.server import build_server
from tests.e2e import client as e2e
from tests.e2e.context import measure
from tests.e2e.scripted_model import Request

Count = Callable[[str], int]
_PARTS = {
    "agent": r"^- (mlx-training:)?mlx-training-specialist: ",
    "skills and commands": r"^- mlx-training:",
    "tool names": r"^mcp__plugin_mlx-training_mlx__",
    "tool schemas": r'^\{"name": "mcp__plugin_mlx-training_mlx__',
}


def tokenizer() -> Count:
    """Tokens of a text. Raises SystemExit when the vocabulary can't be had."""
    from tokenizers import Tokenizer

    try:
        loaded = Tokenizer.from_file(str(environments.vocabulary()))
    except environments.UnavailableError as error:
        raise SystemExit(f"the vocabulary of {environments.VOCABULARY} can't be had: {error}") from error
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)


def both(count: Count, text: str) -> dict[str, int]:
    return {"tokens": count(text), "characters_4": round(len(text) / 4)}


def main_session(count: Count, found: list[str]) -> dict[str, Any]:
    """The fixed context in the main session, by part."""
    parts: dict[str, list[str]] = {name: [] for name in (*_PARTS, "the rest")}
    for line in found:
        parts[next((name for name, form in _PARTS.items() if re.match(form, line)), "the rest")].append(line)
    figures = {name: both(count, "\n".join(texts)) for name, texts in parts.items() if texts}
    return {"total": both(count, "\n".join(found)), **figures}


def specialist(count: Count, request: Request) -> dict[str, Any]:
    """What the specialist starts with that is ours: its body, the skills, the tools' schemas."""
    _, body = e2e.agent_definition()
    tools = {name: json.dumps(tool) for name, tool in request.tools.items() if name.startswith(e2e.TOOL)}
    skills = [path.read_text(encoding="utf-8") for path in (e2e.REPOSITORY / "skills").glob("*/SKILL.md")]
    loaded = [text.split("---\n", 2)[2] for text in skills if text.split("---\n", 2)[2].splitlines()[1] in request.text]
    by_tool = {name.removeprefix(e2e.TOOL): count(text) for name, text in tools.items()}
    return {
        "body": both(count, body),
        "skills": both(count, "\n".join(loaded)),
        "tool schemas": both(count, "\n".join(tools.values())),
        "by tool, tokens": dict(sorted(by_tool.items(), key=lambda item: -item[1])),
    }


async def main_job(count: Count, folder: Path) -> dict[str, Any]:
    """A whole fine-tuning: every result's tokens, as the model reads them."""
    os.environ |= {"CLAUDE_PROJECT_DIR": str(folder), "MLX_TRAINING_HOME": str(folder / "home")}
    os.environ.setdefault("MLX_TRAINING_PLATFORMS", "apple-silicon,linux-cpu")
    task.write_dataset(folder / "data", seed=0)
    (folder / "model").symlink_to(BASE, target_is_directory=True)
    calls: list[dict[str, Any]] = []
    async with Client(build_server()) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, result.content
            assert result.structured_content is not None
            text = json.dumps(result.structured_content, separators=(",", ":"), ensure_ascii=False)
            calls.append({"tool": tool, **both(count, text)})
            return result.structured_content

        await call("check_platform")
        await call("inspect_dataset", data="data", model="model", mask_prompt=True)
        plan = await call("plan_training", model="model", data="data")
        started = await call("start_lora_training", **plan["arguments"])
        news = await call("read_training_log", job_id=started["job_id"], wait_seconds=300, until="val")
        while not news["finished"]:
            news = await call(
                "read_training_log", job_id=started["job_id"], since=news["cursor"], wait_seconds=600, until="end"
            )
        assert news["status"] == "completed", news
        await call("run_benchmark", model="model", adapter_path=started["adapter_path"], data="data", wait_seconds=600)
    totals = {unit: sum(each[unit] for each in calls) for unit in ("tokens", "characters_4")}
    return {"calls": len(calls), "results": totals, "each": calls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", default="newest", help="version of Claude Code (default newest)")
    version = parser.parse_args().client
    count = tokenizer()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The older client searches for tools by itself at Anthropic's own address only; elsewhere it sends every schema.
        context = measure(version, folder, {"ENABLE_TOOL_SEARCH": "true"})
        figures: dict[str, Any] = {
            "benchmark": "tokens",
            "vocabulary": environments.VOCABULARY,
            "client": version,
            "main session": main_session(count, context.main),
            "specialist": specialist(count, context.specialist),
            "main job": anyio.run(main_job, count, folder),
            "goals": "main session <= 1200, calls <= 10, results <= 8000, each <= 2500",
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
