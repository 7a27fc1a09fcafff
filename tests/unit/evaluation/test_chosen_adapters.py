"""Which adapters a benchmark of a training measures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcp_server.errors import JobError
from mcp_server.evaluation.adapters import of_job
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.store import JobFolder, JobState
from tests.recorded import make_job

ONE, OTHER = "train-20260101-000000-aaaa", "train-20260102-000000-bbbb"


def put_weights(folder: Path, weights: bytes, job_id: str | None = None) -> Path:
    """An adapter; ``job_id``: of the training that left it, which checkpoints don't tell."""
    folder.mkdir(parents=True)
    (folder / "adapters.safetensors").write_bytes(weights)
    if job_id is not None:
        (folder / "provenance.json").write_text(json.dumps({"job_id": job_id}), encoding="utf-8")
    return folder


def put_checkpoint(job: JobFolder, weights: bytes = b"checkpoint") -> Path:
    return put_weights(job.checkpoints / "0000100", weights)


@pytest.fixture
def go_on() -> Iterator[Callable[[JobFolder, str], None]]:
    """Makes a job one that has not ended, with a process that stands for its runner."""
    with subprocess.Popen(["sleep", "120"]) as runner:
        identity = ProcessIdentity.of(runner.pid)
        yield lambda job, status: job.write_state(JobState.model_validate({"status": status, "runner": identity}))
        runner.kill()


def test_a_trainings_adapter_and_checkpoints_are_measured_equal_ones_once(tmp_path: Path):
    final = put_weights(tmp_path / "final", b"final", ONE)
    job = make_job(ONE, adapter_path=str(final))
    checkpoint = put_checkpoint(job)
    put_weights(job.checkpoints / "0000200", b"final")
    assert of_job(ONE) == [final, checkpoint]


@pytest.mark.parametrize("status", ["working", "queued"])
def test_a_training_that_has_not_ended_is_refused_since_its_checkpoints_change(
    tmp_path: Path, status: str, go_on: Callable[[JobFolder, str], None]
):
    job = make_job(ONE, adapter_path=str(tmp_path / "final"))
    put_checkpoint(job)
    go_on(job, status)
    with pytest.raises(JobError, match=rf"{ONE} has not ended \({status}\).*read_training_log.*until='end'.*adapters="):
        of_job(ONE)


def test_a_training_whose_adapter_another_is_about_to_replace_is_refused(
    tmp_path: Path, go_on: Callable[[JobFolder, str], None]
):
    final = put_weights(tmp_path / "final", b"final", ONE)
    make_job(ONE, adapter_path=str(final))
    resumed = make_job(OTHER, adapter_path=str(final))
    elsewhere = make_job("train-20260103-000000-cccc", adapter_path=str(tmp_path / "elsewhere"))
    go_on(resumed, "working")
    go_on(elsewhere, "working")
    with pytest.raises(JobError, match=f"{OTHER} has not ended"):
        of_job(ONE)
    resumed.write_state(JobState(status="failed"))
    assert of_job(ONE) == [final]


def test_a_later_jobs_adapter_in_the_same_folder_is_not_taken_for_this_ones(tmp_path: Path):
    final = put_weights(tmp_path / "final", b"of the other", OTHER)
    job = make_job(ONE, adapter_path=str(final), status="paused")
    put_checkpoint(job)
    make_job(OTHER, adapter_path=str(final))
    with pytest.raises(JobError, match=f"not that of job {ONE}: its provenance.json names {OTHER}; give that job_id"):
        of_job(ONE)
    assert of_job(OTHER) == [final]


def test_an_adapter_that_was_kept_aside_is_measured_where_it_lies_now(tmp_path: Path):
    final = put_weights(tmp_path / "final", b"of the other", OTHER)
    put_weights(final / "previous/20251231-000000", b"older", "train-20251231-000000-eeee")
    aside = put_weights(final / "previous/20260101-000000", b"final", ONE)
    checkpoint = put_checkpoint(make_job(ONE, adapter_path=str(final)))
    make_job(OTHER, adapter_path=str(final))
    assert of_job(ONE) == [aside, checkpoint]


def test_a_training_that_left_nothing_is_named(tmp_path: Path):
    reserved = tmp_path / "final"
    reserved.mkdir()
    (reserved / "provenance.json").write_text(json.dumps({"job_id": ONE}), encoding="utf-8")
    make_job(ONE, adapter_path=str(reserved), status="failed")
    with pytest.raises(JobError, match=r"has ended \(failed\) without adapter or checkpoint; start it again"):
        of_job(ONE)
