"""What a reader of a job's log waits for."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import anyio
import pytest

from mcp_server.jobs import service, store
from mcp_server.jobs.events import EventWriter, copy_history
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.store import JobFolder, JobSpec, JobState
from mcp_server.training.log import LogRequest, read_log


@pytest.fixture
def resumed(home: object) -> Iterator[JobFolder]:
    """A working job that goes on from step 4 of 6 and has only just begun; a sleeping process stands for its runner."""
    spec = JobSpec(
        job_id=store.new_id("train"), kind="train", created=time.time(), project="/", python=sys.executable, options={}
    )
    folder = store.create(spec)
    before = EventWriter(folder.path / "before.jsonl")
    for step in range(1, 7):
        before.write("train", step=step, total=6, loss=1.0)
        before.write("val", step=step, total=6, loss=1.0)
    copy_history(folder.path / "before.jsonl", folder.metrics, 4)
    EventWriter(folder.metrics).write("resume", step=4, total=12)
    runner = subprocess.Popen(["sleep", "100"])
    folder.write_state(JobState(status="working", started=time.time(), runner=ProcessIdentity.of(runner.pid)))
    yield folder
    runner.kill()
    runner.wait()


def test_resumed_job_stands_where_it_goes_on_from(resumed: JobFolder):
    view = service.view(resumed)
    assert (view.step, view.total, view.seconds_left) == (4, 12, None)


@pytest.mark.anyio
async def test_who_waits_for_a_validation_does_not_get_that_of_the_run_before(resumed: JobFolder):
    async def validate() -> None:
        await anyio.sleep(0.6)  # longer than the reader's pause between two looks
        EventWriter(resumed.metrics).write("val", step=5, total=12, loss=0.5)

    async with anyio.create_task_group() as group:
        group.start_soon(validate)
        news = await read_log(LogRequest(job_id=resumed.job_id, until="val", wait_seconds=30))
        assert [step for step, _ in news.val] == [1, 2, 3, 5], "the curve is whole"
