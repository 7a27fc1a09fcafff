"""The MLX environment asked for, waited for, and told of."""

from __future__ import annotations

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from mcp_server.jobs.store import JobFolder, Status
from mcp_server.jobs.wait import Progress, wait_for_end
from mcp_server.platform.environment import EnvironmentResult, start_environment


class PrepareEnvironment(BaseModel):
    """How to prepare."""

    model_config = ConfigDict(extra="forbid")

    reinstall: bool = Field(default=False, description="Build a new environment even if the present one is whole")
    wait_seconds: float = Field(
        default=100, ge=0, le=1800, allow_inf_nan=False, description="Wait up to this long; the job goes on after it"
    )


class EnvironmentAnswer(BaseModel):
    """An environment that is there, or the job that makes it."""

    summary: str
    job_id: str | None = None
    status: Status
    result: EnvironmentResult | None = None
    next_step: str | None = None


async def prepare(request: PrepareEnvironment, progress: Progress | None = None) -> EnvironmentAnswer:
    """The environment, or how far its job is after ``wait_seconds``."""

    def start() -> JobFolder | EnvironmentResult:
        return start_environment(reinstall=request.reinstall)

    started = await anyio.to_thread.run_sync(start)
    if isinstance(started, EnvironmentResult):
        return EnvironmentAnswer(
            summary=f"{started.note} ({started.python})", status="completed", result=started, next_step="plan_training"
        )
    view = await wait_for_end(started, request.wait_seconds, progress)
    outcome = started.outcome()
    if view.status == "completed" and outcome is not None:
        result = EnvironmentResult.model_validate(outcome.result)
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        return EnvironmentAnswer(
            summary=f"installed: {versions}; {result.note}",
            job_id=started.job_id,
            status=view.status,
            result=result,
            next_step="check_platform",
        )
    goes_on = view.status in ("queued", "working")
    return EnvironmentAnswer(
        summary=view.why or (f"{view.step or 0} of {view.total or '?'} packages" if goes_on else view.status),
        job_id=started.job_id,
        status=view.status,
        next_step=f"read_training_log(job_id={started.job_id!r}, wait_seconds=60, until='end')"
        if goes_on
        else "put right what the summary says, then call prepare_environment again",
    )
