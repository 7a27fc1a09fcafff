"""Benchmarks that were run, found again by the adapter they measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mcp_server.evaluation.report import BenchmarkReport, Ranked
from mcp_server.jobs import store
from mcp_server.jobs.files import read_json

_SAME_LOSS = 1e-3  # nats per token: batches of another size round otherwise


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
        named = [adapter for adapter in adapters_of(options) if adapter in adapters]
        outcome = folder.outcome() if named else None
        if outcome is None or outcome.status != "completed" or outcome.result is None:
            continue
        past = PastBenchmark(
            job_id=folder.job_id,
            created=float(spec.get("created") or 0.0),
            data=str(options.get("data")),
            report=read_report(outcome.result),
        )
        for adapter in named:
            # One of several may have been left out, and then the report is about the others alone.
            if adapter == options.get("adapter_path") or past.report is None or _measured(past.report, adapter):
                found.setdefault(adapter, []).append(past)
    return found


def adapters_of(options: dict[str, Any]) -> list[str]:
    """The adapter folders that a benchmark's spec names: one, a job's own and its checkpoints, or several."""
    several = options.get("adapters")
    named = [options.get("adapter_path"), *(several if isinstance(several, list) else [])]
    return list(dict.fromkeys(name for name in named if isinstance(name, str)))


def line_of(report: BenchmarkReport, adapter: str) -> Ranked | None:
    """The line of this adapter's own in the ranking: of several, the report's other figures are those of the first."""
    return next((line for line in report.ranking if line.adapter_path == adapter), None)


def _measured(report: BenchmarkReport, adapter: str) -> bool:
    return report.adapter_path == adapter or line_of(report, adapter) is not None


def same_test(reports: list[BenchmarkReport | None]) -> bool:
    """Whether the losses in these reports mean the same. Not where one of them is not known.

    Another mask, cut or chat template shows in the tokens counted; rows that were changed since, or another base under the
    same name, in the loss of the base alone.
    """
    known = [report for report in reports if report is not None]
    if not known or len(known) < len(reports):
        return False
    tests = {(report.model, report.data, report.split, report.rows, report.tokens) for report in known}
    base = [report.base.loss for report in known]
    return len(tests) == 1 and max(base) - min(base) <= _SAME_LOSS


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
