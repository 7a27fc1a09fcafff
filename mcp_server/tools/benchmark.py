"""The tool that measures whether an adapter is better than its base."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from pydantic import Field

from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.report import BenchmarkReport
from mcp_server.evaluation.start import start_benchmark
from mcp_server.jobs.service import IfBusy
from mcp_server.tools.tool import make_tool
from mcp_server.tools.waiting import BUSY, HOW, WAIT, JobAnswer, finish


class Benchmark(BenchmarkOptions):
    """BenchmarkOptions and how to wait."""

    if_busy: IfBusy = Field(default="queue", description=BUSY)
    wait_seconds: float = Field(default=100, ge=0, le=1800, allow_inf_nan=False, description=WAIT)


class BenchmarkAnswer(JobAnswer):
    """A benchmark that ended, or that goes on."""

    report: BenchmarkReport | None = None


async def run_benchmark(options: Benchmark, context: Context[Any, Any]) -> BenchmarkAnswer:
    """Compare adapters with their base model on held-out data (test.jsonl) and give a verdict with its uncertainty.

    Loss per row, paired, with a 95 % interval; scores of generated answers; samples; speed. With adapters or job_id (all
    checkpoints of a training) also a ranking and which to keep. Runs as a job: when it takes longer than wait_seconds,
    follow it with read_training_log."""
    plain = BenchmarkOptions.model_validate(options.model_dump(exclude=HOW))
    answer, result = await finish(start_benchmark(plain, if_busy=options.if_busy), options.wait_seconds, context)
    return BenchmarkAnswer(**answer.model_dump(), report=BenchmarkReport.model_validate(result) if result else None)


TOOLS = [make_tool(run_benchmark, title="Run benchmark", read_only=False, open_world=True)]
