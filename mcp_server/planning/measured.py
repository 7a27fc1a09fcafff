"""A plan that may be measured first: the probe is started, waited for, and taken into account."""

from __future__ import annotations

import anyio.to_thread
from pydantic import Field

from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import JobFolder
from mcp_server.jobs.wait import Progress, wait_for_end
from mcp_server.planning import plan as planning
from mcp_server.planning.check import gb
from mcp_server.planning.plan import Plan, PlanRequest
from mcp_server.planning.probe import ProbeResult, start_probe


class PlanTraining(PlanRequest):
    """PlanRequest, and whether to measure."""

    probe: bool = Field(
        default=False,
        description="Run two real steps at the worst batch in a process of its own: exact memory and time",
    )
    if_busy: IfBusy = Field(
        default="queue", description="When another job runs: the probe waits in line, or is refused"
    )
    wait_seconds: float = Field(
        default=300, ge=0, le=1800, allow_inf_nan=False, description="Wait up to this long for the probe"
    )


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
        if result.peak_bytes > drafted.expected.budget.limit:
            again = await anyio.to_thread.run_sync(planning.draft, plain)  # by what the probe has taught
            if again.smaller is not None and again.expected.options != drafted.expected.options:
                plan = await anyio.to_thread.run_sync(planning.finish, again, None, folder.job_id)
                plan.warnings.insert(
                    0,
                    f"the probe {folder.job_id} measured {gb(result.peak_bytes)} GB of {gb(again.expected.budget.limit)} that "
                    "may be used, so this plan was cut further, by that measurement; call plan_training again to measure it",
                )
                return plan
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
