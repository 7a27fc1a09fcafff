"""The protocol's own tools over the whole server: its conformance suite in both revisions, and the MCP Inspector.

Most scenarios of the suite test an SDK and ask for fixtures of fixed names (`test_image_content`, `test://static-text`,
`test_simple_prompt`), or for what this server does not do (sampling, elicitation, logging, completion, subscriptions):
those don't fit. Two more (`tools-call-simple-text`, `tools-call-error`) would pass without meaning anything, since the
refusal of an unknown tool satisfies them. What fits is listed here by revision.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mcp_server.demo import BASE, task
from tests.helpers import training, wait_until

from . import install
from .client import REPOSITORY

CONFORMANCE = ("@modelcontextprotocol/conformance", "0.2.0-alpha.12", "conformance")
INSPECTOR = ("@modelcontextprotocol/inspector", "2.12.0", "mcp-inspector")
IN_BOTH = ("tools-list", "resources-list", "prompts-list", "server-sse-multiple-streams", "dns-rebinding-protection")
FITTING = {
    "2025-11-25": (*IN_BOTH, "server-initialize", "server-session-lifecycle", "ping"),
    "2026-07-28": (*IN_BOTH, "caching", "http-header-validation", "sep-2164-resource-not-found"),
}


def command(package: tuple[str, str, str]) -> list[str]:
    try:
        return install.node_program(*package)
    except install.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The server over HTTP on loopback, in the project that is the module's own."""
    folder = tmp_path_factory.mktemp("protocol")
    project = folder / "project"
    task.write_dataset(project / "data", seed=0)
    (project / "model").symlink_to(BASE, target_is_directory=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "MLX_TRAINING_HOME": str(folder / "home"),
        "MLX_TRAINING_PLATFORMS": "linux-cpu,apple-silicon",
        "CLAUDE_PROJECT_DIR": str(project),
        "PYTHONPATH": str(REPOSITORY),
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "mcp_server", "--http", "--port", str(port)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _answers(port), "the server")
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("revision", "scenario"), [(revision, each) for revision, fitting in FITTING.items() for each in fitting]
)
def test_the_server_conforms(address: str, tmp_path: Path, revision: str, scenario: str) -> None:
    chosen = ["server", "--url", address, "--spec-version", revision, "--scenario", scenario, "-o", str(tmp_path)]

    done = subprocess.run(
        [*command(CONFORMANCE), *chosen], capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path
    )

    assert done.returncode == 0, done.stdout + done.stderr
    [checks] = [json.loads(path.read_text()) for path in tmp_path.rglob("checks.json")]
    found = [check["status"] for check in checks]
    assert "SUCCESS" in found
    assert set(found) <= {"SUCCESS", "INFO", "SKIPPED"}


def inspect(address: str, method: str, tool: str | None = None, arguments: dict[str, Any] | None = None) -> Any:
    """What the Inspector's command line prints, as JSON."""
    words = [*command(INSPECTOR), "--cli", address, "--transport", "http", "--method", method]
    if tool is not None:
        words += ["--tool-name", tool]
    for name, value in (arguments or {}).items():
        words += ["--tool-arg", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: the tool answered with an error
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def tools(address: str) -> dict[str, Any]:
    return {tool["name"]: tool for tool in inspect(address, "tools/list")["tools"]}


def test_the_inspector_gets_every_tool_of_the_list_to_refuse_what_it_does_not_know(
    address: str, tools: dict[str, Any]
) -> None:
    assert len(tools) >= 12
    for name in tools:
        result = inspect(address, "tools/call", name, {"no_such_argument": "1"})
        text = result["content"][0]["text"]
        assert result["isError"], (name, text)
        assert "no_such_argument" in text
        assert "known arguments: " in text or "is required" in text, text


# In an order in which each finds what those before it have made.
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("check_platform", {}),
    ("get_metal_memory", {}),
    ("prepare_environment", {}),
    ("inspect_dataset", {"data": "data"}),
    ("prepare_dataset", {"source": "data/train.jsonl", "output": "prepared"}),
    ("plan_training", {"model": "model", "data": "data"}),
    ("convert_model", {"model": "model", "mlx_path": "converted"}),
    ("start_lora_training", training()),
    ("read_training_log", {"job_id": "", "wait_seconds": 90, "until": "end"}),
    ("run_benchmark", {"model": "model", "adapter_path": "adapters/test", "data": "data", "num_prompts": 2}),
    ("generate_text", {"model": "model", "adapter_path": "adapters/test", "prompt": "How much?", "max_tokens": 4}),
    ("fuse_adapter", {"model": "model", "adapter_path": "adapters/test", "save_path": "fused"}),
    ("list_adapters", {}),
    ("make_report", {"job_id": ""}),
    ("list_jobs", {}),
    ("stop_job", {"job_id": ""}),
]


@pytest.mark.slow
def test_the_inspector_gets_an_answer_of_every_tool(address: str, tools: dict[str, Any]) -> None:
    if importlib.util.find_spec("mlx_lm") is None:
        pytest.skip("mlx-lm is not installed here (uv sync --extra mlx)")
    assert {name for name, _ in CALLS} == tools.keys()
    job_id = ""
    for name, arguments in CALLS:
        given = {**arguments, "job_id": job_id} if "job_id" in arguments else arguments
        result = inspect(address, "tools/call", name, given)
        assert not result.get("isError"), (name, result["content"])
        assert result["structuredContent"]
        if name == "start_lora_training":
            job_id = result["structuredContent"]["job_id"]
