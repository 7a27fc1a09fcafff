"""Start, watch and stop jobs. Any number of servers may do so at once: the folders, not this process, hold the state."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from mcp_server import launch, settings
from mcp_server.errors import BusyError, JobError
from mcp_server.jobs import lock, queue, recovery, store
from mcp_server.jobs.cleanup import clean
from mcp_server.jobs.events import tail
from mcp_server.jobs.files import write_json
from mcp_server.jobs.pace import seconds_left
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.recovery import Recovery
from mcp_server.jobs.store import JobFolder, JobSpec, JobState, Kind, Status
from mcp_server.jobs.world import World
from mcp_server.platform import interpreter

IfBusy = Literal["queue", "refuse"]
_START_SECONDS = 10.0
_LAUNCH_SECONDS = 60.0
_TARGETS: dict[Kind, str] = {"train": "adapter_path", "convert": "mlx_path", "fuse": "save_path"}  # what a kind makes
_BUSY_REMEDY = "wait for it, stop it with stop_job, or call with if_busy='queue'"


class JobView(BaseModel):
    """One job, as tools and people see it."""

    job_id: str
    kind: Kind
    status: Status
    why: str | None = Field(default=None, description="Why it ended or waits")
    step: int | None = Field(default=None, description="The last step it reported")
    total: int | None = Field(default=None, description="Steps in all")
    created: float = Field(description="Seconds since the epoch")
    started: float | None = None
    ended: float | None = None
    seconds_left: float | None = Field(default=None, description="At the pace of the last reports")
    ranks: int | None = Field(default=None, description="Processes that train together, when more than one")
    adapter_path: str | None = None
    last_checkpoint: str | None = None


def start(
    kind: Kind,
    options: BaseModel,
    *,
    job_id: str,
    if_busy: IfBusy = "queue",
    scratch: Path | None = None,
    reserved: Path | None = None,
    python: Path | None = None,
    needs_bytes: int | None = None,
    resume_from: Path | None = None,
    world: World | None = None,
    recovered: Recovery | None = None,
) -> JobFolder:
    """Make a job and set it going in a process of its own. Raises BusyError when busy and told not to wait, JobError when
    another job that works or waits makes the same folder.

    ``python`` runs the worker, by default the interpreter that has mlx-lm. Kinds in ``store.SKIPS_LINE`` start at once.
    ``recovered``: what an out-of-memory of the run that goes on led to.
    When it raises, the job's folder, ``scratch`` and an empty ``reserved`` are gone again.
    """
    spec = JobSpec(
        job_id=job_id,
        kind=kind,
        created=time.time(),
        project=str(settings.project()),
        if_busy=if_busy,
        python=str(python or interpreter.require()),
        needs_bytes=needs_bytes,
        scratch=str(scratch) if scratch else None,
        reserved=str(reserved) if reserved else None,
        resume_from=str(resume_from) if resume_from else None,
        world=world,
        options=options.model_dump(mode="json"),
    )
    folder: JobFolder | None = None
    try:
        if if_busy == "refuse" and kind not in store.SKIPS_LINE and (busy := holder_text()):
            raise BusyError(f"{busy}; {_BUSY_REMEDY}")
        with store.creating():
            _check_target(spec, sweep())
            folder = store.create(spec)
        if recovered is not None:
            recovery.write(folder, recovered)
        _spawn(folder)
        state = _wait_until_settled(folder)
        if state.status == "cancelled" and state.why == store.REFUSED:
            raise BusyError(f"{holder_text() or store.REFUSED}; {_BUSY_REMEDY}")
    except BaseException:
        clean(spec)
        if folder is not None:
            store.remove(folder)
        raise
    return folder


def _spawn(folder: JobFolder) -> None:
    try:
        with folder.runner_log.open("ab") as log:
            # Launcher and runner inherit the file, so it is locked exactly as long as one of them lives (``_alive``).
            fcntl.flock(log, fcntl.LOCK_EX)
            launcher = subprocess.Popen(
                launch.command(sys.executable, "mcp_server.jobs.runner", str(folder.path)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=launch.environment() | {"MLX_TRAINING_HOME": str(settings.home())},
                cwd=settings.home(),
                start_new_session=True,
            )
    except OSError as error:
        raise JobError(
            f"the job's runner could not be started in {folder.path}: {error.strerror or error}; "
            "free disk space or memory and start it again"
        ) from error
    try:
        code = launcher.wait(timeout=_LAUNCH_SECONDS)
    except subprocess.TimeoutExpired as error:
        launcher.kill()
        launcher.wait()
        raise JobError(
            f"the job's runner did not start in {_LAUNCH_SECONDS:g} s; the machine is too busy, start it again later"
        ) from error
    if code != 0:
        text = folder.runner_log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
        raise JobError(f"the job's runner could not be started: {text}")


def _wait_until_settled(folder: JobFolder) -> JobState:
    """Until the job works, waits behind another, or has ended: a few hundredths of a second."""
    deadline = time.monotonic() + _START_SECONDS
    seen_in_line = 0
    while True:
        state = folder.state()
        in_line = state.status == "queued" and state.runner is not None and blocked_by(folder.job_id) is not None
        # Twice, since a runner that has just taken the lock looks like one that waits until it has said so.
        seen_in_line = seen_in_line + 1 if in_line else 0
        if state.finished or state.status == "working" or seen_in_line > 2 or time.monotonic() > deadline:
            return state
        time.sleep(0.02)


def blocked_by(job_id: str) -> str | None:
    """What a queued job waits for, in words; None when nothing is before it."""
    waiting = queue.waiting()
    if job_id not in waiting:
        return None  # not yet in line, or just at its turn
    ahead = waiting[: waiting.index(job_id)]
    holder = lock.read_holder(str(settings.home() / "gpu.lock"))
    if holder is not None and holder.get("job_id") == job_id:
        return None
    names = ([str(holder.get("job_id", "a job that is starting"))] if holder is not None else []) + ahead
    return f"waits for {', '.join(names)}" if names else None


def holder_text() -> str | None:
    """Who has the machine now, in words, or None."""
    holder = lock.read_holder(str(settings.home() / "gpu.lock"))
    if holder is not None:
        return f"job {holder.get('job_id', '(starting)')} is running"
    waiting = queue.waiting()
    return f"job {waiting[0]} is about to run" if waiting else None


def sweep() -> list[JobFolder]:
    """Record the end of every job that died without a word, which removes what it left half made. The others that live."""
    living: list[JobFolder] = []
    for folder in store.all_folders():
        with contextlib.suppress(JobError):  # one damaged folder must not keep others from starting
            if not reconcile(folder).finished:
                living.append(folder)
    return living


def _check_target(spec: JobSpec, living: list[JobFolder]) -> None:
    """Raise JobError when a job that works or waits already makes what ``spec`` would: the work would be done twice."""
    target = _target(spec)
    if target is None:
        return
    for folder in living:
        with contextlib.suppress(JobError):  # as in sweep
            if _target(folder.spec()) == target:
                break
    else:
        return
    raise JobError(
        f"job {folder.job_id}, which is {folder.state().status}, already makes {target}; wait for it, stop it with "
        f"stop_job, or give another {_TARGETS[spec.kind]}"
    )


def _target(spec: JobSpec) -> str | None:
    """The folder that the job makes, where it makes one."""
    path = spec.options.get(_TARGETS.get(spec.kind, ""))
    return os.path.realpath(path) if isinstance(path, str) else None


def reconcile(folder: JobFolder) -> JobState:
    """The job's true state: what is recorded, unless everything that could have recorded more is dead."""
    state = folder.state()
    if state.finished or _alive(folder, state):
        return state
    if state.runner is None and time.time() - folder.spec().created < _START_SECONDS:
        return state  # its runner is just being started
    # The runner may have written its last word between the two looks.
    state = folder.state()
    if state.finished or _alive(folder, state):
        return state
    final = state.model_copy(update={"ended": time.time(), **_verdict(folder, state)})
    clean(folder.spec())
    with contextlib.suppress(OSError):  # on a full disk the answer is the same the next time it is asked
        folder.write_state(final)
    return final


