"""Memory of the machine and of a running job. A job's figures come from its own telemetry: MLX counts per process."""

from __future__ import annotations

import os

import psutil
from pydantic import BaseModel, ConfigDict, Field

from mcp_server import settings
from mcp_server.jobs import lock, service, store
from mcp_server.jobs.events import tail
from mcp_server.jobs.store import JobFolder
from mcp_server.platform import facts as machine
from mcp_server.training.log import memory_gb


class MemoryRequest(BaseModel):
    """Whose memory."""

    model_config = ConfigDict(extra="forbid")

    job_id: str | None = Field(default=None, description="A job; default the one that runs now, if any")


class MemoryReport(BaseModel):
    """Memory in GB (1e9 bytes). On a Mac CPU and GPU share it."""

    summary: str
    total_gb: float
    available_gb: float
    swap_used_gb: float
    wired_limit_gb: float | None = Field(default=None, description="iogpu.wired_limit_mb, where it was set")
    job_id: str | None = None
    job: dict[str, float] | None = Field(
        default=None, description="MLX's active, peak and cache memory of the job's process"
    )
    job_process_gb: float | None = Field(default=None, description="Resident memory of the job's process")
    advice: list[str] = Field(default_factory=list)


def read_memory(request: MemoryRequest) -> MemoryReport:
    """The machine's memory and, if a job is named or running, the job's."""
    virtual, swap = psutil.virtual_memory(), psutil.swap_memory()
    report = MemoryReport(
        summary="",
        total_gb=round(virtual.total / 1e9, 2),
        available_gb=round(virtual.available / 1e9, 2),
        swap_used_gb=round(swap.used / 1e9, 2),
        wired_limit_gb=_wired_limit_gb(),
    )
    folder = store.get(request.job_id) if request.job_id else _running_job()
    if folder is not None:
        _add_job(report, folder)
    report.advice = _advice(report)
    report.summary = f"{report.available_gb} of {report.total_gb} GB available, {report.swap_used_gb} GB swapped"
    if report.job:
        report.summary += f"; job {report.job_id}: {report.job['active']} GB active, {report.job['peak']} GB peak"
    elif report.job_id is None:
        report.summary += "; no job is running"
    return report


def _running_job() -> JobFolder | None:
    holder = lock.read_holder(str(settings.home() / "gpu.lock"))
    job_id = holder.get("job_id") if holder else None
    path = store.jobs_folder() / str(job_id)
    return JobFolder(path) if job_id and path.is_dir() else None


def _add_job(report: MemoryReport, folder: JobFolder) -> None:
    report.job_id = folder.job_id
    events = [event for event in tail(folder.metrics) if event["type"] == "memory"]
    report.job = memory_gb(events[-1]) if events else None
    worker = service.reconcile(folder).worker
    if worker is not None and worker.alive():
        try:
            report.job_process_gb = round(psutil.Process(worker.pid).memory_info().rss / 1e9, 3)
        except psutil.Error:
            report.job_process_gb = None


def _wired_limit_gb() -> float | None:
    if os.uname().sysname != "Darwin":
        return None
    value = machine.sysctl("iogpu.wired_limit_mb")
    return round(int(value) * 1048576 / 1e9, 2) if value and value.isdigit() and int(value) > 0 else None


def _advice(report: MemoryReport) -> list[str]:
    found: list[str] = []
    if report.available_gb < 0.1 * report.total_gb:
        found.append(
            f"only {report.available_gb} GB are available: close other programs, or lower batch_size or max_seq_length, "
            "or use grad_checkpoint and a 4-bit model"
        )
    if report.swap_used_gb > 0.25 * report.total_gb:
        found.append(f"{report.swap_used_gb} GB are swapped out, which slows training down by an order of magnitude")
    return found
