"""What this machine measured, kept so that the next estimate is better: ``calibration.json`` in the state folder.

The formula's resident part (weights, adapter, optimizer) is exact; what is uncertain is the part above it. So kept is the
ratio measured / estimated of that part, by machine, back end and way of checkpointing. A probe runs the worst batch
itself: its ratio replaces the guess. A training may never have met its longest rows: it can only raise the ratio.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import statistics
import time
from collections.abc import Generator
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from mcp_server import settings
from mcp_server.jobs import store
from mcp_server.jobs.files import read_json, write_json
from mcp_server.jobs.store import JobFolder
from mcp_server.planning.memory import MemoryParts

ESTIMATE = "estimate.json"  # in a job's folder: what was expected of it
_KEPT = 12
_RANGE = (0.4, 3.0)  # a ratio outside is a mistake in the record, not a machine


class Expected(BaseModel):
    """``estimate.json``: enough to learn from the job when it has ended."""

    machine: str
    grad_checkpoint: bool
    resident: int
    above: int = Field(description="The formula's figure above the resident part, bytes, not corrected")
    exact: bool = Field(default=False, description="The job surely ran the batch the estimate is of")


class Entry(BaseModel):
    """One job's lesson."""

    job_id: str
    machine: str
    grad_checkpoint: bool
    ratio: float
    exact: bool
    time: float


class Correction(BaseModel):
    """What to multiply the part above the resident one by."""

    factor: float = 1.0
    source: Literal[
        "not calibrated on this machine",
        "probes on this machine",
        "trainings on this machine",
        "a probe of this very training",
    ] = "not calibrated on this machine"
    jobs: int = 0

    def apply(self, parts: MemoryParts) -> int:
        """The corrected peak, bytes."""
        resident = parts.weights + parts.adapter + parts.optimizer
        return resident + round((parts.peak - resident) * self.factor)


def expect(folder: JobFolder, machine: str, parts: MemoryParts, *, grad_checkpoint: bool, exact: bool) -> None:
    """Write down what is expected of a job. A full disk loses the lesson, not the job."""
    resident = parts.weights + parts.adapter + parts.optimizer
    expected = Expected(
        machine=machine,
        grad_checkpoint=grad_checkpoint,
        resident=resident,
        above=parts.peak - resident,
        exact=exact,
    )
    with contextlib.suppress(OSError):
        write_json(folder.path / ESTIMATE, expected.model_dump())


def correction(machine: str, *, grad_checkpoint: bool) -> Correction:
    """What the jobs that have ended on ``machine`` say; jobs not looked at before are looked at first."""
    entries = [entry for entry in learn() if entry.machine == machine and entry.grad_checkpoint == grad_checkpoint]
    if not entries:
        return Correction()
    exact = [entry.ratio for entry in entries if entry.exact][-_KEPT:]
    others = [entry.ratio for entry in entries if not entry.exact][-_KEPT:]
    factor = statistics.median(exact) if exact else 1.0
    if others and max(others) > factor:
        return Correction(factor=max(others), source="trainings on this machine", jobs=len(others))
    if not exact:
        return Correction()
    return Correction(factor=factor, source="probes on this machine", jobs=len(exact))


def learn() -> list[Entry]:
    """All entries, with those of jobs that have ended since added to the file."""
    path = settings.home() / "calibration.json"
    if not path.parent.is_dir():
        return []
    with _locked():
        record = read_json(path) or {}
        entries = _entries(record.get("entries"))
        seen: set[str] = {str(name) for name in record.get("seen", [])}
        added = False
        for folder in store.all_folders():
            if folder.job_id in seen or not (folder.path / ESTIMATE).exists() or not folder.state().finished:
                continue
            seen.add(folder.job_id)
            added = True
            entry = _lesson(folder)
            if entry is not None:
                entries.append(entry)
        entries.sort(key=lambda entry: entry.time)
        if added:
            with contextlib.suppress(OSError):
                kept = [entry.model_dump() for entry in entries[-200:]]
                write_json(path, {"entries": kept, "seen": sorted(seen)})
    return entries


def _lesson(folder: JobFolder) -> Entry | None:
    try:
        expected = Expected.model_validate(read_json(folder.path / ESTIMATE))
    except ValidationError:
        return None
    outcome = folder.outcome()
    result = (outcome.result or {}) if outcome is not None and outcome.status == "completed" else {}
    if result.get("recovered"):
        return None  # it ran with less than it was estimated for
    peak = result.get("peak_bytes") or 1e9 * (result.get("peak_memory_gb") or 0)
    if peak <= 0 or expected.above <= 0:
        return None
    ratio = (peak - expected.resident) / expected.above
    if not _RANGE[0] <= ratio <= _RANGE[1]:
        return None
    return Entry(
        job_id=folder.job_id,
        machine=expected.machine,
        grad_checkpoint=expected.grad_checkpoint,
        ratio=round(ratio, 4),
        exact=expected.exact and not result.get("stopped_early"),
        time=folder.state().ended or time.time(),
    )


def _entries(values: Any) -> list[Entry]:
    found: list[Entry] = []
    for value in values if isinstance(values, list) else []:
        with contextlib.suppress(ValidationError):
            found.append(Entry.model_validate(value))
    return found


@contextlib.contextmanager
def _locked() -> Generator[None]:
    """One process at a time reads and rewrites the file."""
    descriptor = os.open(settings.home() / ".calibration.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
