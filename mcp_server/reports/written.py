"""What is said of a report that was written, to a tool's caller and to a program."""

from __future__ import annotations

from pydantic import BaseModel, Field

from mcp_server.jobs import store


class ReportWritten(BaseModel):
    """A page for people."""

    path: str = Field(description="Opens in any browser, without a server")
    summary: str


def write(job_id: str) -> ReportWritten:
    """Write the report of a job as it is now. Raises a UserError when there is no such job or no room."""
    # Every start of the server would pay for these, and few sessions ask for a report.
    from mcp_server.reports.facts import collect
    from mcp_server.reports.words import summary
    from mcp_server.reports.write import write_report

    folder = store.get(job_id)
    path = write_report(folder)
    return ReportWritten(path=str(path), summary=summary(collect(folder)))
