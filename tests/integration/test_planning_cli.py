"""``mlx-training doctor | plan | memory | prepare-environment`` in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcp_server.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=100)


def as_json(*words: str) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("project")
def test_doctor_prints_a_line_for_each_check_and_its_remedy():
    done = run("doctor")
    assert done.returncode == 0
    assert "ready with warnings" in done.stdout
    assert "MLX_TRAINING_PLATFORMS" in done.stdout
    report = as_json("doctor")
    assert {check["name"] for check in report["checks"]} >= {"machine", "memory", "disk", "mlx", "device", "hub"}


def test_doctor_fails_where_nothing_can_run(tmp_path: Path):
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({"system": "Darwin", "machine": "x86_64", "translated": 1}))
    done = run("doctor", MLX_TRAINING_FACTS=str(facts))
    assert done.returncode == 1
    assert "Rosetta" in done.stdout


@pytest.mark.usefixtures("project")
def test_plan_prints_arguments_with_their_reasons():
    done = run("plan", "--model", "model", "--data", "data", "--goal", "fast")
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout
    assert "rough" in done.stdout
    plan = as_json("plan", "--model", "model", "--data", "data")
    assert plan["arguments"]["model"] == "model"


@pytest.mark.usefixtures("project")
def test_plan_of_nothing_is_an_error_in_words():
    done = run("plan", "--model", "nowhere", "--data", "data")
    assert done.returncode == 1
    assert "error: model 'nowhere' does not exist" in done.stderr


@pytest.mark.usefixtures("project")
def test_memory_of_the_machine():
    assert "no job is running" in run("memory").stdout
    assert as_json("memory")["total_gb"] > 0


@pytest.mark.usefixtures("project")
def test_prepare_environment_leaves_a_whole_one_alone():
    answer = as_json("prepare-environment")
    assert answer["status"] == "completed"
    assert answer["result"]["made"] is False
