"""What the tools share that start a job and wait a while for its result."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel

from mcp_server.jobs.store import JobFolder, Status
from mcp_server.jobs.wait import wait_for_end

WAIT = "Wait up to this long for the result; the job goes on when the time is up"
BUSY = "When another job runs: wait in line, or refuse"
HOW = {"if_busy", "wait_seconds"}  # of a tool's arguments those that are not the job's options


class JobAnswer(BaseModel):
    """A job that ended, or that goes on."""

    job_id: str
    status: Status
    why: str | None = None
    next_step: str | None = None


async def finish(
    folder: JobFolder, seconds: float, context: Context[Any, Any]
) -> tuple[JobAnswer, dict[str, Any] | None]:
    """How the job stands after the wait, and its result when it has one."""
    view = await wait_for_end(folder, seconds, context.report_progress)
    outcome = folder.outcome()
    goes_on = view.status in ("queued", "working")
    next_step = f"read_training_log(job_id={folder.job_id!r}, wait_seconds=60, until='end')" if goes_on else None
    answer = JobAnswer(job_id=folder.job_id, status=view.status, why=view.why, next_step=next_step)
    return answer, outcome.result if outcome else None
