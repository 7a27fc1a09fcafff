"""What the machine is told to be, through the seam, and what the tools make of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from mcp_server.platform import facts, interpreter
from tests.helpers import call, refusal, training

MAC: dict[str, Any] = {
    "system": "Darwin",
    "machine": "arm64",
    "translated": 0,
    "container": False,
    "macos": "26.1",
    "chip": "Apple M3 Max",
    "memory_bytes": 64 * 2**30,
    "metal": True,
}
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "rosetta": (MAC | {"machine": "x86_64", "translated": 1}, "", "Rosetta"),
    "intel": (MAC | {"machine": "x86_64"}, "", "Intel"),
    "old-macos": (MAC | {"macos": "13.6"}, "", "13.6"),
    "docker": ({"system": "Linux", "machine": "aarch64", "container": True}, "", "container"),
    "linux": ({"system": "Linux", "machine": "x86_64", "container": False}, "", "MLX_TRAINING_PLATFORMS=linux-cpu"),
    "cuda": (
        {"system": "Linux", "machine": "x86_64", "container": False, "cuda": True},
        "linux-cpu",
        "MLX_TRAINING_PLATFORMS=linux-cuda",
    ),
    "windows": ({"system": "Windows", "machine": "AMD64"}, "", "Windows"),
    "no-metal": (MAC | {"metal": False}, "", "Metal"),
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The machine of one case; the word its answer must hold."""
    told, allowed, word = CASES[request.param]
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(told), encoding="utf-8")
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(path))
    monkeypatch.setenv("MLX_TRAINING_PLATFORMS", allowed)
    return word


@pytest.mark.anyio
@pytest.mark.parametrize("machine", CASES, indirect=True)
async def test_machine_that_cannot_train_is_told_so_and_refused_with_the_reason(
    machine: str, client: Client, project: Path, home: Path
):
    report = await call(client, "check_platform")
    assert report["verdict"] == "not ready"
    assert machine in report["summary"]
    failed = [check for check in report["checks"] if check["status"] == "failed"]
    assert failed
    assert all(check["remedy"] for check in failed)
    for tool, arguments in (
        ("start_lora_training", training()),
        ("convert_model", {"model": "model", "mlx_path": "out"}),
        ("run_benchmark", {"model": "model", "data": "data"}),
    ):
        assert machine in await refusal(client, tool, **arguments)
    assert not home.exists(), "nothing is left behind"
    assert sorted(path.name for path in project.iterdir()) == ["data", "model"]


def test_native_mac_is_apple_silicon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(MAC), encoding="utf-8")
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(path))
    collected = facts.collect()
    assert collected["chip"] == "Apple M3 Max"
    assert facts.backend(collected) == ("apple-silicon", [])
    assert facts.backend(collected | {"macos": "14.0"}) == ("apple-silicon", []), "the oldest that mlx is built for"


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_unreadable_facts_file_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str):
    path = tmp_path / "facts.json"
    path.write_text(content, encoding="utf-8")
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(path))
    assert facts.collect()["system"] in ("Linux", "Darwin")


@pytest.mark.anyio
async def test_missing_mlx_is_a_failed_check_with_its_remedy(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLX_TRAINING_PYTHON", "/no/such/python")
    report = await call(client, "check_platform")
    assert report["verdict"] == "not ready"
    assert "/no/such/python" in report["summary"]


def test_interpreter_is_named_from_where_the_server_works_and_its_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A job works in the state folder; the python of an environment is a link, and behind it are no packages."""
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    for name in (".venv/bin/python", str(python)):
        monkeypatch.setenv("MLX_TRAINING_PYTHON", name)
        assert interpreter.find() == python


@pytest.mark.anyio
async def test_interpreter_without_mlx_lm_is_named(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\necho \'{"python": "3.11.0", "mlx": null, "mlx-lm": null}\'\n', encoding="utf-8")
    bare.chmod(0o755)
    monkeypatch.setenv("MLX_TRAINING_PYTHON", str(bare))
    report = await call(client, "check_platform")
    assert "mlx-lm" in next(check["value"] for check in report["checks"] if check["status"] == "failed")
    assert "prepare_environment" in report["summary"]
