"""Servers that are killed and sessions side by side: the jobs belong to the machine, not to either."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil

from mcp_server.demo import BASE, task

from .client import REPOSITORY, TOOL, Claude, ask
from .scripted_model import Request, Script, ToolUse

LAUNCHER = str(REPOSITORY / "mcp_server" / "launch.py")


def servers(claude: Claude) -> list[psutil.Process]:
    """The MCP servers of this person's sessions."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-2:] == [LAUNCHER, "mcp_server"] and process.environ()["HOME"] == str(claude.home):
                found.append(process)
    return found


def test_after_a_server_was_killed_in_mid_call_the_next_session_goes_on_with_its_job(
    claude: Claude, mlx_jobs: dict[str, str]
) -> None:
    task.write_dataset(claude.project / "data")
    killed: list[int] = []

    def kill_server() -> None:
        [server] = servers(claude)
        killed.append(server.pid)
        server.kill()

    def first(request: Request) -> Script:
        started = yield from ask(
            "start_lora_training",
            **{**task.TRAINING, "iters": 100_000, "save_every": 1000},
            model=str(BASE),
            data="data",
            adapter_path="adapters/a",
        )
        threading.Timer(2, kill_server).start()
        wait = {"job_id": started["job_id"], "wait_seconds": 600, "until": "end"}
        request = yield ToolUse(f"{TOOL}read_training_log", wait)
        assert request.result.is_error
        yield started["job_id"]

    def second(request: Request) -> Script:
        listed = yield from ask("list_jobs")
        assert [job["status"] for job in listed["jobs"]] == ["working"]
        stopped = yield from ask("stop_job", job_id=listed["jobs"][0]["job_id"])
        yield json.dumps(stopped)

    allowed = [f"{TOOL}*"]
    job_id = claude.run(main=first, plugin_dirs=[REPOSITORY], allowed_tools=allowed, environment=mlx_jobs).answer
    stopped = json.loads(
        claude.run(main=second, plugin_dirs=[REPOSITORY], allowed_tools=allowed, environment=mlx_jobs).answer
    )

    assert len(killed) == 1
    assert (stopped["job_id"], stopped["status"]) == (job_id, "cancelled")
    assert (claude.project / "adapters" / "a" / "adapters.safetensors").exists()


def test_two_sessions_of_one_machine_take_turns(claude: Claude, mlx_jobs: dict[str, str]) -> None:
    def convert_to(name: str) -> str:
        def main(request: Request) -> Script:
            # Both servers are up before either begins.
            started = yield from ask("check_platform")
            while len(servers(claude)) < 2:
                started = yield from ask("list_jobs")
            converted = yield from ask("convert_model", model=str(BASE), mlx_path=name, wait_seconds=120)
            assert converted["status"] == "completed", (started, converted)
            yield converted["job_id"]

        session = claude.run(
            main=main, plugin_dirs=[REPOSITORY], allowed_tools=[f"{TOOL}*"], environment=mlx_jobs, timeout=200
        )
        return session.answer

    with ThreadPoolExecutor(2) as sessions:
        jobs = list(sessions.map(convert_to, ["models/a", "models/b"]))

    ends = [json.loads((claude.state / "jobs" / job / "state.json").read_text()) for job in jobs]
    earlier, later = sorted(ends, key=lambda end: end["started"])
    assert (
        earlier["ended"] <= later["started"] + 0.5
    )  # the lock is free once the worker has ended, its record comes after
    assert {"a", "b"} <= {path.name for path in (claude.project / "models").iterdir()}
