"""Benchmarks that were run, found again by the adapter they measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mcp_server.evaluation.report import BenchmarkReport
from mcp_server.jobs import store
from mcp_server.jobs.files import read_json


@dataclass(frozen=True)
class PastBenchmark:
    """One completed benchmark. ``report`` is None when it was written by a version whose report this one can't read."""

    job_id: str
    created: float
    data: str
    report: BenchmarkReport | None


def past_benchmarks(adapters: set[str]) -> dict[str, list[PastBenchmark]]:
    """The completed benchmarks of each of these adapter folders (absolute paths), newest first."""
    found: dict[str, list[PastBenchmark]] = {}
    # Job ids tell the kind and sort by time, so that other jobs' folders are not opened.
    folders = [folder for folder in store.all_folders() if folder.job_id.startswith("benchmark-")]
    for folder in sorted(folders, key=lambda folder: folder.job_id, reverse=True):
        spec = read_json(folder.path / "spec.json") or {}
        options: dict[str, Any] = spec.get("options") or {}
        adapter = options.get("adapter_path")
        if not isinstance(adapter, str) or adapter not in adapters:
            continue
        outcome = folder.outcome()
        if outcome is not None and outcome.status == "completed" and outcome.result is not None:
            found.setdefault(adapter, []).append(
                PastBenchmark(
                    job_id=folder.job_id,
                    created=float(spec.get("created") or 0.0),
                    data=str(options.get("data")),
                    report=read_report(outcome.result),
                )
            )
    return found


def read_report(result: dict[str, Any]) -> BenchmarkReport | None:
    """A benchmark's result, where this version can read it."""
    try:
        return BenchmarkReport.model_validate(result)
    except ValidationError:
        return None


def measured_after(benchmarks: list[PastBenchmark], weights: Path) -> list[PastBenchmark]:
    """Those that measured the weights that are there now, not ones that were replaced since."""
    try:
        changed = weights.stat().st_mtime
    except OSError:
        return []
    return [benchmark for benchmark in benchmarks if benchmark.created >= changed]
