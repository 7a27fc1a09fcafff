"""Tools that convert and measure models."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from mcp_server.conversion.options import ConvertOptions
from mcp_server.conversion.report import ConversionResult
from mcp_server.conversion.start import start_conversion
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.report import BenchmarkReport
from mcp_server.evaluation.start import start_benchmark
from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import JobFolder, Status
from mcp_server.jobs.wait import wait_for_end
from mcp_server.tools.tool import make_tool
from mcp_server.tools.waiting import BUSY, HOW, WAIT, JobAnswer, finish

_WAIT = "Wait up to this long for the result; the job goes on when the time is up"


class Conversion(ConvertOptions):
    """ConvertOptions and how to wait."""

    if_busy: IfBusy = Field(default="queue", description=BUSY)
    wait_seconds: float = Field(default=100, ge=0, le=1800, allow_inf_nan=False, description=WAIT)


class Benchmark(BenchmarkOptions):
    """BenchmarkOptions and how to wait."""

    if_busy: IfBusy = Field(default="queue", description="When another job runs: wait in line, or refuse")
    wait_seconds: float = Field(default=100, ge=0, le=1800, allow_inf_nan=False, description=_WAIT)


class ConversionAnswer(JobAnswer):
    """A conversion that ended, or that goes on."""

    result: ConversionResult | None = None


class BenchmarkAnswer(BaseModel):
    """A benchmark that ended, or that goes on."""

    job_id: str
    status: Status
    why: str | None = None
    report: BenchmarkReport | None = None
    next_step: str | None = None


async def convert_model(options: Conversion, context: Context[Any, Any]) -> ConversionAnswer:
    """Convert a Hugging Face model to MLX format, by default quantized to 4 bits, as mlx_lm.convert does.

    Says what it costs: size and perplexity before and after. Written to a new folder that appears only when it is whole
    and has been loaded and tried; nothing is overwritten and nothing uploaded. method= quantizes with the help of your
    data. Runs as a job: when it takes longer than wait_seconds, follow it with read_training_log."""
    plain = ConvertOptions.model_validate(options.model_dump(exclude=HOW))
    answer, result = await finish(start_conversion(plain, if_busy=options.if_busy), options.wait_seconds, context)
    return ConversionAnswer(**answer.model_dump(), result=ConversionResult.model_validate(result) if result else None)


async def run_benchmark(options: Benchmark, context: Context[Any, Any]) -> BenchmarkAnswer:
    """Compare an adapter with its base model on held-out data (test.jsonl) and give a verdict with its uncertainty.

    Measures loss and perplexity per row, pairs them, bootstraps a 95 % interval, answers prompts with both (exact match,
    samples) and times generation. Runs as a job: when it takes longer than wait_seconds, follow it with
    read_training_log."""
    plain = BenchmarkOptions.model_validate(options.model_dump(exclude={"if_busy", "wait_seconds"}))
    folder = start_benchmark(plain, if_busy=options.if_busy)
    status, why, result, next_step = await _finish(folder, options.wait_seconds, context)
    return BenchmarkAnswer(
        job_id=folder.job_id,
        status=status,
        why=why,
        report=BenchmarkReport.model_validate(result) if result else None,
        next_step=next_step,
    )


async def _finish(
    folder: JobFolder, seconds: float, context: Context[Any, Any]
) -> tuple[Status, str | None, dict[str, Any] | None, str | None]:
    """Status, reason, result and what to do next, after the wait."""
    view = await wait_for_end(folder, seconds, context.report_progress)
    outcome = folder.outcome()
    goes_on = view.status in ("queued", "working")
    next_step = f"read_training_log(job_id={folder.job_id!r}, wait_seconds=60, until='end')" if goes_on else None
    return view.status, view.why, outcome.result if outcome else None, next_step


TOOLS = [
    make_tool(convert_model, title="Convert model", read_only=False, open_world=True),
    make_tool(run_benchmark, title="Run benchmark", read_only=False, open_world=True),
]
