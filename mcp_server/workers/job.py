"""What every worker does around its one task: signals, events, and a last word that survives the runner."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TextIO

from mcp_server.datasets.secrets import redact, redact_value
from mcp_server.errors import UserError, brief
from mcp_server.jobs import world
from mcp_server.jobs.events import EventWriter
from mcp_server.jobs.files import read_json, write_json
from mcp_server.jobs.store import JobFolder, Outcome
from mcp_server.jobs.world import FROM_STDIN, OUTCOME
from mcp_server.training.diagnose import kind_of_failure, remedy

_LAST_WORD_SECONDS = 30.0


class Stopped(Exception):
    """The job was asked to stop and has; its text says what was kept."""

    def __init__(self, text: str, status: Literal["cancelled", "paused"] = "cancelled") -> None:
        super().__init__(text)
        self.status: Literal["cancelled", "paused"] = status


class _LossyStream:
    """job.log: access tokens are taken out; on a full disk lines that can't be written are lost, the job is not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(redact(text))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class WorkerJob:
    """The running job as its worker sees it. Of several ranks only the first, the leader, has the job's own folder."""

    def __init__(self, folder: JobFolder, *, leads: bool = True) -> None:
        self.folder = folder
        self.leads = leads
        self.spec = folder.spec()
        self.events = EventWriter(folder.metrics if leads else Path(os.devnull))
        self._stop = False

    def on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    @property
    def stop_requested(self) -> bool:
        return self._stop

    @property
    def pause_requested(self) -> bool:
        """Whether the stop is a pause: to go on later, without an adapter for now."""
        return (read_json(self.folder.stop_request) or {}).get("action") == "pause"

    def beat(self) -> None:
        """A sign of life: who was asked to stop and gives none for ``runner.GRACE_SECONDS`` is ended."""
        if self._stop:
            with contextlib.suppress(OSError):
                os.utime(self.folder.metrics)

    def check_stop(self) -> None:
        """Raise Stopped if a stop was asked for; for places where nothing need be saved: also before a training goes on."""
        if not self._stop:
            return
        last = self.folder.last_checkpoint()
        if last is None:
            raise Stopped("stopped as asked; nothing was kept")
        kept = f"as asked before it went on; the last checkpoint is {last}; go on with {self.onward}"
        if self.pause_requested:
            raise Stopped(f"paused {kept}", status="paused")
        raise Stopped(f"stopped {kept}")

    @property
    def onward(self) -> str:
        """How a training that was stopped goes on."""
        return f"stop_job(action='continue') or `mlx-training train --resume {self.folder.job_id}`"

    def phase(self, name: str, **fields: Any) -> None:
        """Say what begins now."""
        self.check_stop()
        self.events.write("phase", name=name, **fields)
        print(f"[{time.strftime('%H:%M:%S')}] {name}", flush=True)


def run(task: Callable[[WorkerJob], dict[str, Any]]) -> None:
    """Run ``task`` as the job whose folder is the first argument, record how it ended, and exit."""
    _keep_lock_to_ourselves()
    sys.stdout, sys.stderr = _LossyStream(sys.stdout), _LossyStream(sys.stderr)
    job = _open()
    outcome = _end_of(task, job)
    if not job.leads:
        shutil.rmtree(job.folder.path, ignore_errors=True)
        print(f"{OUTCOME}{outcome.model_dump_json(exclude_none=True)}", flush=True)
    sys.exit(0 if outcome.status != "failed" else 1)


def _open() -> WorkerJob:
    """The job in the folder named by the first argument, or, for a rank without one, as told on standard input."""
    told = world.listen() if world.RANK in os.environ else None
    if sys.argv[1] != FROM_STDIN:
        job = WorkerJob(JobFolder(Path(sys.argv[1])))
    else:
        assert told is not None and told.scratch is not None
        path = Path(told.scratch)
        write_json(path / "spec.json", told.spec)
        write_json(path / "recovery.json", told.recovery)
        job = WorkerJob(JobFolder(path), leads=False)
    for name, text in told.files.items() if told is not None else ():
        file = job.folder.path / f"{name.lower()}.json"
        file.write_text(text, encoding="utf-8")
        os.environ[name] = str(file)
    return job


def _end_of(task: Callable[[WorkerJob], dict[str, Any]], job: WorkerJob) -> Outcome:
    """Run the task; how it ended, recorded where that is this process's to do."""
    signal.signal(signal.SIGTERM, job.on_stop)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        # Results quote rows and answers, which may hold a secret.
        outcome = Outcome(status="completed", result=redact_value(task(job)))
    except Stopped as stopped:
        outcome = Outcome(status=stopped.status, why=str(stopped))
    except UserError as error:
        outcome = Outcome(status="failed", why=str(error))
    except Exception as error:
        traceback.print_exc()
        outcome = failure(error)
    if job.leads:
        _record(job, outcome)
    return outcome


def _keep_lock_to_ourselves() -> None:
    """The GPU lock's descriptor must die with this process, not live on in a compiler or tokenizer child."""
    descriptor = os.environ.pop("MLX_TRAINING_LOCK_FD", None)
    if descriptor is not None:
        os.set_inheritable(int(descriptor), False)


def failure(error: Exception) -> Outcome:
    """The outcome of an error that nobody foresaw, with its kind and remedy where they are known."""
    text = brief(f"{type(error).__name__}: {' '.join(str(error).split())}", 500)
    cause = "out-of-memory" if isinstance(error, MemoryError) else kind_of_failure(text)
    todo = remedy(cause) if cause else "the whole traceback is in job.log"
    return Outcome(status="failed", why=f"{text}; {todo}", cause=cause)


def _record(job: WorkerJob, outcome: Outcome) -> None:
    deadline = time.monotonic() + _LAST_WORD_SECONDS
    while True:
        try:
            job.folder.write_outcome(outcome)
            return
        except OSError as error:
            if time.monotonic() > deadline or not job.folder.path.is_dir():
                print(f"the outcome could not be recorded: {error}: {outcome}", flush=True)
                return
            time.sleep(1.0)
