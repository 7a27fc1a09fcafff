"""What installing, updating and uninstalling do to a person's jobs and models: nothing."""

from __future__ import annotations

import json
from pathlib import Path

from mcp_server.demo import BASE

from .client import PLUGIN, TOOL, Claude, ask
from .marketplace import GitHost, copy_plugin
from .scripted_model import Request, Script


def _set_version(plugin: Path, version: str) -> None:
    manifest = plugin / ".claude-plugin" / "plugin.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": version}))


def convert(request: Request) -> Script:
    converted = yield from ask("convert_model", model=str(BASE), mlx_path="models/base-4bit", wait_seconds=100)
    assert converted["status"] == "completed", converted
    yield converted["job_id"]


def list_jobs(request: Request) -> Script:
    listed = yield from ask("list_jobs")
    yield json.dumps({job["job_id"]: job["status"] for job in listed["jobs"]})


def test_an_update_runs_the_new_version_and_knows_the_jobs_of_the_old_one(
    claude: Claude, mlx_jobs: dict[str, str], tmp_path: Path
) -> None:
    plugin = copy_plugin(tmp_path / "plugin")
    allowed = [f"{TOOL}*"]
    with GitHost(tmp_path / "git-host") as host:
        claude.command("plugin", "marketplace", "add", host.publish(plugin, PLUGIN)).expect_success()
        claude.command("plugin", "install", f"{PLUGIN}@{PLUGIN}").expect_success()
        job_id = claude.run(main=convert, allowed_tools=allowed, environment=mlx_jobs, timeout=180).answer

        _set_version(plugin, "0.1.1")
        host.publish(plugin, PLUGIN)
        claude.command("plugin", "marketplace", "update", PLUGIN).expect_success()
        claude.command("plugin", "update", f"{PLUGIN}@{PLUGIN}").expect_success()
    updated = claude.run(main=list_jobs, allowed_tools=allowed, environment=mlx_jobs)

    [loaded] = [each for each in updated.init["plugins"] if each["name"] == PLUGIN]
    assert Path(loaded["path"]).name == "0.1.1"
    assert json.loads(updated.answer) == {job_id: "completed"}

    claude.command("plugin", "uninstall", f"{PLUGIN}@{PLUGIN}").expect_success()

    assert not (claude.plugin_data / f"{PLUGIN}-{PLUGIN}").exists()
    assert (claude.state / "jobs" / job_id / "exit.json").exists()
    assert (claude.project / "models" / "base-4bit" / "config.json").exists()
