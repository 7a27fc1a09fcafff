"""Tools about jobs of every kind."""

from __future__ import annotations

from typing import Any, Literal

import anyio.to_thread
from mcp.server.mcpserver import Context
from pydantic import BaseModel, ConfigDict, Field

from mcp_server.jobs import index, service, store
from mcp_server.jobs.index import JobList
from mcp_server.jobs.service import JobView
from mcp_server.jobs.wait import wait_for_end
from mcp_server.tools.tool import make_tool
from mcp_server.training.request import TrainingRequest
from mcp_server.training.start import start_training


class ListJobs(BaseModel):
    """How many jobs."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=10, ge=1, le=100, description="Newest jobs to list")


class StopJob(BaseModel):
    """Which job, and how."""

    model_config = ConfigDict(extra="forbid")

    job_id: str = Field(description="The job to end")
    action: Literal["stop", "pause", "continue", "kill"] = Field(
        default="stop",
        description="stop: save a checkpoint and the adapter; pause: a checkpoint, to continue later; "
        "continue: go on with a paused or ended training; kill: at once, nothing saved",
    )
    wait_seconds: float = Field(
        default=60, ge=0, le=600, allow_inf_nan=False, description="Wait up to this long for it to end"
    )


def list_jobs(request: ListJobs) -> JobList:
    """List trainings, conversions and benchmarks of all sessions with their true states, newest first."""
    return index.newest(request.limit)


async def stop_job(request: StopJob, context: Context[Any, Any]) -> JobView:
    """End, pause or continue a job. A training saves its state first (unless killed); a queued job leaves the line.

    Continue starts a new job from the last checkpoint, as start_lora_training(resume=...) does, and returns that one."""
    folder = store.get(request.job_id)
    if request.action == "continue":
        started = await anyio.to_thread.run_sync(start_training, TrainingRequest(resume=request.job_id))
        return await anyio.to_thread.run_sync(service.view, store.get(started.job_id))
    await anyio.to_thread.run_sync(service.ask_to_stop, folder, request.action)
    return await wait_for_end(folder, request.wait_seconds, context.report_progress)


TOOLS = [
    make_tool(list_jobs, title="List jobs", read_only=True, idempotent=True),
    make_tool(stop_job, title="Stop job", read_only=False, destructive=True),
]
