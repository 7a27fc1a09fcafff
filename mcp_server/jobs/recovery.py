"""Out of memory is a step down, not an end: what the runner changes before it tries again.

The rungs, each from the last checkpoint: halve the rows that are in memory at once (gradients are accumulated, so the
effective batch stays), then gradient checkpointing, then, only if allowed, half of max_seq_length. What was changed lies in
``recovery.json``; ``spec.json`` never changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from mcp_server.jobs.files import read_json, write_json
from mcp_server.jobs.store import JobFolder, JobSpec


class Recovery(BaseModel):
    """What differs from the spec. ``splits``: a batch goes through the model in this many parts."""

    splits: int = 1
    grad_checkpoint: bool | None = None
    max_seq_length: int | None = None
    rungs: list[str] = Field(default_factory=list)


def read(folder: JobFolder) -> Recovery:
    """The recovery so far; an empty one when there was none."""
    return Recovery.model_validate(read_json(_file(folder)) or {})


def write(folder: JobFolder, recovery: Recovery) -> None:
    """Record that the job's next worker starts with ``recovery``. Raises OSError."""
    write_json(_file(folder), recovery.model_dump())


def next_rung(folder: JobFolder, spec: JobSpec) -> Recovery | None:
    """One rung lower, recorded; None when the job may not recover or stands on the lowest rung."""
    options = spec.options
    if spec.kind != "train" or not options.get("auto_recover"):
        return None
    recovery = read(folder)
    batch = int(options["batch_size"])
    change: dict[str, Any]
    ranks = spec.world.size if spec.world else 1  # each takes an equal share of each part
    divisors = [n for n in range(recovery.splits + 1, batch // ranks + 1) if batch % (n * ranks) == 0]
    if divisors:
        splits = divisors[0]
        change = {"splits": splits}
        text = f"batch_size {batch} in {splits} parts of {batch // splits}, gradients accumulated: the effective batch stays"
    elif not (recovery.grad_checkpoint or options["grad_checkpoint"]):
        change, text = {"grad_checkpoint": True}, "grad_checkpoint=true: activations are computed again, not kept"
    elif options.get("recover_by_cutting") and (recovery.max_seq_length or options["max_seq_length"]) >= 128:
        length = (recovery.max_seq_length or options["max_seq_length"]) // 2
        change, text = {"max_seq_length": length}, f"max_seq_length={length}: longer rows are cut"
    else:
        return None
    lower = recovery.model_copy(update={**change, "rungs": [*recovery.rungs, text]})
    write(folder, lower)
    return lower


def _file(folder: JobFolder) -> Path:
    return folder.path / "recovery.json"


def oom_kills() -> int | None:
    """How often the Linux kernel has ended a process for want of memory since boot; None elsewhere."""
    try:
        text = Path("/proc/vmstat").read_text(encoding="utf-8")
    except OSError:
        return None
    counts = [int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")]
    return counts[0] if counts else None
