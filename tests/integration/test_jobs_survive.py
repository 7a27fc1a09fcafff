"""Whatever is killed, the job's end is known, the machine is free again, and nothing trains twice."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import psutil
import pytest
from mcp import StdioServerParameters
from mcp.client import Client

from mcp_server.jobs import lock
from mcp_server.jobs.store import JobFolder
from tests.helpers import call, end_of, folder, refusal, status, steps_done, training, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

LONG = {"iters": 4000, "steps_per_report": 1, "save_every": 2, "val_batches": 0}


def stdio(project: Path) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", "mcp_server"], env=dict(os.environ), cwd=project)


def servers() -> list[psutil.Process]:
    """The server processes this test started."""
    return [child for child in psutil.Process().children() if "mcp_server" in child.cmdline()]


def lock_file() -> str:
    return str(Path(os.environ["MLX_TRAINING_HOME"]) / "gpu.lock")


def worker_of(job: JobFolder) -> psutil.Process:
    """The worker's process once it trains."""

    def trains() -> psutil.Process | None:
        worker = job.state().worker
        return psutil.Process(worker.pid) if worker is not None and steps_done(job.job_id) >= 3 else None

    found: psutil.Process = wait_until(trains, "the training to make steps")
    return found


def runner_of(job: JobFolder) -> psutil.Process:
    runner = job.state().runner
    assert runner is not None
    return psutil.Process(runner.pid)


async def test_killed_server_leaves_the_job_running_and_a_new_one_finds_it(project: Path):
    jobs_seen: list[JobFolder] = []
    # The dead server's transport breaks in its own way.
    with contextlib.suppress(Exception):
        async with Client(stdio(project)) as client:
            started = await call(
                client, "start_lora_training", **training(iters=150, steps_per_report=10, val_batches=0)
            )
            jobs_seen.append(folder(started["job_id"]))
            await anyio.to_thread.run_sync(worker_of, jobs_seen[0])
            servers()[0].send_signal(signal.SIGKILL)
            await call(client, "list_jobs")
    (job,) = jobs_seen
    assert not servers()
    assert status(job.job_id) == "working"
    async with Client(stdio(project)) as client:
        jobs = await call(client, "list_jobs")
        assert [entry["job_id"] for entry in jobs["jobs"]] == [job.job_id]
        news = await end_of(client, job.job_id)
    assert news["status"] == "completed", news
    assert news["train"][0][0] == 10, "the log is read from its start"
    assert news["step"] == 150


async def test_killed_worker_is_a_failed_job_with_reason_and_checkpoint_within_five_seconds(
    client: Client, project: Path
):
    started = await call(client, "start_lora_training", **training(**LONG))
    job = folder(started["job_id"])
    worker = await anyio.to_thread.run_sync(worker_of, job)
    worker.kill()
    news = await end_of(client, job.job_id, seconds=5)
    assert news["status"] == "failed"
    assert "SIGKILL" in news["why"]
    checkpoint = job.last_checkpoint()
    assert checkpoint is not None
    assert str(checkpoint) in news["why"]
    # A killed process of many threads lets go of its files when the last of them has gone, moments after it is dead.
    wait_until(lambda: lock.read_holder(lock_file()) is None, "the lock to be free", seconds=5)
    record = (job.path / "exit.json").read_text(encoding="utf-8")
    assert '"signal": "SIGKILL"' in record


async def test_killed_runner_keeps_the_lock_with_its_worker_and_the_end_is_found(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(iters=120, steps_per_report=10, val_batches=0))
    job = folder(started["job_id"])
    worker = await anyio.to_thread.run_sync(worker_of, job)
    runner_of(job).kill()
    wait_until(lambda: not psutil.pid_exists(job.state().runner.pid), "the runner to go")  # type: ignore[union-attr]
    holder = lock.read_holder(lock_file())
    assert holder is not None
    assert holder["pid"] == worker.pid
    assert status(job.job_id) == "working"
    assert "is running" in await refusal(client, "start_lora_training", **training(adapter_path="b", if_busy="refuse"))
    news = await end_of(client, job.job_id)
    assert news["status"] == "completed", news
    # A killed process of many threads lets go of its files when the last of them has gone, moments after it is dead.
    wait_until(lambda: lock.read_holder(lock_file()) is None, "the lock to be free", seconds=5)
    assert (project / "adapters/test/adapters.safetensors").exists()


async def test_both_killed_is_a_lost_job_that_names_its_checkpoint(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(**LONG))
    job = folder(started["job_id"])
    worker = await anyio.to_thread.run_sync(worker_of, job)
    runner_of(job).kill()
    worker.kill()
    news = await end_of(client, job.job_id, seconds=5)
    assert news["status"] == "lost"
    assert "checkpoints" in news["why"]
    # A killed process of many threads lets go of its files when the last of them has gone, moments after it is dead.
    wait_until(lambda: lock.read_holder(lock_file()) is None, "the lock to be free", seconds=5)


