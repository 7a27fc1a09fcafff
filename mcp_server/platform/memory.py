"""Memory of the machine and of a running job. A job's figures come from its own telemetry: MLX counts per process."""

from __future__ import annotations

from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field

from mcp_server import settings
from mcp_server.jobs import lock, service, store
from mcp_server.jobs.events import Event, tail
from mcp_server.jobs.store import JobFolder
from mcp_server.planning import budget as budgets
from mcp_server.planning.budget import Budget
from mcp_server.platform import facts as machine
from mcp_server.training.log import memory_gb

_TREND_EVENTS = 40
_GROWTH = 0.05  # of the memory held: less over the window is noise


class MemoryRequest(BaseModel):
    """Whose memory."""

    model_config = ConfigDict(extra="forbid")

    job_id: str | None = Field(default=None, description="A job; default the one that runs now, if any")


class Trend(BaseModel):
    """How the job's memory (active and cache) changes."""

    direction: Literal["steady", "growing", "shrinking"]
    mb_per_100_steps: float
    steps: int = Field(description="Steps looked at")
    steps_until_full: int | None = Field(default=None, description="At this pace, until the limit")


class MemoryReport(BaseModel):
    """Memory in GB (1e9 bytes). On a Mac CPU and GPU share it."""

    summary: str
    total_gb: float
    available_gb: float
    swap_used_gb: float
    pressure: Literal["normal", "warning", "critical"] | None = Field(
        default=None, description="The system's own verdict: memory pressure on a Mac, stalls on Linux"
    )
    wired_limit_gb: float | None = Field(default=None, description="iogpu.wired_limit_mb, where it was set")
    recommended_working_set_gb: float | None = Field(
        default=None, description="What Metal advises one process to use, by rule where no fact file names it"
    )
    limit_gb: float = Field(description="What one job may use here")
    job_id: str | None = None
    job: dict[str, float] | None = Field(
        default=None, description="MLX's active, peak and cache memory of the job's process"
    )
    job_process_gb: float | None = Field(
        default=None, description="Memory of the job's process as the system counts it"
    )
    headroom_gb: float | None = Field(default=None, description="Between the job's peak so far and the limit")
    trend: Trend | None = None
    advice: list[str] = Field(default_factory=list)


def read_memory(request: MemoryRequest) -> MemoryReport:
    """The machine's memory and, if a job is named or running, the job's."""
    facts = machine.collect()
    backend, _ = machine.backend(facts)
    fallback = "apple-silicon" if facts.get("system") == "Darwin" else "linux-cpu"
    budget = budgets.read(budgets.backend_name(backend or fallback))
    found = budget.facts
    available = found.get("gpu_free_bytes" if budget.backend == "linux-cuda" else "available_bytes")
    swapped = found.get("swap_used_bytes")
    wired = found.get("wired_limit_bytes")
    pressure = found.get("pressure")
    on_mac = budget.backend == "apple-silicon"
    report = MemoryReport(
        summary="",
        total_gb=round(budget.total / 1e9, 2),
        available_gb=round((available if isinstance(available, int) else budget.free) / 1e9, 2),
        swap_used_gb=round(swapped / 1e9, 2) if isinstance(swapped, int) else 0.0,
        pressure=pressure if pressure in ("normal", "warning", "critical") else None,
        wired_limit_gb=round(wired / 1e9, 2) if isinstance(wired, int) else None,
        recommended_working_set_gb=round(budgets.working_set(budget) / 1e9, 2) if on_mac else None,
        limit_gb=round(budget.limit / 1e9, 2),
    )
    folder = store.get(request.job_id) if request.job_id else _running_job()
    if folder is not None:
        _add_job(report, folder, budget)
    report.advice = _advice(report)
    report.summary = _summary(report)
    return report


def _running_job() -> JobFolder | None:
    holder = lock.read_holder(str(settings.home() / "gpu.lock"))
    job_id = holder.get("job_id") if holder else None
    path = store.jobs_folder() / str(job_id)
    return JobFolder(path) if job_id and path.is_dir() else None


