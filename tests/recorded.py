"""Job folders as a runner and a worker leave them, for tests of what is shown of jobs."""

from __future__ import annotations

import sys
import time
from typing import Any

from mcp_server.jobs import store
from mcp_server.jobs.events import EventWriter
from mcp_server.jobs.store import JobFolder, JobSpec, JobState, Outcome


def make_job(
    job_id: str = "train-20260101-000000-aaaa",
    /,
    events: list[dict[str, Any]] | None = None,
    *,
    status: str = "completed",
    why: str | None = None,
    result: dict[str, Any] | None = None,
    **options: Any,
) -> JobFolder:
    """The folder of a job that ended. The kind is the id's first word."""
    now = time.time()
    spec = JobSpec.model_validate(
        {
            "job_id": job_id,
            "kind": job_id.partition("-")[0],
            "created": now - 60,
            "project": "/project",
            "python": sys.executable,
            "options": {"model": "some/model", "data": "/project/data"} | options,
        }
    )
    folder = store.create(spec)
    writer = EventWriter(folder.metrics)
    for event in events or []:
        writer.write(**event)
    folder.write_state(JobState.model_validate({"status": status, "why": why, "started": now - 50, "ended": now}))
    if result is not None:
        folder.write_outcome(Outcome(status="completed", result=result))
    return folder


def course(steps: int = 20) -> list[dict[str, Any]]:
    """What a training reports."""
    events: list[dict[str, Any]] = [{"type": "data", "rows": {"train": 40, "valid": 8}, "digest": "d"}]
    for step in range(steps + 1):
        if step % 5 == 0:
            events.append({"type": "val", "step": step, "total": steps, "loss": 2.0 - step * 0.05})
        if step:
            rates = {"learning_rate": 1e-5, "tokens_per_second": 1234.5}
            events.append({"type": "train", "step": step, "total": steps, "loss": 2.0 - step * 0.06, **rates})
            sizes = {
                "active_bytes": 4 * 10**9,
                "peak_bytes": 6 * 10**9,
                "cache_bytes": 10**8,
                "available_bytes": 10**10,
            }
            events.append({"type": "memory", "step": step, **sizes})
    return events


BENCHMARK: dict[str, Any] = {
    "model": "some/model",
    "data": "/project/data",
    "split": "test",
    "rows": 12,
    "tokens": 99,
    "base": {"loss": 2.5, "perplexity": 12.2, "exact_match": 0.0},
    "adapter": {"loss": 0.5, "perplexity": 1.65, "exact_match": 0.75},
    "comparison": {"loss_difference": -2.0, "interval_95": [-2.2, -1.8], "win_rate": 1.0, "verdict": "better"},
    "summary": "The adapter is better than the base: loss 2.5 → 0.5",
    "samples": [{"prompt": "why?", "reference": "because", "base": "dunno", "adapter": "because"}],
}
