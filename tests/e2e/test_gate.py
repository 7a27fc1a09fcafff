"""The gate in the real client: what it denies does not run, its crash blocks, the stop hook holds back once."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from .client import REPOSITORY, SPECIALIST, TOOL, Claude, agent_definition
from .scripted_model import Request, Script, ToolUse, ask_agent

DELETE = ToolUse("Bash", {"command": "rm -rf adapters"})
BODY = agent_definition()[1][:200]

# A server with the one tool that the stop hook looks for: it makes the job folder that the test asks for.
SERVER = """
import json, os, sys
home = os.environ["STATE"]
def call(arguments):
    folder = os.path.join(home, "jobs", arguments["id"])
    os.makedirs(folder, exist_ok=True)
    for name, value in arguments["files"].items():
        with open(os.path.join(folder, name), "w") as file:
            json.dump(value, file)
    answer = {"job_id": arguments["id"], "next": "read_training_log"}
    return {"content": [{"type": "text", "text": json.dumps(answer)}], "structuredContent": answer}
tool = {"name": "start_lora_training", "description": "start", "inputSchema": {"type": "object"}}
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    method = message["method"]
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        reply["result"] = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "mlx", "version": "1"}}
    elif method == "tools/list":
        reply["result"] = {"tools": [tool]}
    elif method == "tools/call":
        reply["result"] = call(message["params"]["arguments"])
    else:
        reply["error"] = {"code": -32601, "message": "no such method"}
    print(json.dumps(reply), flush=True)