def _alive(folder: JobFolder, state: JobState) -> bool:
    """Whether a process of the job lives, be it recorded or not: a full disk, a clock that is set, a slow start or a runner
    killed between two records leave none, or those of an earlier worker."""
    if any(process is not None and process.alive() for process in (state.runner, state.worker)):
        return True
    return lock.is_held(str(folder.runner_log)) or bool(_held_by(folder))


def _held_by(folder: JobFolder) -> dict[str, object]:
    """What the machine's lock says of its holder, if that is this job."""
    holder = lock.read_holder(str(settings.home() / "gpu.lock")) or {}
    return holder if holder.get("job_id") == folder.job_id else {}


def _verdict(folder: JobFolder, state: JobState) -> dict[str, Any]:
    outcome = folder.outcome()
    if outcome is not None:
        return {"status": outcome.status, "why": outcome.why}
    if state.status == "queued":
        return {"status": "lost", "why": "its runner ended while it waited in line (reboot or kill); start it again"}
    last = folder.last_checkpoint()
    at = f"; its last checkpoint is {last}" if last else ""
    return {
        "status": "lost",
        "why": f"runner and worker both ended without a word (power cut, reboot, or both were killed){at}",
    }


def view(folder: JobFolder) -> JobView:
    """The job with its true state and the last step it reported."""
    spec, state = folder.spec(), reconcile(folder)
    recent = tail(folder.metrics)
    steps = [event for event in recent if "step" in event]
    totals = [event["total"] for event in recent if "total" in event]
    last = folder.last_checkpoint()
    why = state.why
    if state.status == "queued":
        why = blocked_by(folder.job_id)
    return JobView(
        job_id=folder.job_id,
        kind=spec.kind,
        status=state.status,
        why=why,
        step=steps[-1]["step"] if steps else None,
        total=totals[-1] if totals else None,
        seconds_left=seconds_left(recent) if state.status == "working" else None,
        created=spec.created,
        started=state.started,
        ended=state.ended,
        ranks=spec.world.size if spec.world else None,
        adapter_path=spec.options.get("adapter_path"),
        last_checkpoint=str(last) if last else None,
    )


