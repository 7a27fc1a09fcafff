"""The MLX environment made by real uv, from a tiny locked project that needs no network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import PlatformError
from mcp_server.jobs import lock, service, store
from mcp_server.jobs.store import JobFolder
from mcp_server.platform import environment, interpreter
from mcp_server.platform.environment import EnvironmentResult, start_environment

UV = shutil.which("uv") or (shutil.which("uv", path="/tmp/uvenv/bin"))
IMPORTS = "import tinydep; assert tinydep.VALUE == 7"
pytestmark = [pytest.mark.integration, pytest.mark.skipif(UV is None, reason="uv is not installed")]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A locked project whose extra ``mlx`` is one wheel on this disk; no other interpreter with mlx-lm."""
    assert UV is not None
    monkeypatch.setenv("UV", UV)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_PYTHON", sys.executable)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: None)
    folder = tmp_path / "plugin"
    folder.mkdir()
    write_wheel(folder, "VALUE = 7\n")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "plugin"\nversion = "1"\nrequires-python = ">=3.11"\n'
        '[project.optional-dependencies]\nmlx = ["tinydep"]\n'
        '[tool.uv.sources]\ntinydep = { path = "tinydep-1.0-py3-none-any.whl" }\n'
    )
    relock(folder)
    return folder


def write_wheel(folder: Path, code: str) -> None:
    with zipfile.ZipFile(folder / "tinydep-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinydep.py", code)
        wheel.writestr("tinydep-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinydep\nVersion: 1.0\n")
        wheel.writestr("tinydep-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tinydep-1.0.dist-info/RECORD", "")


def relock(folder: Path) -> None:
    (folder / "uv.lock").unlink(missing_ok=True)
    subprocess.run([str(UV), "lock", "--offline"], cwd=folder, check=True, capture_output=True)


def made(plugin: Path, **options: Any) -> JobFolder:
    folder = start_environment(project=plugin, imports=IMPORTS, **options)
    assert isinstance(folder, JobFolder)
    deadline = time.monotonic() + 90
    while not service.reconcile(folder).finished and time.monotonic() < deadline:
        time.sleep(0.05)
    return folder


def test_an_environment_is_made_used_and_not_made_twice(plugin: Path, home: Path):
    assert interpreter.find() is None
    folder = made(plugin)
    assert folder.state().status == "completed", folder.log.read_text()
    python = interpreter.find()
    assert python is not None and python.parent.parent.parent == home
    assert subprocess.run([str(python), "-c", IMPORTS], check=False).returncode == 0
    again = start_environment(project=plugin, imports=IMPORTS)
    assert isinstance(again, EnvironmentResult)
    assert (again.made, again.python) == (False, str(python))
    names = [path.name for path in home.iterdir() if path.name.startswith((".mlx", "mlx"))]
    assert sorted(names) == sorted(["mlx", python.parent.parent.name])


def test_a_broken_environment_is_repaired_and_the_old_one_removed(plugin: Path, home: Path):
    made(plugin)
    first = interpreter.find()
    assert first is not None
    next(first.parent.parent.rglob("tinydep.py")).unlink()
    assert not environment.is_whole(first, IMPORTS)
    assert made(plugin).state().status == "completed"
    second = interpreter.find()
    assert second is not None and second != first
    assert environment.is_whole(second, IMPORTS)
    assert not first.exists()


def test_a_state_folder_behind_a_link_keeps_the_environment_just_made(
    plugin: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home.mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("MLX_TRAINING_HOME", str(tmp_path / "link"))
    assert made(plugin).state().status == "completed"
    python = interpreter.find()
    assert python is not None and environment.is_whole(python, IMPORTS)


def test_somebody_elses_environment_of_a_like_name_is_left_alone(plugin: Path, home: Path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "mlx-experiments")], check=True)
    assert made(plugin).state().status == "completed"
    assert (home / "mlx-experiments" / "pyvenv.cfg").exists()


def test_a_changed_lock_file_makes_it_out_of_date(plugin: Path):
    made(plugin)
    write_wheel(plugin, "VALUE = 7\nNEW = True\n")
    relock(plugin)
    assert made(plugin).state().status == "completed"
    python = interpreter.find()
    assert python is not None
    assert environment.is_whole(python, "import tinydep; tinydep.NEW")


