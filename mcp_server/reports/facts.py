"""Everything that is known of one job, from its own files and from the benchmarks of its adapter."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mcp_server.conversion.options import ConvertOptions
from mcp_server.datasets.secrets import redact_value
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.past import PastBenchmark, adapters_of, line_of, measured_after, past_benchmarks, read_report
from mcp_server.evaluation.report import Ranked
from mcp_server.jobs import recovery, service
from mcp_server.jobs.files import read_json
from mcp_server.jobs.service import JobView
from mcp_server.jobs.store import JobFolder, JobSpec, JobState
from mcp_server.training import artifacts
from mcp_server.training.history import READ_BYTES, History, read_history
from mcp_server.training.options import TrainingOptions

_OPTIONS: dict[str, type[BaseModel]] = {
    "train": TrainingOptions,
    "benchmark": BenchmarkOptions,
    "convert": ConvertOptions,
}


@dataclass(frozen=True)
class JobFacts:
    """One job. ``options`` is None when the spec is of a version whose options this one can't read."""

    view: JobView
    spec: JobSpec
    history: History
    options: BaseModel | None
    result: dict[str, Any]
    provenance: dict[str, Any]
    benchmarks: list[PastBenchmark] = field(default_factory=list)
    lowered: list[str] = field(default_factory=list)

    @property
    def changed(self) -> dict[str, Any]:
        """Options that differ from their defaults."""
        return artifacts.changed(self.options) if self.options is not None else redact_value(self.spec.options)

    @property
    def command(self) -> str | None:
        """The command that does the same again: what the checks of a start refuse in a job's own spec is put otherwise."""
        match self.options:
            case TrainingOptions():
                return artifacts.command(artifacts.repeated(self.options))
            case BenchmarkOptions():
                return artifacts.command(_named_once(self.options), "benchmark")
            case ConvertOptions():
                return artifacts.command(_beside(self.options), "convert")
            case _:
                return None

    @property
    def seconds(self) -> float | None:
        """From its start to its end, once it has ended."""
        started, ended = self.view.started, self.view.ended
        return ended - started if started is not None and ended is not None else None

    @property
    def best(self) -> tuple[float, float] | None:
        """Step and loss of the best validation: as the job recorded it, since a long log is only sampled."""
        step, loss = self.result.get("best_val_step"), self.result.get("best_val_loss")
        return (step, loss) if step is not None and loss is not None else self.history.best

    @property
    def own_line(self) -> Ranked | None:
        """The line of this training's adapter in its newest benchmark, where that measured several."""
        newest = self.benchmarks[0].report if self.benchmarks else None
        adapter = self.spec.options.get("adapter_path")
        if newest is None or self.spec.kind != "train" or not isinstance(adapter, str):
            return None
        return line_of(newest, adapter)


def collect(folder: JobFolder, final: JobState | None = None, *, limit: int = READ_BYTES) -> JobFacts:
    """The facts of the job, from at most ``limit`` bytes of its log. ``final``: its end, for the runner that is about to
    record it. Raises JobError without a spec."""
    spec, view = folder.spec(), service.view(folder)
    if final is not None:
        view = view.model_copy(
            update={"status": final.status, "why": final.why, "ended": final.ended, "seconds_left": None}
        )
    outcome = folder.outcome()
    result = (outcome.result if outcome else None) or {}
    provenance = _provenance(spec)
    return JobFacts(
        view=view,
        spec=spec,
        history=read_history(folder.metrics, limit),
        options=_options(spec),
        result=result,
        provenance=provenance,
        benchmarks=_benchmarks(spec, result, published=bool(provenance)),
        lowered=list(recovery.read(folder).rungs),
    )


def _options(spec: JobSpec) -> BaseModel | None:
    model = _OPTIONS.get(spec.kind)
    try:
        return model.model_validate(spec.options) if model else None
    except ValidationError:
        return None


def _named_once(options: BenchmarkOptions) -> BenchmarkOptions:
    """A spec names the adapters in several ways; a caller has to choose one."""
    folders = adapters_of(options.model_dump())
    named = {"adapter_path": folders[0]} if len(folders) == 1 else {"adapters": folders or None}
    return options.model_copy(update={"adapter_path": None, "adapters": None, "job_id": None} | named)


def _beside(options: ConvertOptions) -> ConvertOptions:
    """A model is never overwritten: where one lies by now, the first free name after it."""
    path = options.mlx_path
    if path is None:
        return options
    names = chain([path], (f"{path}-{number}" for number in count(2)))
    return options.model_copy(update={"mlx_path": next(name for name in names if not os.path.lexists(name))})


def _provenance(spec: JobSpec) -> dict[str, Any]:
    """The adapter's provenance, if the adapter is still this job's."""
    adapter = spec.options.get("adapter_path")
    record = read_json(Path(adapter) / artifacts.PROVENANCE) if spec.kind == "train" and adapter else None
    return record if record and record.get("job_id") == spec.job_id else {}


def _benchmarks(spec: JobSpec, result: dict[str, Any], *, published: bool) -> list[PastBenchmark]:
    adapter = spec.options.get("adapter_path")
    if spec.kind == "benchmark" and result:
        own = PastBenchmark(spec.job_id, spec.created, str(spec.options.get("data")), read_report(result))
        return [own]
    if spec.kind != "train" or not isinstance(adapter, str) or not published:
        return []
    return measured_after(past_benchmarks({adapter}).get(adapter, []), Path(adapter) / "adapters.safetensors")


def plain(value: Any) -> str:
    """An option's or a result's value for people."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False)
