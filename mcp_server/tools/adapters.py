"""Tools about adapters, and about what is shown of jobs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from mcp_server.adapters import listing
from mcp_server.adapters.listing import AdapterList, AdapterRequest
from mcp_server.jobs import store
from mcp_server.tools.tool import make_tool


class ReportRequest(BaseModel):
    """Of which job."""

    model_config = ConfigDict(extra="forbid")

    job_id: str = Field(description="As list_jobs gives it")


class ReportWritten(BaseModel):
    """A page for people."""

    path: str = Field(description="Opens in any browser, without a server")
    summary: str


def list_adapters(request: AdapterRequest) -> AdapterList:
    """Which run was best, and how to repeat it: every adapter of the project and of past jobs, the best first, with base, data,
    options that differ from the defaults, losses, last benchmark, and for the best one the arguments that make it again.

    compare=[a, b] gives only how two differ: options, data, results side by side. It loads no weights and changes nothing."""
    return listing.list_adapters(request)


def make_report(request: ReportRequest) -> ReportWritten:
    """Write a job's report.html as it is now: summary, curves, memory, alerts, benchmark, samples, data, configuration, the
    command that repeats it, in one file for people. Trainings and benchmarks get theirs by themselves when they end."""
    # Every start of the server would pay for these, and few sessions ask for a report.
    from mcp_server.reports.facts import collect
    from mcp_server.reports.words import summary
    from mcp_server.reports.write import write_report

    folder = store.get(request.job_id)
    path = write_report(folder)
    return ReportWritten(path=str(path), summary=summary(collect(folder)))


TOOLS = [
    make_tool(list_adapters, title="List adapters", read_only=True, idempotent=True),
    make_tool(make_report, title="Make report", read_only=False, idempotent=True),
]
