"""The places that name the version agree, so that a release is what its tag says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import mcp_server

ROOT = Path(__file__).resolve().parents[2]


def test_package_plugin_and_changelog_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    [entry] = json.loads((ROOT / ".claude-plugin/marketplace.json").read_text(encoding="utf-8"))["plugins"]
    plugin = json.loads((ROOT / ".claude-plugin/plugin.json").read_text(encoding="utf-8"))["version"]
    newest = re.findall(r"^## (\d+\.\d+\.\d+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[0]
    locked = re.search(
        r'^name = "mlx-training"\nversion = "([^"]+)"', (ROOT / "uv.lock").read_text(encoding="utf-8"), re.M
    )
    assert locked is not None
    assert {mcp_server.__version__, plugin, newest, locked[1], entry.get("version", project)} == {project}
