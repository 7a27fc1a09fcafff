"""Reading a job's log as it grows: ``read_training_log`` of 1,000 against 1,000,000 events, from the start and from a cursor.

Prints JSON: medians in milliseconds and the ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import anyio

from mcp_server.jobs import store
from mcp_server.jobs.store import JobFolder, JobSpec, JobState
from mcp_server.training.log import LogRequest, read_log

ROUNDS = 15


def make_job(name: str, events: int) -> JobFolder:
    """A finished training whose log holds this many events."""
    spec = JobSpec(job_id=name, kind="train", created=time.time(), project="/", python="python", options={})
    folder = store.create(spec)
    folder.write_state(JobState(status="completed", ended=time.time()))
    with folder.metrics.open("w", encoding="utf-8") as file:
        for step in range(1, events + 1):
            event = {"type": "train", "time": 1.0 * step, "step": step, "total": events, "loss": 1 / step}
            file.write(json.dumps(event) + "\n")
    return folder


async def milliseconds(folder: JobFolder, since: int) -> float:
    """The median time of one read."""
    times: list[float] = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await read_log(LogRequest(job_id=folder.job_id, since=since))
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


async def measure() -> dict[str, object]:
    """All four medians and their ratios."""
    small, large = make_job("train-small", 1_000), make_job("train-large", 1_000_000)
    result: dict[str, dict[str, float]] = {}
    for name, back in (("from the last 10 events", 10), ("from the start", None)):
        figures = {
            size: await milliseconds(folder, 0 if back is None else _cursor(folder.metrics, back))
            for size, folder in (("1,000", small), ("1,000,000", large))
        }
        result[name] = {size: round(value, 2) for size, value in figures.items()}
        result[name]["ratio"] = round(figures["1,000,000"] / figures["1,000"], 2)
    return {"benchmark": "log reads, ms", "rounds": ROUNDS, **result, "goal": "ratio <= 3"}


def _cursor(metrics: Path, events: int) -> int:
    with metrics.open("rb") as file:
        file.seek(-events * 120, os.SEEK_END)
        return file.tell() + file.read().find(b"\n") + 1


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["MLX_TRAINING_HOME"] = home
        print(json.dumps(anyio.run(measure), indent=1))


if __name__ == "__main__":
    main()
