"""The server process: light, and the same tools whoever asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mcp.client import Client

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"mlx", "mlx_lm", "transformers", "numpy", "matplotlib", "huggingface_hub", "tokenizers"}
# What the hooks import of this package: they start in milliseconds and run on Python 3.9, with its library alone.
SHARED_WITH_HOOKS = (
    "mcp_server.settings",
    "mcp_server.datasets.rows",
    "mcp_server.jobs.lock",
    "mcp_server.jobs.news",
    "mcp_server.jobs.pace",
    "mcp_server.platform.facts",
)


def modules_after(code: str) -> set[str]:
    """The top-level modules loaded in a fresh process after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_server_starts_without_any_heavy_import():
    loaded = modules_after("from mcp_server.server import build_server\nbuild_server()")
    assert "mcp" in loaded
    assert not loaded & HEAVY


def test_command_line_starts_without_mcp_and_mlx():
    loaded = modules_after("from mcp_server.cli import _parser\n_parser()")
    assert "pydantic" in loaded
    assert not loaded & (HEAVY | {"mcp"})


@pytest.mark.parametrize("module", SHARED_WITH_HOOKS)
def test_module_shared_with_hooks_needs_the_standard_library_alone(module: str):
    loaded = modules_after(f"import {module}")
    assert "mcp_server" in loaded
    outside = {name for name in loaded if not name.startswith("_")} - set(sys.stdlib_module_names) - {"mcp_server"}
    # What site-packages' own .pth files load is not ours.
    assert outside <= modules_after("pass"), outside


@pytest.mark.anyio
async def test_tools_follow_the_rules(client: Client):
    tools = (await client.list_tools()).tools
    assert len({tool.name for tool in tools}) == len(tools)
    assert {
        "check_platform",
        "convert_model",
        "start_lora_training",
        "read_training_log",
        "run_benchmark",
        "get_metal_memory",
        "list_jobs",
        "stop_job",
    } <= {tool.name for tool in tools}
    for tool in tools:
        assert tool.title, tool.name
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is not None
        assert tool.annotations.destructive_hint is not None
        assert not (tool.annotations.read_only_hint and tool.annotations.destructive_hint)
        assert tool.description
        assert 40 < len(tool.description) <= 2000
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema is not None
        for name, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), f"{tool.name}.{name} has no description"


@pytest.mark.anyio
async def test_every_tool_that_answers_about_one_job_is_followed_by_the_wake_hook(client: Client):
    hooks = json.loads((ROOT / "hooks" / "hooks.json").read_text())["hooks"]["PostToolUse"]
    [matcher] = [entry["matcher"] for entry in hooks if any("asyncRewake" in hook for hook in entry["hooks"])]
    about_one_job = {
        tool.name
        for tool in (await client.list_tools()).tools
        if {"job_id", "status"} <= (tool.output_schema or {})["properties"].keys()
    }
    listed = matcher.removeprefix("mcp__plugin_mlx-training_mlx__(").removesuffix(")").split("|")
    assert sorted(listed) == sorted(about_one_job)


@pytest.mark.anyio
async def test_no_required_result_field_may_be_null(client: Client):
    # Null fields are left out of results, so a schema that demands them would be broken by our own answers.
    for tool in (await client.list_tools()).tools:
        schema = tool.output_schema or {}
        for part in (schema, *schema.get("$defs", {}).values()):
            for name in part.get("required", []):
                kinds = [option.get("type") for option in part["properties"][name].get("anyOf", [])]
                assert "null" not in kinds, f"{tool.name}: {part.get('description')}: {name}"


@pytest.mark.anyio
async def test_reading_tools_say_that_they_only_read(client: Client):
    read_only = {
        tool.name for tool in (await client.list_tools()).tools if tool.annotations and tool.annotations.read_only_hint
    }
    assert {"check_platform", "get_metal_memory", "read_training_log", "list_jobs"} <= read_only
    assert not read_only & {"start_lora_training", "convert_model", "run_benchmark", "stop_job"}