"""


@pytest.fixture
def plugin(tmp_path: Path, claude: Claude) -> Path:
    """The hooks and the agent as they are, with a server that needs nothing to be installed."""
    folder = tmp_path / "plugin"
    for part in ("hooks", "agents", "mcp_server"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "base"))
    (folder / "server.py").write_text(SERVER)
    (folder / ".claude-plugin").mkdir()
    server = {
        "command": sys.executable,
        "args": ["${CLAUDE_PLUGIN_ROOT}/server.py"],
        "env": {"STATE": str(claude.state)},
    }
    manifest = {"name": "mlx-training", "version": "0.0.1", "mcpServers": {"mlx": server}}
    (folder / ".claude-plugin/plugin.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def weights(claude: Claude) -> Path:
    file = claude.project / "adapters/my-lora/adapters.safetensors"
    file.parent.mkdir(parents=True)
    file.write_text("weights")
    return file


@pytest.mark.parametrize("mode", ["default", "bypassPermissions"])
def test_a_denied_command_does_not_run_in_the_main_agent(
    claude: Claude, plugin: Path, weights: Path, mode: str
) -> None:
    def main(request: Request) -> Script:
        request = yield DELETE
        assert request.result.is_error
        assert "[artefacts]" in request.result.text
        assert "mv adapters adapters.old" in request.result.text
        request = yield ToolUse("Bash", {"command": "echo harmless; ls adapters"})
        assert request.result.text.split() == ["harmless", "my-lora"]
        yield "done"

    claude.run(main=main, plugin_dirs=[plugin], allowed_tools=["Bash"], permission_mode=mode).expect_success()
    assert weights.read_text() == "weights"


@pytest.mark.parametrize("mode", ["default", "bypassPermissions"])
def test_a_denied_command_does_not_run_in_the_specialist(
    claude: Claude, plugin: Path, weights: Path, mode: str
) -> None:
    def specialist(request: Request) -> Script:
        request = yield DELETE
        assert request.result.is_error
        assert "[artefacts]" in request.result.text
        request = yield ToolUse(
            "Write", {"file_path": str(weights.parents[2] / "data/train.jsonl"), "content": "not json\n"}
        )
        assert "[data-content]" in request.result.text
        yield "nothing was deleted"

    claude.run(
        main=[ask_agent(SPECIALIST, "clean up"), "done"], agents={BODY: specialist},
        plugin_dirs=[plugin], allowed_tools=["Bash", "Write", "Agent"], permission_mode=mode,
    ).expect_success()  # fmt: skip
    assert weights.read_text() == "weights"
    assert not (claude.project / "data/train.jsonl").exists()


def test_what_is_asked_is_not_run_where_nobody_can_answer(claude: Claude, plugin: Path) -> None:
    def main(request: Request) -> Script:
        request = yield ToolUse("Bash", {"command": "echo marker > ran; hf upload me/x adapters"})
        assert request.result.is_error
        assert "[hub]" in request.result.text
        yield "done"

    claude.run(main=main, plugin_dirs=[plugin], allowed_tools=["Bash"]).expect_success()
    assert not (claude.project / "ran").exists()


@pytest.mark.parametrize(
    "broken",
    [
        ("hooks/pre_tool_use.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"),
        ("hooks/pre_tool_use.py", "raise SystemExit(1)\n"),
        ("hooks/guard/gate.py", "def (\n"),
    ],
    ids=["killed", "exit 1", "does not compile"],
)
def test_a_crash_of_the_hook_blocks(claude: Claude, plugin: Path, weights: Path, broken: tuple[str, str]) -> None:
    (plugin / broken[0]).write_text(broken[1])

    def main(request: Request) -> Script:
        request = yield DELETE
        assert request.result.is_error
        assert "refused" in request.result.text
        yield "done"

    claude.run(main=main, plugin_dirs=[plugin], allowed_tools=["Bash"]).expect_success()
    assert weights.read_text() == "weights"


def test_after_a_write_the_model_reads_what_is_wrong(claude: Claude, plugin: Path) -> None:
    def main(request: Request) -> Script:
        path = str(claude.project / "lora.yaml")
        request = yield ToolUse(
            "Write", {"file_path": path, "content": "model: m\ntrain: true\niters: 10\nlora_layers: 4\n"}
        )
        assert "line 4" in request.text
        assert "num_layers" in request.text
        yield "done"

    claude.run(main=main, plugin_dirs=[plugin], allowed_tools=["Write"]).expect_success()


FAILED = {
    "state.json": {"status": "failed", "why": "out of memory in step 12"},
    "spec.json": {"kind": "train", "options": {}},
}
RUNNING = {"state.json": {"status": "working"}, "spec.json": {"kind": "train", "options": {}}}
FINISHED = {"state.json": {"status": "completed"}, "spec.json": {"kind": "train", "options": {"adapter_path": "/a"}}}


@pytest.mark.parametrize(
    ("files", "first", "second", "held_for"),
    [
        (FAILED, "All went well.", "It failed: out of memory.", "out of memory in step 12"),
        (RUNNING, "I started it.", "Job train-1 runs; follow it with read_training_log.", "still working"),
        (FINISHED, "It is trained.", "Still only trained.", "never compared"),
        (FAILED, "The job failed, it ran out of memory.", "", ""),
    ],
    ids=["failed", "running", "not compared", "said already"],
)  # fmt: skip
def test_the_specialist_is_held_back_once(
    claude: Claude, plugin: Path, files: dict[str, Any], first: str, second: str, held_for: str
) -> None:
    def main(request: Request) -> Script:
        yield ToolUse(
            "Bash", {"command": "sleep 2"}
        )  # the server connects meanwhile: the specialist gets its tool at once
        yield ask_agent(SPECIALIST, "train")
        yield "done"

    def specialist(request: Request) -> Script:
        request = yield ToolUse(f"{TOOL}start_lora_training", {"id": "train-1", "files": files})
        assert not request.result.is_error, request.result.text
        request = yield first
        assert held_for
        assert held_for in request.text
        assert "Before you stop" in request.text
        yield second

    session = claude.run(
        main=main, agents={BODY: specialist}, plugin_dirs=[plugin], allowed_tools=["Bash", "Agent", f"{TOOL}*"]
    ).expect_success()
    assert (second or first) in session.of()[-1].text
    assert len(session.of(BODY)) == (3 if second else 2)


def test_as_main_thread_it_is_held_back_once_too(claude: Claude, plugin: Path) -> None:
    def main(request: Request) -> Script:
        yield ToolUse("Bash", {"command": "sleep 2"})
        request = yield ToolUse(f"{TOOL}start_lora_training", {"id": "train-1", "files": FAILED})
        assert not request.result.is_error, request.result.text
        request = yield "All went well."
        assert "out of memory in step 12" in request.text
        yield "It failed."

    session = claude.run(
        main=main, plugin_dirs=[plugin], allowed_tools=["Bash", f"{TOOL}*"], arguments=["--agent", SPECIALIST]
    ).expect_success()
    assert session.answer == "It failed."