async def test_two_starts_at_once_from_two_servers_train_one_after_the_other(project: Path):
    async with Client(stdio(project)) as one, Client(stdio(project)) as other:
        answers: list[dict[str, object]] = []

        async def start(client: Client, name: str) -> None:
            answers.append(
                await call(client, "start_lora_training", **training(adapter_path=f"adapters/{name}", iters=30))
            )

        async with anyio.create_task_group() as group:
            group.start_soon(start, one, "one")
            group.start_soon(start, other, "other")
        assert sorted(str(answer["status"]) for answer in answers) == ["queued", "working"]
        queued = next(answer for answer in answers if answer["status"] == "queued")
        first = next(answer for answer in answers if answer["status"] == "working")
        assert str(first["job_id"]) in str(queued["why"])
        for answer in (first, queued):
            news = await end_of(one, str(answer["job_id"]))
            assert news["status"] == "completed", news
    ended, began = folder(str(first["job_id"])).state().ended, folder(str(queued["job_id"])).state().started
    assert ended is not None
    assert began is not None
    assert began >= ended - 0.5, "the second began when the first had let go of the machine"


async def test_refusing_start_names_the_running_job_and_leaves_nothing(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(**LONG))
    text = await refusal(client, "start_lora_training", **training(adapter_path="adapters/b", if_busy="refuse"))
    assert started["job_id"] in text
    assert not (project / "adapters/b").exists()
    assert len((await call(client, "list_jobs"))["jobs"]) == 1
    await call(client, "stop_job", job_id=started["job_id"], action="kill")


async def test_stop_saves_a_last_checkpoint_and_the_adapter(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(**LONG | {"save_every": 4000}))
    job = folder(started["job_id"])
    await anyio.to_thread.run_sync(worker_of, job)
    view = await call(client, "stop_job", job_id=job.job_id)
    assert view["status"] == "cancelled", view
    assert job.last_checkpoint() is not None
    assert (project / "adapters/test/adapters.safetensors").exists()
    assert str(job.last_checkpoint()) in view["why"]
    again = await call(client, "stop_job", job_id=job.job_id)
    assert again["status"] == "cancelled", "stopping an ended job changes nothing"


async def test_forced_stop_is_immediate(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(**LONG | {"save_every": 4000}))
    began = time.monotonic()
    view = await call(client, "stop_job", job_id=started["job_id"], action="kill")
    assert view["status"] == "cancelled"
    assert time.monotonic() - began < 5
    assert not (project / "adapters/test").exists(), "a job that saved nothing leaves no empty adapter"


async def test_queued_job_leaves_the_line_when_stopped(client: Client, project: Path):
    first = await call(client, "start_lora_training", **training(**LONG))
    second = await call(client, "start_lora_training", **training(adapter_path="adapters/b"))
    assert second["status"] == "queued"
    view = await call(client, "stop_job", job_id=second["job_id"])
    assert view["status"] == "cancelled"
    assert not (project / "adapters/b").exists()
    assert status(first["job_id"]) == "working"
    await call(client, "stop_job", job_id=first["job_id"], action="kill")


async def test_deleted_index_is_made_again(client: Client, project: Path, home: Path):
    started = await call(client, "start_lora_training", **training())
    await end_of(client, started["job_id"])
    before = await call(client, "list_jobs")
    for content in (None, b"not a database at all" * 1000):
        for path in home.glob("jobs.sqlite*"):
            path.unlink()
        if content is not None:
            (home / "jobs.sqlite").write_bytes(content)
        assert await call(client, "list_jobs") == before


async def test_no_process_is_left_when_all_jobs_have_ended(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training())
    job = folder(started["job_id"])
    await end_of(client, job.job_id)
    state = job.state()
    assert state.runner is not None
    wait_until(lambda: not state.runner.alive(), "the runner to end", seconds=5)  # type: ignore[union-attr]
    assert not [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]


def test_job_outlives_the_terminal_it_was_started_from(project: Path):
    """The command line's job is in a session of its own: a hang-up of the terminal does not reach it."""
    command = "--model model --data data --iters 4000 --num-layers 1 --batch-size 2 --val-batches 0 --detach --json"
    done = subprocess.run(
        [sys.executable, "-m", "mcp_server.cli", "train", *shlex.split(command)],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
        env=dict(os.environ),
    )
    job = folder(json.loads(done.stdout)["job_id"])
    state = wait_until(lambda: job.state() if job.state().worker else None, "the worker")
    assert os.getsid(state.runner.pid) != os.getsid(0)
    assert os.getsid(state.worker.pid) == state.worker.pid
    psutil.Process(state.worker.pid).kill()
