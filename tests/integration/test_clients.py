"""The configurations in docs/clients.md: valid JSON, and each command really starts the server."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client import Client

from tests.e2e import install
from tests.helpers import call

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = dict(
    re.findall(
        r"^## (.+?)\n.*?```json\n(.*?)```", (ROOT / "docs" / "clients.md").read_text(encoding="utf-8"), re.M | re.S
    )
)


def server_of(snippet: str, project: Path) -> dict[str, Any]:
    """The one server that a configuration declares, with a person's folders put in."""
    filled = snippet.replace("/path/to/mlx-training", str(ROOT)).replace("/path/to/your/project", str(project))
    declared = json.loads(filled.replace("${workspaceFolder}", str(project)))
    [servers] = declared.values()
    return servers["mlx-training"]


def test_each_client_has_its_own_form() -> None:
    assert SNIPPETS.keys() == {"Claude Desktop", "VS Code", "Cursor"}
    assert {next(iter(json.loads(text))) for text in SNIPPETS.values()} == {"mcpServers", "servers"}


def test_the_readmes_configurations_are_the_same() -> None:
    shown = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert [json.loads(text) for text in shown] == [
        json.loads(SNIPPETS[name]) for name in ("Claude Desktop", "VS Code")
    ]


@pytest.mark.parametrize("name", SNIPPETS)
async def test_the_command_of_a_configuration_starts_the_server_for_the_project(
    name: str, project: Path, tmp_path: Path
) -> None:
    try:
        uv, cache = install.uv(), install.uv_cache_with_dependencies(ROOT)
    except install.Unavailable as reason:
        pytest.skip(str(reason))
    declared = server_of(SNIPPETS[name], project)
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(uv.parent), "/usr/bin", "/bin"]),
        "UV_CACHE_DIR": str(cache),
        "UV_OFFLINE": "1",
        "UV_PYTHON": install.python(),
        "UV_PROJECT_ENVIRONMENT": str(tmp_path / "environment"),  # a clone's own would be .venv in it
        "MLX_TRAINING_HOME": os.environ["MLX_TRAINING_HOME"],
    }
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "json.py").write_text("raise RuntimeError('a file of the current folder was imported')")
    parameters = StdioServerParameters(
        command=declared["command"], args=declared["args"], env=environment | declared["env"], cwd=folder
    )
    async with Client(parameters) as client:
        assert len((await client.list_tools()).tools) >= 12
        report = await call(client, "inspect_dataset", data="data")
        assert report["data"] == str(project / "data")
