"""What every test gets: a state folder, a project and a platform of its own, and nothing of this machine's."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from mcp.client import Client

from mcp_server.demo import BASE, task
from mcp_server.jobs import store
from mcp_server.server import build_server

# Set for the whole run, workers included: no network, no compiler, no terminal colours.
os.environ |= {"HF_HUB_OFFLINE": "1", "MLX_DISABLE_COMPILE": "1", "NO_COLOR": "1"}
for _name in ("CLAUDE_PROJECT_DIR", "CLAUDE_PLUGIN_DATA", "MLX_TRAINING_PYTHON", "MLX_TRAINING_FACTS"):
    os.environ.pop(_name, None)
# A shell's background job (`make test &`) starts with SIGINT ignored, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state folder. Whatever a test left running in it is ended afterwards, by pid."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MLX_TRAINING_HOME", str(folder))
    monkeypatch.setenv("MLX_TRAINING_PLATFORMS", "linux-cpu,apple-silicon")
    yield folder
    for job in store.all_folders():
        state = job.state()
        for identity in (state.runner, state.worker):
            if identity is not None and identity.alive():
                psutil.Process(identity.pid).kill()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's project: the demo's data in ``data`` and the demo's model as ``model``."""
    folder = tmp_path / "project"
    task.write_dataset(folder / "data", seed=0)
    (folder / "model").symlink_to(BASE, target_is_directory=True)
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(folder))
    return folder


@pytest.fixture
def not_root(tmp_path: Path) -> Iterator[None]:
    """This test as an ordinary user, whom permissions stop. Named last among a test's fixtures."""
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of a server in this process."""
    async with Client(build_server()) as connected:
        yield connected
