"""Reading a job's log as it grows: ``read_training_log`` of 1,000 against 1,000,000 events, from the start and from a cursor.

Prints JSON: medians in milliseconds, and the ratios with their spread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcp_server.jobs import store
from mcp_server.jobs.store import JobFolder, JobSpec, JobState
from mcp_server.training.log import LogRequest, read_log


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
    """The time of one read."""
    started = time.perf_counter()
    await read_log(LogRequest(job_id=folder.job_id, since=since))
    return (time.perf_counter() - started) * 1000


async def measure(rounds: int, events: int) -> dict[str, object]:
    """Medians and ratios; the two logs take turns, and a round's ratio is that of its two reads."""
    logs = {"1,000": make_job("train-small", 1_000), f"{events:,}": make_job("train-large", events)}
    result: dict[str, dict[str, Any]] = {}
    for name, back in (("from the last 10 events", 10), ("from the start", None)):
        since = {size: 0 if back is None else _cursor(folder.metrics, back) for size, folder in logs.items()}
        times: dict[str, list[float]] = {size: [] for size in logs}
        for number in range(rounds + 1):
            for size, folder in logs.items():
                taken = await milliseconds(folder, since[size])
                if number:  # the first read of each fills the file cache
                    times[size].append(taken)
        small, large = times.values()
        ratios = [more / less for less, more in zip(small, large, strict=True)]
        result[name] = {size: round(statistics.median(values), 2) for size, values in times.items()}
        result[name]["ratio"] = round(statistics.median(ratios), 2)
        result[name]["ratio_min_max"] = [round(min(ratios), 2), round(max(ratios), 2)]
    return {"benchmark": "log reads, ms", "rounds": rounds, "events": events, **result, "goal": "ratio <= 3"}


def _cursor(metrics: Path, events: int) -> int:
    with metrics.open("rb") as file:
        file.seek(-events * 120, os.SEEK_END)
        return file.tell() + file.read().find(b"\n") + 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--events", type=int, default=1_000_000, help="in the longer log")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["MLX_TRAINING_HOME"] = home
        print(json.dumps(anyio.run(measure, chosen.rounds, chosen.events), indent=1))


if __name__ == "__main__":
    main()