def _add_job(report: MemoryReport, folder: JobFolder, budget: Budget) -> None:
    report.job_id = folder.job_id
    events = [event for event in tail(folder.metrics) if event["type"] == "memory"]
    if events:
        report.job = memory_gb(events[-1])
        report.headroom_gb = round((budget.limit - events[-1]["peak_bytes"]) / 1e9, 3)
        report.trend = trend(events[-_TREND_EVENTS:], budget.limit)
    worker = service.reconcile(folder).worker
    if worker is not None and worker.alive():
        try:
            # Of several ranks the worker is the process that watches them.
            report.job_process_gb = round(budgets.process_bytes(worker.pid, budget.backend) / 1e9, 3)
        except psutil.Error:
            report.job_process_gb = None


def trend(events: list[Event], limit: int) -> Trend | None:
    """The straight line through active + cache memory over steps, by least squares; None with fewer than four reports.

    The first report holds compilation and the optimizer's first state, so it does not count.
    """
    points = [(event["step"], event["active_bytes"] + event["cache_bytes"]) for event in events if "step" in event][1:]
    if len(points) < 3 or points[-1][0] <= points[0][0]:
        return None
    mean_step = sum(step for step, _ in points) / len(points)
    mean_held = sum(held for _, held in points) / len(points)
    spread = sum((step - mean_step) ** 2 for step, _ in points)
    slope = sum((step - mean_step) * (held - mean_held) for step, held in points) / spread
    steps = points[-1][0] - points[0][0]
    change = slope * steps
    direction: Literal["steady", "growing", "shrinking"] = "steady"
    if abs(change) > _GROWTH * mean_held:
        direction = "growing" if change > 0 else "shrinking"
    left = limit - points[-1][1]
    return Trend(
        direction=direction,
        mb_per_100_steps=round(100 * slope / 1e6, 3),
        steps=steps,
        steps_until_full=max(int(left / slope), 0) if direction == "growing" else None,
    )


def _summary(report: MemoryReport) -> str:
    text = f"{report.available_gb} of {report.total_gb} GB available, {report.swap_used_gb} GB swapped"
    if report.pressure:
        text += f", pressure {report.pressure}"
    if report.job:
        text += f"; job {report.job_id}: {report.job['active']} GB active, {report.job['peak']} GB peak"
        text += f", {report.headroom_gb} GB below the limit of {report.limit_gb} GB"
        if report.trend:
            text += f", {report.trend.direction}"
    elif report.job_id is None:
        text += f"; no job is running; a job may use {report.limit_gb} GB"
    else:
        text += f"; job {report.job_id} has not reported its memory yet"
    return text


def _advice(report: MemoryReport) -> list[str]:
    found: list[str] = []
    less = (
        "lower batch_size or max_seq_length, or use grad_checkpoint and a 4-bit model (plan_training finds what fits)"
    )
    if report.pressure == "critical" or report.available_gb < 0.1 * report.total_gb:
        found.append(f"only {report.available_gb} GB are available: close other programs, or {less}")
    elif report.pressure == "warning":
        found.append("the system is short of memory: close other programs before it begins to swap")
    if report.swap_used_gb > 0.25 * report.total_gb:
        found.append(f"{report.swap_used_gb} GB are swapped out, which slows training down by an order of magnitude")
    if report.headroom_gb is not None and report.headroom_gb < 0.1 * report.limit_gb:
        found.append(
            f"the job's peak is {max(report.headroom_gb, 0)} GB below the limit: a longer row may exceed it; "
            f"stop_job keeps a checkpoint, then {less}"
        )
    if report.trend is not None and report.trend.direction == "growing":
        until = report.trend.steps_until_full
        found.append(
            f"memory grows by {report.trend.mb_per_100_steps} MB every 100 steps"
            + (f" and would be full in about {until:,} steps" if until is not None else "")
            + "; clear_cache_threshold=0 gives the cache back after each step"
        )
    if report.job and report.job["cache"] > max(report.job["active"], 0.2 * report.limit_gb):
        found.append(
            f"{report.job['cache']} GB are cache that MLX could give back: clear_cache_threshold=0 does it each step"
        )
    return found
