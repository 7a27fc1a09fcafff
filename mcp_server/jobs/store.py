"""The job folder, which is the truth about a job. Everything else is derived from it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mcp_server import settings
from mcp_server.errors import JobError, PathError, brief
from mcp_server.jobs.files import read_json, write_json
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.world import World

Kind = Literal["train", "convert", "fuse", "generate", "benchmark", "probe", "environment"]
# Jobs that use neither the GPU nor much memory: they neither wait in line for the machine nor hold it.
SKIPS_LINE: frozenset[Kind] = frozenset({"environment"})
Status = Literal["queued", "working", "completed", "failed", "cancelled", "paused", "lost"]
REFUSED = "refused: another job has the machine"  # why of a job that was told not to wait in line
TERMINAL: tuple[Status, ...] = ("completed", "failed", "cancelled", "paused", "lost")


class JobState(BaseModel):
    """``state.json``. Written by the runner while it lives, afterwards by whoever finds it dead."""

    model_config = ConfigDict(extra="ignore")

    status: Status
    why: str | None = None
    started: float | None = None
    ended: float | None = None
    runner: ProcessIdentity | None = None
    worker: ProcessIdentity | None = None

    @property
    def finished(self) -> bool:
        return self.status in TERMINAL


class JobSpec(BaseModel):
    """``spec.json``: what was asked, resolved to absolute values. Written once.

    ``resume_from`` is a checkpoint folder; ``scratch`` a folder to be deleted when the job ends; ``reserved`` one to be
    deleted if it is still empty then; ``world`` the ranks of a training in several processes.
    """

    job_id: str
    kind: Kind
    created: float
    project: str
    if_busy: Literal["queue", "refuse"] = "queue"
    python: str
    needs_bytes: int | None = None
    scratch: str | None = None
    reserved: str | None = None
    resume_from: str | None = None
    world: World | None = None
    options: dict[str, Any]


class Outcome(BaseModel):
    """``outcome.json``: the worker's own last word, so that the end is known even when its runner was killed.

    ``cause`` is the kind of failure, where it is one that something can be done about ("out-of-memory").
    """

    status: Literal["completed", "failed", "cancelled", "paused"]
    why: str | None = None
    cause: str | None = None
    result: dict[str, Any] | None = None


class JobFolder:
    """Paths and records of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job_id = path.name
        self.metrics = path / "metrics.jsonl"
        self.log = path / "job.log"
        self.runner_log = path / "runner.log"
        self.checkpoints = path / "checkpoints"
        self.stop_request = path / "stop.json"
        self.report = path / "report.html"

    def spec(self) -> JobSpec:
        try:
            return JobSpec.model_validate(read_json(self.path / "spec.json"))
        except ValidationError as error:
            raise JobError(
                f"job {self.job_id} has no readable spec.json in {self.path}; it can't be shown or repeated, "
                "delete the folder when its adapter is not needed"
            ) from error

    def state(self) -> JobState:
        """The recorded state; ``lost`` when the record is missing or damaged."""
        try:
            return JobState.model_validate(read_json(self.path / "state.json"))
        except ValidationError:
            return JobState(status="lost", why="state.json is missing or damaged")

    def write_state(self, state: JobState) -> None:
        write_json(self.path / "state.json", state.model_dump(exclude_none=True))

    def outcome(self) -> Outcome | None:
        try:
            return Outcome.model_validate(read_json(self.path / "outcome.json"))
        except ValidationError:
            return None

    def write_outcome(self, outcome: Outcome) -> None:
        write_json(self.path / "outcome.json", outcome.model_dump(exclude_none=True))

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint (names are zero-padded steps, so they sort), else the one the job went on from."""
        found = sorted(self.checkpoints.glob("[0-9]*/checkpoint.json")) if self.checkpoints.is_dir() else []
        if found:
            return found[-1].parent
        begun_at = (read_json(self.path / "spec.json") or {}).get("resume_from")
        return Path(begun_at) if begun_at and (Path(begun_at) / "checkpoint.json").exists() else None


def jobs_folder() -> Path:
    return settings.home() / "jobs"


def new_id(kind: Kind) -> str:
    """A job id that tells the kind and sorts by time."""
    return f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def create(spec: JobSpec) -> JobFolder:
    """Make the folder of a new job in state ``queued``. On failure nothing is left. Raises PathError when it can't be written."""
    path = jobs_folder() / spec.job_id
    _make_jobs_folder()
    try:
        path.mkdir()
    except OSError as error:
        raise _unwritable(path, error) from error
    folder = JobFolder(path)
    try:
        folder.write_state(JobState(status="queued"))
        # Last: a folder without it is no job yet, and one without a state would be listed as lost.
        write_json(path / "spec.json", spec.model_dump())
    except OSError as error:
        remove(folder)
        raise _unwritable(path, error) from error
    return folder


@contextlib.contextmanager
def creating() -> Generator[None]:
    """From a look at the other jobs to the creation of one: no other start may be between the two. Raises PathError."""
    _make_jobs_folder()
    try:
        descriptor = os.open(settings.home() / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(jobs_folder(), error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_jobs_folder() -> None:
    try:
        settings.home().mkdir(mode=0o700, parents=True, exist_ok=True)
        jobs_folder().mkdir(mode=0o700, exist_ok=True)  # logs and rows are not for this machine's other users
    except OSError as error:
        raise _unwritable(jobs_folder(), error) from error


def _unwritable(path: Path, error: OSError) -> PathError:
    return PathError(
        f"the job folder {path} can't be written: {error.strerror or error}; "
        "free disk space or set MLX_TRAINING_HOME to a folder that can be written"
    )


def remove(folder: JobFolder) -> None:
    """Delete a job that never ran."""
    shutil.rmtree(folder.path, ignore_errors=True)


def get(job_id: str) -> JobFolder:
    """The folder of ``job_id``. Raises JobError when there is none, naming the newest jobs."""
    path = jobs_folder() / job_id
    # A job id is one path component: nothing outside the jobs folder can be named.
    if not job_id or "/" in job_id or job_id.startswith(".") or not _is_dir(path):
        newest = [folder.job_id for folder in sorted(all_folders(), key=_created, reverse=True)[:3]]
        known = f"the newest jobs are {', '.join(newest)}" if newest else "there are no jobs yet"
        raise JobError(f"there is no job {brief(job_id, 80)!r}; {known}; list_jobs shows all")
    return JobFolder(path)


def owner_of(checkpoint: Path) -> str | None:
    """The id of the job in whose folder ``checkpoint`` lies or lay; None for one that was taken elsewhere."""
    job = checkpoint.resolve().parent.parent
    return job.name if job.parent == jobs_folder().resolve() else None


def first_of(job_id: str) -> str:
    """The job that a run began with, which ``job_id`` may be a resume of: a run and its resumes have it in common."""
    while (begun_at := (read_json(jobs_folder() / job_id / "spec.json") or {}).get("resume_from")) is not None:
        before = owner_of(Path(begun_at))
        if before is None:
            break
        job_id = before
    return job_id


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # longer than any name can be, or not text that a name can hold
        return False


def _created(folder: JobFolder) -> float:
    try:
        return folder.path.stat().st_mtime
    except OSError:
        return 0.0


def all_folders() -> Iterator[JobFolder]:
    """Every job folder, in no order."""
    try:
        entries = list(jobs_folder().iterdir())
    except OSError:
        return
    for path in entries:
        if path.is_dir() and not path.name.startswith("."):
            yield JobFolder(path)
