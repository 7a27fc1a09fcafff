"""The first start on a fresh machine, and what is said where it can't succeed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from . import install
from .client import PLUGIN, REPOSITORY, TOOL, Claude, ask
from .scripted_model import Request, Script, call_mcp

START = REPOSITORY / "mcp_server" / "start.sh"


@pytest.fixture
def uv() -> Path:
    try:
        return install.uv()
    except install.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def machine(uv: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine where the plugin never ran: uv's cache is warm, there is no network."""
    try:
        cache = install.uv_cache_with_dependencies(REPOSITORY)
    except install.Unavailable as reason:
        pytest.skip(str(reason))
    return {
        "HOME": str(tmp_path),
        "PATH": os.defpath,
        "UV": str(uv),
        "UV_CACHE_DIR": str(cache),
        "UV_OFFLINE": "1",
        "UV_PYTHON": install.python(),
        "CLAUDE_PLUGIN_DATA": str(tmp_path / "data"),
        "MLX_TRAINING_START_SECONDS": "60",  # however busy the machine of the tests is
    }


def without_uv(tmp_path: Path) -> str:
    """A PATH with what a system has at the least: the programs of POSIX that the launcher calls, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ["sh", "uname", "cksum", "tr", "cut", "tail", "sed", "mkdir", "rm", "sleep", "touch", "find", "mv"]:
        (folder / name).symlink_to(str(shutil.which(name)))
    return str(folder)


async def check_platform(environment: dict[str, str], shell: str = "/bin/sh") -> tuple[list[str], bool, str]:
    """The tools offered, and what check_platform answers (whether as an error, and the text)."""
    async with Client(StdioServerParameters(command=shell, args=[str(START)], env=environment)) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        result = await client.call_tool("check_platform", {})
        return tools, bool(result.is_error), " ".join(getattr(block, "text", "") for block in result.content)


@pytest.mark.anyio
async def test_two_sessions_that_start_at_once_on_a_fresh_machine_share_one_whole_environment(
    machine: dict[str, str],
) -> None:
    answers: list[tuple[list[str], bool, str]] = []

    async def session() -> None:
        answers.append(await check_platform(machine))

    async with anyio.create_task_group() as group:
        group.start_soon(session)
        group.start_soon(session)

    assert [len(tools) > 5 and not failed for tools, failed, _ in answers] == [True, True]
    data = Path(machine["CLAUDE_PLUGIN_DATA"])
    assert sorted(path.name.split("-")[0] for path in data.iterdir()) == ["bytecode", "server"]


@pytest.mark.anyio
async def test_an_environment_whose_interpreter_has_gone_is_made_again(machine: dict[str, str]) -> None:
    await check_platform(machine)
    [place] = Path(machine["CLAUDE_PLUGIN_DATA"]).glob("server-*")
    (place / "bin" / "python").unlink()
    (place / "bin" / "python").symlink_to("/nowhere/python3.11")

    _, failed, _ = await check_platform(machine)

    assert not failed


@pytest.mark.anyio
async def test_a_second_start_needs_neither_uv_nor_the_network(machine: dict[str, str], tmp_path: Path) -> None:
    await check_platform(machine)
    lonely = {key: machine[key] for key in ("HOME", "CLAUDE_PLUGIN_DATA")} | {"PATH": without_uv(tmp_path)}

    _, failed, _ = await check_platform(lonely)

    assert not failed


@pytest.mark.anyio
@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
@pytest.mark.parametrize("case", ["no uv", "no network", "not writable", "slow"])
async def test_what_prevents_the_start_is_said_through_mcp(
    machine: dict[str, str], tmp_path: Path, case: str, shell: str
) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    path = without_uv(tmp_path)
    slow = tmp_path / "slow-uv"
    slow.write_text("#!/bin/sh\nexec sleep 5\n")
    slow.chmod(0o755)
    (tmp_path / "file").touch()
    changed, expected = {
        "no uv": ({"UV": "", "PATH": path}, "brew install uv"),
        "no network": ({"UV_CACHE_DIR": str(tmp_path / "empty")}, "check the network"),
        "not writable": ({"CLAUDE_PLUGIN_DATA": str(tmp_path / "file" / "data")}, "mend its permissions"),
        "slow": ({"UV": str(slow), "MLX_TRAINING_START_SECONDS": "1"}, "still being installed"),
    }[case]
    if case == "no uv" and any(Path(place).exists() for place in ("/opt/homebrew/bin/uv", "/usr/local/bin/uv")):
        pytest.skip("this machine has uv where the launcher looks for it")
    if case == "no uv" and Path("/usr/bin/python3").exists():
        changed |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
        expected = "check the network"  # it would be fetched with that Python

    tools, failed, text = await check_platform({**machine, **changed}, found)

    assert tools == ["check_platform"]
    assert failed
    assert expected in text
    assert "restart Claude Code" in text
    data = tmp_path / "data"
    assert case == "slow" or not data.exists() or not list(data.glob("[.s]*"))


def test_no_word_of_a_reason_breaks_the_wire(tmp_path: Path) -> None:
    reason = 'a "quoted" \\ reason,\nin two lines\twith $HOME, `id`, 100 % and ü'
    call = '{"jsonrpc":"2.0","id":"x-1","method":"tools/call","params":{"name":"check_platform","arguments":{}}}\n'
    done = subprocess.run(
        ["/bin/sh", str(REPOSITORY / "mcp_server" / "refuse.sh"), reason, str(tmp_path / "none")],
        input='{"jsonrpc":"2.0","method":"notifications/initialized"}\n' + call,
        capture_output=True,
        text=True,
        check=True,
    )

    [line] = done.stdout.splitlines()
    answer = json.loads(line)
    assert answer["id"] == "x-1"
    assert "a 'quoted' / reason, in two lines with $HOME, `id`, 100 % and ü" in answer["result"]["content"][0]["text"]


def test_a_client_that_has_no_uv_on_its_path_finds_it_where_it_is_installed(
    claude: Claude, offline_uv: dict[str, str]
) -> None:
    (claude.home / ".local" / "bin").mkdir(parents=True)
    (claude.home / ".local" / "bin" / "uv").symlink_to(install.uv())
    folders = claude.environment()["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if not (Path(folder) / "uv").exists())

    def main(request: Request) -> Script:
        listed = yield from ask("list_jobs")
        yield listed["showing"]

    session = claude.run(
        main=main, plugin_dirs=[REPOSITORY], allowed_tools=[f"{TOOL}*"], environment={**offline_uv, "PATH": path}
    )

    assert session.answer == "0 of 0 jobs"


def test_the_agent_is_told_why_there_are_no_tools(claude: Claude, offline_uv: dict[str, str], tmp_path: Path) -> None:
    def main(request: Request) -> Script:
        result = yield from call_mcp(f"{TOOL}check_platform")
        assert result.is_error
        yield result.text

    session = claude.run(
        main=main,
        plugin_dirs=[REPOSITORY],
        allowed_tools=[f"{TOOL}*"],
        environment={**offline_uv, "UV_CACHE_DIR": str(tmp_path / "empty")},
    )

    assert "mlx-training can't start: the package index could not be reached" in session.answer
    assert not list((claude.plugin_data / f"{PLUGIN}-inline").glob("server-*"))
