"""One adapter, from what lies beside its weights and from the job that made it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, Field, ValidationError

from mcp_server import settings
from mcp_server.adapters.find import CONFIG, WEIGHTS
from mcp_server.datasets.secrets import redact_value
from mcp_server.evaluation.past import PastBenchmark, line_of
from mcp_server.evaluation.report import BenchmarkReport
from mcp_server.jobs.files import read_json
from mcp_server.training import artifacts
from mcp_server.training.options import TrainingOptions

# What says little about how a run was made, or is said elsewhere.
_APART = {
    "model",
    "data",
    "adapter_path",
    "steps_per_report",
    "save_every",
    "save_total_limit",
    "report_to",
    "project_name",
}


class BenchmarkSeen(BaseModel):
    """The newest completed benchmark of these weights. Differences are adapter minus base."""

    job_id: str
    verdict: str | None = None
    loss: float | None = None
    loss_difference: float | None = None
    interval_95: tuple[float, float] | None = None
    exact_match: float | None = None
    rows: int | None = None
    split: str | None = Field(default=None, description="valid: rows that may have chosen these weights")
    data: str | None = Field(default=None, description="Folder of its rows, if not the training's")


class Adapter(BaseModel):
    """One adapter."""

    path: str
    created: str = Field(description="When its weights were written, local time")
    model: str | None = Field(default=None, description="Its base")
    data: str | None = None
    data_digest: str | None = Field(default=None, description="Of train.jsonl as it was, shortened")
    train_rows: int | None = None
    job_id: str | None = Field(default=None, description="The training that made it; null for one made elsewhere")
    options: dict[str, Any] = Field(default_factory=dict, description="Options that differ from the defaults")
    steps: int | None = None
    weights_of_step: int | None = Field(default=None, description="The step whose weights these are, if not the last")
    val_loss: float | None = Field(default=None, description="Of the validation nearest to these weights")
    best_val_loss: float | None = Field(default=None, description="The run's lowest, if these weights are not its best")
    best_val_step: int | None = None
    train_loss: float | None = None
    tokens_per_second: float | None = Field(
        default=None, description="Over the whole run, or since it was resumed; validation included"
    )
    peak_memory_gb: float | None = None
    size_mb: float
    benchmark: BenchmarkSeen | None = None
    rank: str | None = Field(default=None, description="Among the adapters of the same base, data and loss")


class Described(BaseModel):
    """An adapter with what is needed to rank and to repeat it. ``report``: where its benchmark's loss is from."""

    adapter: Adapter
    report: BenchmarkReport | None = None
    training: TrainingOptions | None = None
    group: tuple[str, ...] = ()
    written: float

    @property
    def benchmark_loss(self) -> float | None:
        return self.adapter.benchmark.loss if self.adapter.benchmark is not None else None


def describe(folder: Path, benchmarks: list[PastBenchmark]) -> Described:
    """The adapter in ``folder``. ``benchmarks``: of these weights, newest first. Raises OSError when it is gone.

    Its files may be anybody's: what is not of the form expected counts as not known.
    """
    weights = (folder / WEIGHTS).stat()
    record = read_json(folder / artifacts.PROVENANCE) or {}
    config = _mapping(record.get("options")) or read_json(folder / CONFIG) or {}
    training = _training(config)
    data = _mapping(record.get("data"))
    files = _mapping(data.get("files"))
    adapter = Adapter(
        path=shown(folder),
        created=time.strftime("%Y-%m-%d %H:%M", time.localtime(weights.st_mtime)),
        model=_path(config.get("model")),
        data=_path(data.get("path") or config.get("data")),
        data_digest=_short(files.get("train.jsonl")),
        train_rows=_whole(_mapping(data.get("rows")).get("train")),
        job_id=_text(record.get("job_id")),
        options=_options(training),
        size_mb=round(weights.st_size / 1e6, 2),
        benchmark=_benchmark(folder, benchmarks, _text(data.get("path"))),
        **_results(_mapping(record.get("results"))),
    )
    valid_rows = _whole(_mapping(data.get("rows")).get("valid"))
    seen = adapter.benchmark
    return Described(
        adapter=adapter,
        report=benchmarks[0].report if seen is not None and seen.loss is not None else None,
        training=training,
        group=_group(adapter, files, valid_rows, training),
        written=weights.st_mtime,
    )


