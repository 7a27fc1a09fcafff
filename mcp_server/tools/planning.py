"""Tools that tell what will happen before it does, and prepare for it."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from mcp.server.mcpserver import Context
from pydantic import BaseModel, ConfigDict, Field

from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import JobFolder, Status
from mcp_server.jobs.wait import Progress, wait_for_end
from mcp_server.planning import plan as planning
from mcp_server.planning.plan import Plan, PlanRequest
from mcp_server.planning.probe import ProbeResult, start_probe
from mcp_server.platform.environment import EnvironmentResult, start_environment
from mcp_server.tools.tool import make_tool


class PlanTraining(PlanRequest):
    """PlanRequest, and whether to measure."""

    probe: bool = Field(
        default=False, description="Run two real steps at the worst batch in a process of its own: exact memory and time"
    )
    if_busy: IfBusy = Field(default="queue", description="When another job runs: the probe waits in line, or is refused")
    wait_seconds: float = Field(
        default=300, ge=0, le=1800, allow_inf_nan=False, description="Wait up to this long for the probe"
    )


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


async def plan_training(request: PlanTraining, context: Context[Any, Any]) -> Plan:
    """Plan a training: complete arguments for start_lora_training with a reason for each, expected memory, time and disk.

    From the model's files, the data's token lengths, this machine and a goal. Cuts what does not fit, says what was cut,
    and says so when nothing fits and what would. With probe=true two real steps are run at the worst batch, so that memory
    and time are measured, not guessed. Starts no training."""
    return await make_plan(request, context.report_progress)


async def make_plan(request: PlanTraining, progress: Progress | None = None) -> Plan:
    """The plan; with its probe's measurements when one was asked for and has ended in time."""
    plain = PlanRequest.model_validate(request.model_dump(exclude={"probe", "if_busy", "wait_seconds"}))
    drafted = await anyio.to_thread.run_sync(planning.draft, plain)
    if not request.probe or drafted.smaller is None:
        return await anyio.to_thread.run_sync(planning.finish, drafted)

    def start() -> JobFolder:
        return start_probe(drafted.expected, if_busy=request.if_busy)

    folder = await anyio.to_thread.run_sync(start)
    view = await wait_for_end(folder, request.wait_seconds, progress)
    outcome = folder.outcome()
    if view.status == "completed" and outcome is not None:
        result = ProbeResult.model_validate(outcome.result)
        return await anyio.to_thread.run_sync(planning.finish, drafted.after(result), result, folder.job_id)
    unmeasured = await anyio.to_thread.run_sync(planning.finish, drafted, None, folder.job_id)
    state = view.why or view.status
    unmeasured.warnings.insert(
        0,
        f"the probe {folder.job_id} has not measured anything ({state}); "
        + (
            "call plan_training again when it has ended: its result is then taken into account"
            if view.status in ("queued", "working")
            else "read_training_log shows why; the figures here are estimates"
        ),
    )
    return unmeasured


async def prepare_environment(request: PrepareEnvironment, context: Context[Any, Any]) -> EnvironmentAnswer:
    """Make or repair the Python environment with MLX that jobs run in (uv, locked versions; about 1 GB the first time).

    Needed once, when check_platform or another tool says that mlx-lm was not found. Built beside the old one and swapped
    in when it works. Runs as a job: when it takes longer than wait_seconds, follow it with read_training_log."""
    return await prepare(request, context.report_progress)


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


TOOLS = [
    make_tool(plan_training, title="Plan training", read_only=False, idempotent=True),
    make_tool(prepare_environment, title="Prepare environment", read_only=False, idempotent=True, open_world=True),
]
