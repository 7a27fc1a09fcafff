"""Fixtures of the end-to-end tests: each test that asks for `claude` runs with every supported client version."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from mcp_server.jobs import service, store

from . import install
from .client import Claude

# With the older client these run in `make e2e` alone: what they show hangs on our code more than on the client's.
NEWEST_ALONE = ("test_gate", "test_lifecycle", "test_main_job", "test_repository", "test_sessions", "test_wake")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            # The first test that needs a client also fetches it: some 250 to 400 MB.
            item.add_marker(pytest.mark.timeout(300))
            if item.path.stem in NEWEST_ALONE and f"[{install.VERSIONS[-1]}" in item.name:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(params=install.VERSIONS)
def claude(request: pytest.FixtureRequest, tmp_path: Path) -> Claude:
    """A client with an empty home and project; skips with the reason where it can't be had."""
    try:
        return Claude(request.param, tmp_path)
    except install.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def offline_uv(claude: Claude) -> dict[str, str]:
    """The environment in which uv starts the plugin's server without the network."""
    try:
        return claude.offline_uv()
    except install.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def mlx_jobs(claude: Claude, offline_uv: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Generator[dict[str, str]]:
    """The environment in which the plugin's jobs run in this test's own interpreter, on this machine's back end."""
    if importlib.util.find_spec("mlx_lm") is None:
        pytest.skip("mlx-lm is not installed here (uv sync --extra mlx)")
    chosen = {"MLX_TRAINING_PYTHON": sys.executable, "HF_HUB_OFFLINE": "1"}
    if sys.platform == "linux":
        # On the CPU build each fused kernel would cost a call of g++; a faster BLAS may be preloaded.
        chosen |= {"MLX_TRAINING_PLATFORMS": "linux-cpu", "MLX_DISABLE_COMPILE": "1"}
        chosen |= {name: os.environ[name] for name in ("LD_PRELOAD",) if name in os.environ}
    yield {**offline_uv, **chosen}
    # Jobs outlive their sessions on purpose, so a test that failed half-way has to end its own.
    monkeypatch.setenv("MLX_TRAINING_HOME", str(claude.state))
    for folder in sorted(claude.state.glob("jobs/*")):
        service.ask_to_stop(store.get(folder.name), action="kill")
