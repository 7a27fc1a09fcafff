"""What people get who work in a clone of this repository: the plugin, and the specialist's project-level form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_server.demo import task

from .client import PLUGIN, SPECIALIST, TOOL, Claude, agent_definition, ask
from .marketplace import copy_plugin, git
from .scripted_model import Request, Script, ToolUse, ask_agent

BODY = agent_definition()[1][:200]
PROJECT_AGENT = "mlx-training-specialist"
DELETE = ToolUse("Bash", {"command": "rm -rf adapters"})


@pytest.fixture
def clone(claude: Claude, tmp_path: Path) -> Path:
    """A clone whose folder its user has trusted, with an adapter in it."""
    folder = copy_plugin(tmp_path / "clone")
    git("init", "--quiet", cwd=folder)
    trusted = {"projects": {str(folder): {"hasTrustDialogAccepted": True}}}
    (claude.home / ".claude" / ".claude.json").write_text(json.dumps(trusted))
    (folder / "adapters" / "mine").mkdir(parents=True)
    (folder / "adapters" / "mine" / "adapters.safetensors").write_text("weights")
    return folder


def denials(claude: Claude) -> list[dict[str, Any]]:
    """The gate's audit trail: the plugin's own, and that of hooks that run without the plugin."""
    files = [claude.plugin_data / f"{PLUGIN}-{PLUGIN}" / "guard.jsonl", claude.state / "guard.jsonl"]
    return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]


def deletes(request: Request) -> Script:
    """The specialist, told to delete an adapter."""
    request = yield DELETE
    assert request.result.is_error
    assert "[artefacts]" in request.result.text
    yield "refused"


def test_a_trusted_clone_has_the_plugin_from_its_second_session_on(
    claude: Claude, clone: Path, offline_uv: dict[str, str]
) -> None:
    claude.run(cwd=clone, environment=offline_uv).expect_success()  # registers and installs what the settings name
    session = claude.run(cwd=clone, environment=offline_uv).expect_success()

    [loaded] = [each for each in session.init["plugins"] if each["name"] == PLUGIN]
    assert Path(loaded["path"]) == clone
    assert {SPECIALIST, PROJECT_AGENT} <= set(session.init["agents"])


def test_an_untrusted_clone_is_given_nothing_to_run(claude: Claude, clone: Path, offline_uv: dict[str, str]) -> None:
    (claude.home / ".claude" / ".claude.json").unlink()
    claude.run(cwd=clone, environment=offline_uv).expect_success()
    session = claude.run(cwd=clone, environment=offline_uv).expect_success()

    assert PLUGIN not in {each["name"] for each in session.init["plugins"]}


def test_with_the_plugin_on_the_project_form_has_its_tools_and_skills_and_is_stopped_once(
    claude: Claude, clone: Path, offline_uv: dict[str, str]
) -> None:
    def main(request: Request) -> Script:
        yield from ask("list_jobs")
        yield ask_agent(PROJECT_AGENT, "clean up")
        yield "done"

    claude.run(cwd=clone, environment=offline_uv)
    allowed = [f"{TOOL}*", "Bash", "Agent"]
    session = claude.run(
        main=main, agents={BODY: deletes}, cwd=clone, environment=offline_uv, allowed_tools=allowed
    ).expect_success()

    first = session.of(BODY)[0]
    assert f"{TOOL}start_lora_training" in first.tools
    assert "Judging a fine-tuning" in first.text
    [once] = denials(claude)
    assert (once["agent"], once["decision"]) == (PROJECT_AGENT, "deny")
    assert (clone / "adapters" / "mine" / "adapters.safetensors").exists()


def test_without_the_plugin_the_project_form_is_guarded_by_its_own_hooks(
    claude: Claude, clone: Path, offline_uv: dict[str, str]
) -> None:
    (clone / ".claude" / "settings.json").unlink()

    claude.run(
        main=[ask_agent(PROJECT_AGENT, "clean up"), "done"],
        agents={BODY: deletes},
        cwd=clone,
        environment=offline_uv,
        allowed_tools=["Bash", "Agent"],
    ).expect_success()

    [once] = denials(claude)
    assert once["agent"] == PROJECT_AGENT


def test_the_project_form_is_held_back_once_when_it_forgets_what_failed(
    claude: Claude, clone: Path, mlx_jobs: dict[str, str]
) -> None:
    def specialist(request: Request) -> Script:
        # Killed at once, so the transcript names a job that did not end well.
        started = yield from ask(
            "start_lora_training", model="mcp_server/demo/base", data="data", num_layers=1, iters=100_000, batch_size=2
        )
        yield from ask("stop_job", job_id=started["job_id"], action="kill")
        (claude.state / "jobs" / started["job_id"] / "state.json").write_text(
            json.dumps({"status": "failed", "why": "out of memory in step 12"})
        )
        request = yield "All went well."
        assert "out of memory in step 12" in request.text
        yield "It failed: out of memory."

    def main(request: Request) -> Script:
        yield from ask("list_jobs")
        yield ask_agent(PROJECT_AGENT, "train")
        yield "done"

    task.write_dataset(clone / "data")
    claude.run(cwd=clone, environment=mlx_jobs)
    session = claude.run(
        main=main,
        agents={BODY: specialist},
        cwd=clone,
        environment=mlx_jobs,
        allowed_tools=[f"{TOOL}*", "Agent"],
        timeout=120,
    ).expect_success()
    assert "It failed: out of memory." in session.of()[-1].text
