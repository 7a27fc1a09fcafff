"""Tools about jobs of every kind."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel, ConfigDict, Field

from mcp_server.jobs import index, service, store
from mcp_server.jobs.index import JobList
from mcp_server.jobs.service import JobView
from mcp_server.jobs.wait import wait_for_end
from mcp_server.tools.tool import make_tool


class ListJobs(BaseModel):
    """How many jobs."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=10, ge=1, le=100, description="Newest jobs to list")


class StopJob(BaseModel):
    """Which job, and how."""

    model_config = ConfigDict(extra="forbid")

    job_id: str = Field(description="The job to end")
    force: bool = Field(default=False, description="End it at once, without a last checkpoint")
    wait_seconds: float = Field(
        default=60, ge=0, le=600, allow_inf_nan=False, description="Wait up to this long for it to end"
    )


def list_jobs(request: ListJobs) -> JobList:
    """List trainings, conversions and benchmarks of all sessions with their true states, newest first."""
    return index.newest(request.limit)


async def stop_job(request: StopJob, context: Context[Any, Any]) -> JobView:
    """End a job: a training saves a last checkpoint and its adapter first, unless force is set; a queued job leaves the line."""
    folder = store.get(request.job_id)
    service.ask_to_stop(folder, force=request.force)
    return await wait_for_end(folder, request.wait_seconds, context.report_progress)


TOOLS = [
    make_tool(list_jobs, title="List jobs", read_only=True, idempotent=True),
    make_tool(stop_job, title="Stop job", read_only=False, destructive=True, idempotent=True),
]