def _training(config: dict[str, Any]) -> TrainingOptions | None:
    """The options of the run; of mlx-lm's own configuration what both know."""
    known = {
        name: value for name, value in config.items() if name in TrainingOptions.model_fields and value is not None
    }
    try:
        return TrainingOptions.model_validate(known)
    except ValidationError:
        return None


def _options(training: TrainingOptions | None) -> dict[str, Any]:
    if training is None:
        return {}
    return {name: value for name, value in artifacts.changed(training).items() if name not in _APART and value != {}}


def _results(results: dict[str, Any]) -> dict[str, Any]:
    steps, kept, best_step = (_whole(results.get(name)) for name in ("steps", "weights_of_step", "best_val_step"))
    best = _rounded(results.get("best_val_loss"))
    of_best = best is not None and kept is not None and kept == best_step
    own = best if of_best else _rounded(results.get("final_val_loss"))
    apart = best is not None and best != own
    return {
        "steps": steps,
        "weights_of_step": kept if kept != steps else None,
        "val_loss": own,
        "best_val_loss": best if apart else None,
        "best_val_step": best_step if apart else None,
        "train_loss": _rounded(results.get("final_train_loss")),
        "tokens_per_second": _rounded(results.get("tokens_per_second")),
        "peak_memory_gb": _rounded(results.get("peak_memory_gb")),
    }


def _benchmark(folder: Path, benchmarks: list[PastBenchmark], trained_on: str | None) -> BenchmarkSeen | None:
    if not benchmarks:
        return None
    newest = benchmarks[0]
    report, data = newest.report, None if newest.data == trained_on else _path(newest.data)
    if report is None or report.adapter is None or report.comparison is None:
        return BenchmarkSeen(job_id=newest.job_id, data=data)
    # Of several, such as a job's checkpoints, the report is about the first; what it says of the others is their line.
    line = line_of(report, str(folder))
    if line is None and report.adapter_path not in (None, str(folder)):
        return None  # it could not be measured
    compared, measured = line or report.comparison, line or report.adapter
    interval = compared.interval_95
    return BenchmarkSeen(
        job_id=newest.job_id,
        verdict=compared.verdict,
        loss=_rounded(measured.loss),
        loss_difference=_rounded(compared.loss_difference),
        interval_95=(round(interval[0], 4), round(interval[1], 4)) if interval else None,
        exact_match=measured.exact_match,
        rows=report.rows,
        split=report.split,
        data=data,
    )


def _group(
    adapter: Adapter, files: dict[str, Any], valid_rows: int | None, training: TrainingOptions | None
) -> tuple[str, ...]:
    """Adapters whose validation losses mean the same: same base, same rows, same tokens counted."""
    if training is None or adapter.val_loss is None:
        return ()
    rows = files.get("valid.jsonl") or adapter.data
    counted = (
        training.mask_prompt,
        training.assistant_only_loss,
        training.max_seq_length,
        training.excess_length_strategy,
    )
    return (str(adapter.model), str(rows), _looked_at(training, valid_rows), *map(str, counted))


def _looked_at(training: TrainingOptions, rows: int | None) -> str:
    """How many of the validation's ``rows``: the same ones for each number of them, but stock draws them anew each time."""
    some = training.val_batches * training.batch_size
    left_out = 0 if training.buckets or rows is None else rows % training.batch_size
    if training.val_batches == -1 or (rows is not None and some >= rows):
        return f"all but {left_out}"
    return str(some) if training.buckets else f"{some} by chance"


def shown(path: Path) -> str:
    """A path of the project as the user would write it; others whole."""
    project = settings.project()
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)


def _path(value: Any) -> str | None:
    """A folder, or a Hub id, which has no place here and stays as it is."""
    text = _text(value)
    return shown(Path(text)) if text and Path(text).is_absolute() else text


def _text(value: Any) -> str | None:
    return redact_value(value) if isinstance(value, str) else None


def _short(digest: Any) -> str | None:
    return str(digest).removeprefix("sha256:")[:12] if digest else None


def _mapping(value: Any) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _rounded(value: Any) -> float | None:
    return round(value, 4) if isinstance(value, int | float) and math.isfinite(value) else None