def test_a_new_environment_that_does_not_work_is_not_used(plugin: Path, home: Path):
    made(plugin)
    before = interpreter.find()
    write_wheel(plugin, "raise ImportError('wrong CPU')\n")
    relock(plugin)
    folder = made(plugin, reinstall=True)
    state = folder.state()
    assert state.status == "failed"
    assert state.why is not None and "wrong CPU" in state.why and "was not used" in state.why
    assert interpreter.find() == before
    assert not list(home.glob(".mlx-*"))


@pytest.mark.parametrize("reinstall", [True, False])
def test_an_environment_that_jobs_would_not_use_is_not_built(
    reinstall: bool, plugin: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    """Asked for anew, or because the one that jobs run in is broken: they would go on running in that one."""
    monkeypatch.setenv("MLX_TRAINING_PYTHON", sys.executable)
    imports = "import json" if reinstall else "import no_such_package"
    with pytest.raises(PlatformError, match="would not use a new environment") as caught:
        start_environment(project=plugin, imports=imports, reinstall=reinstall)
    command = f"`uv pip install --python {sys.executable} --upgrade --reinstall "
    assert command in str(caught.value) and "or unset MLX_TRAINING_PYTHON" in str(caught.value)
    monkeypatch.delenv("MLX_TRAINING_PYTHON")
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: name)  # the server's own has mlx-lm
    with pytest.raises(PlatformError, match="would not use a new environment") as caught:
        start_environment(project=plugin, imports=imports, reinstall=reinstall)
    assert command in str(caught.value) and "MLX_TRAINING_PYTHON" not in str(caught.value)
    assert not home.exists()


def test_without_network_the_reason_is_given_in_words(plugin: Path, monkeypatch: pytest.MonkeyPatch):
    text = (plugin / "uv.lock").read_text()
    (plugin / "pyproject.toml").write_text(
        '[project]\nname = "plugin"\nversion = "1"\nrequires-python = ">=3.11"\n'
        '[project.optional-dependencies]\nmlx = ["tinydep"]\n'
        '[[tool.uv.index]]\nurl = "http://127.0.0.1:9/simple"\ndefault = true\n'
    )
    start = text.index('source = { path = "tinydep')
    text = (
        text[:start] + 'source = { registry = "http://127.0.0.1:9/simple" }\n' + text[text.index("wheels = [", start) :]
    )
    digest = text[text.index("hash = ") + 8 :].split('"')[0]
    wheels = text.index("wheels = [")
    entry = f'wheels = [\n    {{ url = "http://127.0.0.1:9/tinydep-1.0-py3-none-any.whl", hash = "{digest}" }},\n]\n'
    text = text[:wheels] + entry + text[text.index("]", wheels) + 2 :]
    (plugin / "uv.lock").write_text(text)
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    folder = made(plugin)
    why = folder.state().why
    assert why is not None and "could not be reached" in why, folder.log.read_text()
    assert "network" in why


def test_it_neither_waits_for_the_machine_nor_holds_it(plugin: Path, home: Path):
    home.mkdir(parents=True)
    descriptor = lock.acquire(str(home / "gpu.lock"))
    assert descriptor is not None
    assert made(plugin).state().status == "completed"


def test_a_stop_leaves_nothing(plugin: Path, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    slow = tmp_path / "uv"
    slow.write_text('#!/bin/sh\nmkdir -p "$UV_PROJECT_ENVIRONMENT"; exec sleep 60\n')
    slow.chmod(0o755)
    monkeypatch.setenv("UV", str(slow))
    folder = start_environment(project=plugin, imports=IMPORTS)
    assert isinstance(folder, JobFolder)
    deadline = time.monotonic() + 20
    while not list(home.glob(".mlx-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    service.ask_to_stop(folder, action="stop")
    while not service.reconcile(folder).finished and time.monotonic() < deadline:
        time.sleep(0.02)
    assert folder.state().status == "cancelled"
    assert not list(home.glob("*mlx*"))


def test_without_uv_it_says_how_to_get_it(plugin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("UV")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "_UV_PLACES", ())
    with pytest.raises(PlatformError, match="brew install uv"):
        start_environment(project=plugin, imports=IMPORTS)
    assert not list(store.all_folders())
