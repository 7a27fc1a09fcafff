"""A job that lives is never said to be lost, whatever of it could not be recorded."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_server import launch
from mcp_server.jobs import index, lock, service, store
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.store import JobFolder, JobSpec, JobState
from mcp_server.training.options import TrainingOptions
from tests.helpers import wait_until

ENDS_WELL = """#!/bin/sh
echo '{"status": "completed"}' > "$4/outcome.json"
"""


def create(job_id: str = "train-x", **changes: Any) -> JobFolder:
    kind = job_id.partition("-")[0]
    spec = {"job_id": job_id, "kind": kind, "created": time.time(), "project": "/", "python": "p", "options": {}}
    return store.create(JobSpec.model_validate(spec | changes))


def listed() -> list[str]:
    return [view.status for view in index.newest(5).jobs]


def dead() -> ProcessIdentity:
    process = subprocess.Popen(["sleep", "60"])
    identity = ProcessIdentity.of(process.pid)
    process.kill()
    process.wait()
    return identity


def script(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def worker(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the machine's lock for the job ``convert-x``, as a worker does whose runner was killed."""
    home.mkdir()
    descriptor = lock.acquire(str(home / "gpu.lock"))
    assert descriptor is not None
    process = subprocess.Popen(["sleep", "60"], pass_fds=[descriptor])
    lock.write_holder(descriptor, {"job_id": "convert-x", "pid": process.pid})
    os.close(descriptor)
    yield process
    process.kill()
    process.wait()


def test_job_that_is_listed_while_it_is_made_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    """Another session lists the jobs between any two records of a new one."""
    seen: list[str] = []
    write = store.write_json

    def watched(path: Path, value: Any) -> None:
        write(path, value)
        seen.extend(listed())

    monkeypatch.setattr(store, "write_json", watched)
    create()
    assert set(seen) == {"queued"}


def test_job_that_was_taken_for_lost_is_looked_at_again():
    job = create()
    job.write_state(JobState(status="lost", why="state.json is missing or damaged"))
    assert listed() == ["lost"]
    runner = subprocess.Popen(["sleep", "60"])
    job.write_state(JobState(status="working", runner=ProcessIdentity.of(runner.pid)))
    assert listed() == ["working"]
    runner.kill()
    runner.wait()


def test_job_whose_launcher_is_slow_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Or sleeps with its machine, or was started under another clock."""
    monkeypatch.setattr(service, "_START_SECONDS", 0.0)
    waits = f'#!/bin/sh\nwhile [ ! -e "{tmp_path}/go" ]; do sleep 0.05; done\nexec {shlex.quote(sys.executable)} "$@"\n'
    monkeypatch.setattr(sys, "executable", str(script(tmp_path / "launcher", waits)))
    python, reserved = script(tmp_path / "python", ENDS_WELL), tmp_path / "reserved"
    reserved.mkdir()
    arguments: dict[str, Any] = {"job_id": "train-x", "python": python, "reserved": reserved}
    starting = threading.Thread(
        target=service.start, args=("train", TrainingOptions(model="m", data="d")), kwargs=arguments
    )
    starting.start()
    job = JobFolder(store.jobs_folder() / "train-x")
    try:
        wait_until(job.runner_log.exists, "the launcher")
        wait_until(lambda: lock.is_held(str(job.runner_log)), "its lock", seconds=5)
        assert service.reconcile(job).status == "queued" and listed() == ["queued"]
        assert reserved.is_dir()
    finally:
        (tmp_path / "go").touch()
        starting.join()
    wait_until(lambda: service.reconcile(job).finished, "the end")
    assert listed() == ["completed"]


def test_worker_that_its_runner_did_not_live_to_record_keeps_its_scratch_folder_and_can_be_stopped(
    tmp_path: Path, worker: subprocess.Popen[bytes]
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    job = create("convert-x", scratch=str(scratch))
    job.write_state(JobState(status="queued", runner=dead(), worker=dead()))
    assert service.reconcile(job).status == "queued"
    assert scratch.is_dir()
    assert service.ask_to_stop(job, "stop")
    assert worker.wait(10) == -signal.SIGTERM
    assert service.reconcile(job).status == "lost"
    assert not scratch.exists()


def test_stop_that_is_asked_for_before_the_runner_is_known_ends_the_job(tmp_path: Path):
    python = script(tmp_path / "python", '#!/bin/sh\ntouch "$4/began"\nsleep 60\n')
    job = create(python=str(python))
    service.ask_to_stop(job, "stop")
    subprocess.run(launch.command(sys.executable, "mcp_server.jobs.runner", str(job.path)), check=True)
    state = wait_until(lambda: (found := service.reconcile(job)).finished and found, "the end")
    assert state.status == "cancelled" and not (job.path / "began").exists()
