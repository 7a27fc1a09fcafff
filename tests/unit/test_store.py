"""Which folders are jobs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mcp_server.errors import JobError
from mcp_server.jobs import index, store
from tests.recorded import make_job


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "{job}/../../outside", ".hidden", "{home}/outside"])
def test_job_id_is_a_name_and_never_a_path(name: str, home: Path):
    """Even where a whole job lies: a call must not read or stop what is not among the jobs."""
    job = make_job()
    for place in (home / "outside", home / "jobs/.hidden"):
        shutil.copytree(job.path, place)
    shutil.copy(job.path / "spec.json", home / "spec.json")
    assert store.get(job.job_id).path == job.path
    with pytest.raises(JobError, match="there is no job"):
        store.get(name.format(job=job.job_id, home=home))


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "\ud800"])
def test_name_that_no_folder_can_have_is_no_job(name: str):
    make_job()
    with pytest.raises(JobError, match="there is no job") as refused:
        store.get(name)
    assert len(str(refused.value)) < 250


def test_newest_jobs_come_first_and_the_oldest_are_left_out():
    made = [make_job(f"train-2026010{day}-000000-aaaa").job_id for day in (3, 1, 2)]
    for _ in range(2):  # from the folders, then from the index
        assert [view.job_id for view in index.newest(2).jobs] == [made[2], made[1]]
    assert index.newest(2).showing == "2 of 3 jobs"
