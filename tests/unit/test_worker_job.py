"""What every worker does around its one task, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_server.jobs import lock
from mcp_server.jobs.files import write_json
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.store import JobFolder

TOKEN = "hf_" + "a1B2" * 9


@pytest.fixture
def folder(home: Path) -> JobFolder:
    path = home / "jobs/train-x"
    path.mkdir(parents=True)
    spec = {"job_id": "train-x", "kind": "train", "created": 0, "project": "/", "python": "p", "options": {}}
    write_json(path / "spec.json", spec)
    return JobFolder(path)


def work(folder: JobFolder, task: str, *held: int) -> int:
    """The exit code of a worker with this task, its output in job.log."""
    body = "".join(f"    {line}\n" for line in task.splitlines())
    code = f"import subprocess\nfrom mcp_server.workers import job\ndef task(worker):\n{body}job.run(task)\n"
    environment = os.environ | {"MLX_TRAINING_LOCK_FD": str(held[0])} if held else None
    with folder.log.open("wb") as log:
        command = [sys.executable, "-c", code, str(folder.path)]
        return subprocess.run(
            command, env=environment, pass_fds=held, stdout=log, stderr=log, check=False, cwd=Path(__file__).parents[2]
        ).returncode


def test_program_that_a_worker_starts_does_not_hold_the_lock(folder: JobFolder, home: Path):
    """A compiler or a tokenizer's pool that outlives the worker must not keep the machine from the next job."""
    descriptor = lock.acquire(str(home / "gpu.lock"))
    assert descriptor is not None
    task = "child = subprocess.Popen(['sleep', '30'], close_fds=False)\nreturn {'pid': child.pid}"
    assert work(folder, task, descriptor) == 0
    outcome = folder.outcome()
    assert outcome is not None and outcome.result is not None
    child = ProcessIdentity.of(outcome.result["pid"])
    os.close(descriptor)
    try:
        assert child.alive()
        assert lock.read_holder(str(home / "gpu.lock")) is None
    finally:
        child.send(signal.SIGKILL)


def test_tokens_in_what_libraries_print_and_raise_are_in_no_file(folder: JobFolder):
    assert work(folder, f"print('fetching with {TOKEN}', flush=True)\nraise KeyError('{TOKEN}')") == 1
    log = folder.log.read_text(encoding="utf-8")
    assert "fetching with [Hugging Face token removed]" in log and "Traceback" in log
    assert TOKEN not in log
    outcome = folder.outcome()
    assert outcome is not None and outcome.status == "failed"
    assert TOKEN not in json.dumps(outcome.model_dump())


def test_a_token_where_a_long_error_is_cut_is_taken_out_whole(folder: JobFolder):
    assert work(folder, f"raise KeyError('x' * 470 + ' {TOKEN}')") == 1
    outcome = folder.outcome()
    assert outcome is not None and TOKEN[:8] not in json.dumps(outcome.model_dump())


@pytest.mark.parametrize(("action", "status"), [("pause", "paused"), ("stop", "cancelled")])
@pytest.mark.parametrize("own", [False, True])
def test_training_that_is_stopped_before_it_goes_on_names_its_last_checkpoint(
    own: bool, action: str, status: str, folder: JobFolder, tmp_path: Path
):
    """Of a resumed run the one that it begins at; after an out-of-memory its own."""
    last = (folder.checkpoints if own else tmp_path) / "0000005"
    last.mkdir(parents=True)
    write_json(last / "checkpoint.json", {})
    spec = folder.spec().model_dump() | {"resume_from": None if own else str(last)}
    write_json(folder.path / "spec.json", spec)
    write_json(folder.stop_request, {"action": action})
    assert work(folder, "worker.on_stop(15, None)\nworker.phase('loading model')") == 0
    outcome = folder.outcome()
    assert outcome is not None and outcome.status == status
    assert f"the last checkpoint is {last}; go on with" in (outcome.why or "")


def test_job_that_is_stopped_with_nothing_done_says_so(folder: JobFolder):
    write_json(folder.stop_request, {"action": "pause"})
    assert work(folder, "worker.on_stop(15, None)\nworker.phase('loading model')") == 0
    outcome = folder.outcome()
    assert outcome is not None and outcome.status == "cancelled" and "nothing was kept" in (outcome.why or "")
