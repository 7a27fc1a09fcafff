"""How a process that left no word of its own came to its end."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import psutil

from mcp_server.jobs.events import tail
from mcp_server.jobs.recovery import oom_kills
from mcp_server.jobs.store import JobFolder, Outcome
from mcp_server.training.diagnose import kind_of_failure, remedy


def was_out_of_memory(folder: JobFolder, kills_before: int | None) -> bool:
    """Whether a SIGKILL came from the system for want of memory: Linux counts them, elsewhere the last telemetry tells."""
    kills = oom_kills()
    if kills is not None and kills_before is not None:
        return kills > kills_before
    memory = [event for event in tail(folder.metrics) if event["type"] == "memory"]
    return bool(memory) and memory[-1].get("available_bytes", math.inf) < 0.03 * psutil.virtual_memory().total


def describe_death(folder: JobFolder, code: int, stop_asked: bool, out_of_memory: bool) -> Outcome:
    """What to say of a worker that ended without a word of its own."""
    if code < 0:
        name = signal.Signals(-code).name
        if stop_asked:
            return Outcome(
                status="cancelled", why=f"ended by {name} after a stop was asked for{checkpoint_text(folder)}"
            )
        if out_of_memory:
            why = f"out of memory: the system killed the worker{checkpoint_text(folder)}; {remedy('out-of-memory')}"
            return Outcome(status="failed", why=why, cause="out-of-memory")
        if code == -signal.SIGKILL:
            return Outcome(status="failed", why=f"the worker was killed by {name}{checkpoint_text(folder)}")
        ended = f"was killed by {name}"  # not always from outside: an abort says why before it ends the process
    else:
        ended = f"ended with exit code {code}"
    last = last_line(folder.log)
    why = f"the worker {ended}: {last}{checkpoint_text(folder)}"
    return Outcome(status="failed", why=why, cause=kind_of_failure(last))


def checkpoint_text(folder: JobFolder) -> str:
    """The end of a sentence about a death: what is left of a training."""
    last = folder.last_checkpoint()
    if last is not None:
        return f"; its last checkpoint is {last}"
    return "; it had no checkpoint yet" if folder.job_id.startswith("train-") else ""


def last_line(log: Path, length: int | None = 300) -> str:
    """What a process printed last."""
    try:
        lines = log.read_bytes()[-16384:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:length] if lines else "it printed nothing"
