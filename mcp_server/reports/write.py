"""``report.html`` in the job folder: written when a training or a benchmark ends, and on demand."""

from __future__ import annotations

from pathlib import Path

from mcp_server.errors import PathError
from mcp_server.evaluation.past import adapters_of
from mcp_server.jobs import store
from mcp_server.jobs.files import read_json, write_atomic
from mcp_server.jobs.store import JobFolder, JobState
from mcp_server.reports.facts import collect
from mcp_server.reports.page import report
from mcp_server.training.artifacts import PROVENANCE

AT_THE_END = ("train", "benchmark")


def write_report(folder: JobFolder, final: JobState | None = None) -> Path:
    """Write the report of the job as it is now, over an older one. Raises JobError without a spec, PathError on a full disk."""
    page = report(collect(folder, final))
    try:
        write_atomic(folder.report, page.encode())
    except OSError as error:
        raise PathError(
            f"the report could not be written to {folder.report}: {error.strerror or error}; free disk space there"
        ) from error
    return folder.report


def write_final_reports(folder: JobFolder, final: JobState) -> None:
    """The report of a job that ends; a benchmark also belongs into the reports of the trainings it measured."""
    write_report(folder, final)
    if folder.spec().kind != "benchmark" or final.status != "completed":
        return
    records = (read_json(Path(adapter) / PROVENANCE) or {} for adapter in adapters_of(folder.spec().options))
    for trained in dict.fromkeys(record.get("job_id") for record in records):
        if isinstance(trained, str) and (store.jobs_folder() / trained / "spec.json").is_file():
            write_report(store.get(trained))