StopAction = Literal["stop", "pause", "kill"]


def ask_to_stop(folder: JobFolder, action: StopAction) -> bool:
    """Ask a live job to end: with a last checkpoint and its adapter, with a checkpoint alone, or at once.

    False when it has already ended. Raises JobError for a pause that a full disk keeps from being recorded.
    """
    if reconcile(folder).finished:
        return False
    recorded = _record_request(folder, action)
    state = folder.state()  # after the request: a runner that records itself later looks for one then
    told = state.runner is not None and state.runner.send(signal.SIGTERM)
    # Told directly when its runner was killed, or can't read that this is no gentle stop.
    if not told or (action == "kill" and not recorded):
        worker = _worker(folder, state)
        told |= worker is not None and worker.send(signal.SIGKILL if action == "kill" else signal.SIGTERM)
    return told or lock.is_held(str(folder.runner_log))


def _record_request(folder: JobFolder, action: StopAction) -> bool:
    """Whether ``action`` could be recorded. A signal without a request means stop, so that works on a full disk too: jobs are
    what fills it."""
    try:
        write_json(folder.stop_request, {"action": action, "time": time.time()})
    except OSError as error:
        if action == "pause":
            raise JobError(
                f"the pause of job {folder.job_id} can't be recorded in {folder.path}: {error.strerror or error}; "
                "free disk space and pause again, or stop it, which needs no record"
            ) from error
        with contextlib.suppress(OSError):
            folder.stop_request.unlink(missing_ok=True)  # what was asked for before
        return False
    return True


def _worker(folder: JobFolder, state: JobState) -> ProcessIdentity | None:
    """The live worker, as recorded, else as the lock says."""
    if state.worker is not None and state.worker.alive():
        return state.worker
    pid = _held_by(folder).get("pid")
    with contextlib.suppress(ProcessLookupError):
        return ProcessIdentity.of(pid) if isinstance(pid, int) else None
    return None
