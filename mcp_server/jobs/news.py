"""What a session has not been told of its jobs yet. Standard library alone, Python 3.9: ``hooks/wake.py`` runs it."""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
import zlib
from typing import Any

from mcp_server import settings
from mcp_server.jobs.events import Event, read_since, tail
from mcp_server.jobs.files import read_json
from mcp_server.jobs.pace import duration

POLL_SECONDS = 2.0
# A tool that waits for the same news answers within a quarter of a second: what it tells need not wake anybody.
GRACE_SECONDS = 5.0
ENDED = ("completed", "failed", "cancelled", "paused", "lost")
# Alerts that somebody should act on at once; the others are read with the log.
URGENT = ("not-finite", "divergence", "overfitting", "memory-pressure", "stalled", "checkpoint-failed")
_MOST_CHARACTERS = 400  # of each line: whoever reads it pays per token


class Job:
    """A job's folder, as one session knows it."""

    def __init__(self, job_id: str, session: str) -> None:
        self.job_id = job_id
        self.path = settings.home() / "jobs" / job_id
        self._claims = self.path / "told"
        self._session = session

    def claim(self, event: str) -> bool:
        """True for the first who tells this session of ``event``."""
        try:
            self._claims.mkdir(exist_ok=True)
            os.close(os.open(self._claims / f"{self._session}.{event}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError:
            return False  # told already, or the folder has gone, or the disk is full: better silent than twice
        return True

    def claim_alert(self, message: str) -> bool:
        return self.claim(f"alert-{zlib.crc32(message.encode()):08x}")

    def watch_alone(self, what: str) -> bool:
        """Whether this process is the only one that waits for ``what``; true as long as it lives."""
        try:
            self._claims.mkdir(exist_ok=True)
            descriptor = os.open(self._claims / f"{self._session}.{what}.watch", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def record(self, name: str) -> dict[str, Any]:
        return read_json(self.path / name) or {}

    def status(self) -> str:
        """As recorded, or ``lost`` when runner and worker have both gone without a word."""
        state = self.record("state.json")
        if state.get("status") in ENDED or any(map(_exists, (state.get("runner"), state.get("worker")))):
            return str(state.get("status"))
        if not state.get("runner"):
            return "queued"  # its runner is just being started
        again = self.record("state.json")  # it may have ended between the two looks
        return str(again.get("status")) if again.get("status") in ENDED else "lost"


def _exists(process: dict[str, Any] | None) -> bool:
    if not process:
        return False
    pid = int(process["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    start = _start(pid)
    return start is None or _same(start, str(process.get("start")))


def _start(pid: int) -> str | None:
    """When a process was started, as ``jobs/process.py`` records it (on macOS to the second); None where it can't be found."""
    if sys.platform == "linux":
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
                return f"{file.read().strip()}/{fields[19]}"
        except (OSError, IndexError):
            return None
    command = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
    # In UTC, which neither summer time nor a journey changes.
    told = {"LC_ALL": "C", "TZ": "UTC0"}
    try:
        shown = subprocess.run(command, capture_output=True, text=True, env=told, timeout=5, check=False).stdout
        return str(calendar.timegm(time.strptime(shown.strip())))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _same(start: str, recorded: str) -> bool:
    """Whether both are of one process. On macOS they are seconds since the epoch, one of them whole."""
    if start == recorded:
        return True
    try:
        return abs(float(start) - float(recorded)) < 2
    except ValueError:
        return False


def follow(payload: str, what: str) -> str:
    """Wait for ``what`` ("end" or "alert") of the job that a tool has just answered about; what to tell, or nothing."""
    call = json.loads(payload)
    answer = _answer(call.get("tool_response"))
    job_id, session = str(answer.get("job_id") or ""), str(call.get("session_id") or "")
    if not job_id or job_id.startswith(".") or "/" in job_id or "/" in session:
        return ""
    job = Job(job_id, session)
    for message in answer.get("alerts") or []:
        job.claim_alert(str(message))
    if answer.get("status") in ENDED:
        job.claim("end")
        return ""
    if not job.watch_alone(what):
        return ""
    wait = wait_for_end if what == "end" else wait_for_alert
    return wait(job, int(answer.get("cursor") or 0))


def _answer(response: Any) -> dict[str, Any]:
    """A tool's structured answer: the client passes it on as JSON text, or as blocks of text that hold it."""
    texts = [response] if isinstance(response, str) else [
        str(block.get("text", "")) for block in response or () if isinstance(block, dict)
    ]  # fmt: skip
    for text in texts:
        with contextlib.suppress(ValueError):
            value = json.loads(text)
            if isinstance(value, dict):
                return value
    return {}


def wait_for_end(job: Job, _: int = 0) -> str:
    """Until the job has ended; what to tell, or nothing when the session knows or is gone."""
    client = os.getppid()
    while os.getppid() == client > 1 and job.path.is_dir():
        status = job.status()
        if status in ENDED:
            time.sleep(GRACE_SECONDS)
            return _end(job, status) if os.getppid() == client and job.claim("end") else ""
        time.sleep(POLL_SECONDS)
    return ""


def wait_for_alert(job: Job, cursor: int = 0) -> str:
    """Until an urgent alert that the session does not know. An alert that ends the job is left to the end's own news."""
    client = os.getppid()
    while os.getppid() == client > 1 and job.path.is_dir() and job.status() not in ENDED:
        news = read_since(job.path / "metrics.jsonl", cursor)
        cursor = news.cursor
        alerts = [event for event in news.events if event["type"] == "alert" and event.get("kind") in URGENT]
        if alerts:
            time.sleep(GRACE_SECONDS)
            if os.getppid() != client or job.status() in ENDED:
                return ""
            told = [message for message in map(_message, alerts) if job.claim_alert(message)]
            if told:
                return _lines(
                    f"mlx-training: job {job.job_id} is running and raised an alert.",
                    *told[-3:],
                    f"Next: read_training_log(job_id={job.job_id!r}) has the diagnosis; act on it, or tell the user.",
                )
        time.sleep(POLL_SECONDS)
    return ""


def _message(alert: Event) -> str:
    return str(alert.get("message") or alert["kind"])


def _end(job: Job, status: str) -> str:
    """Status, numbers, what to do next."""
    state, spec = job.record("state.json"), job.record("spec.json")
    started, ended = state.get("started"), state.get("ended")
    after = f" after {duration(ended - started)}" if started and ended else ""
    why = state.get("why") or ("runner and worker ended without a word" if status == "lost" else None)
    recent = tail(job.path / "metrics.jsonl")
    alerts = [_message(event) for event in recent if event["type"] == "alert" and job.claim_alert(_message(event))]
    return _lines(
        f"mlx-training: job {job.job_id} {status}{after}. {', '.join(_numbers(recent))}",
        why,
        (job.record("outcome.json").get("result") or {}).get("summary") if status == "completed" else None,
        *alerts[-2:],
        _next(job.job_id, status, spec),
    )


def _numbers(recent: list[Event]) -> list[str]:
    numbers: list[str] = []
    steps = [event for event in recent if "step" in event and "total" in event]
    if steps:
        numbers.append(f"step {steps[-1]['step']} of {steps[-1]['total']}")
    for name, type in (("loss", "train"), ("validation loss", "val")):
        losses = [event["loss"] for event in recent if event["type"] == type and "loss" in event]
        if losses:
            numbers.append(
                f"{name} {losses[-1]:.4g}" if isinstance(losses[-1], (int, float)) else f"{name} {losses[-1]}"
            )
    return numbers


def _next(job_id: str, status: str, spec: dict[str, Any]) -> str:
    adapter = (spec.get("options") or {}).get("adapter_path")
    if status == "completed" and spec.get("kind") == "train":
        return f"Next: run_benchmark(adapter_path={adapter!r}, ...) compares it with its base; then report."
    if status == "completed":
        return f"Next: read_training_log(job_id={job_id!r}) has the result; go on with the user's task."
    return f"Next: read_training_log(job_id={job_id!r}) has the diagnosis; mend and start again, or tell the user."


def _lines(*lines: str | None) -> str:
    return "\n".join(" ".join(line.split())[:_MOST_CHARACTERS] for line in lines if line) + "\n"
