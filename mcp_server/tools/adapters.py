"""Tools about adapters, and about what is shown of jobs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from mcp_server.adapters import listing
from mcp_server.adapters.listing import AdapterList, AdapterRequest
from mcp_server.reports import written
from mcp_server.reports.written import ReportWritten
from mcp_server.tools.tool import make_tool


class ReportRequest(BaseModel):
    """Of which job."""

    model_config = ConfigDict(extra="forbid")

    job_id: str = Field(description="As list_jobs gives it")


def list_adapters(request: AdapterRequest) -> AdapterList:
    """Which run was best, and how to repeat it: every adapter of the project and of past jobs, the best first, with base, data,
    options that differ from the defaults, losses, last benchmark, and for the best one the arguments that make it again.

    compare=[a, b] gives only how two differ: options, data, results side by side. It loads no weights and changes nothing."""
    return listing.list_adapters(request)


def make_report(request: ReportRequest) -> ReportWritten:
    """Write a job's report.html as it is now: summary, curves, memory, alerts, benchmark, samples, data, configuration, the
    command that repeats it, in one file for people. Trainings and benchmarks get theirs by themselves when they end."""
    return written.write(request.job_id)


TOOLS = [
    make_tool(list_adapters, title="List adapters", read_only=True, idempotent=True),
    make_tool(make_report, title="Make report", read_only=False, idempotent=True),
]
