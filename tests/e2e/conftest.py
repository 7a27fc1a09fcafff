"""Fixtures of the end-to-end tests: each test that asks for `claude` runs with every supported client version."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import install
from .client import Claude


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "e2e: drives the real Claude Code client with a scripted model")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


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
