"""How two adapters differ: options, data, results."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from mcp_server.adapters.describe import Adapter, Described
from mcp_server.datasets.secrets import redact_value
from mcp_server.evaluation.past import same_test
from mcp_server.training.options import TrainingOptions

_RESULTS = (
    "val_loss",
    "best_val_loss",
    "best_val_step",
    "train_loss",
    "steps",
    "weights_of_step",
    "tokens_per_second",
    "peak_memory_gb",
    "size_mb",
)
_BENCHMARK = ("verdict", "loss", "loss_difference", "exact_match", "rows", "split", "data")
Pair = tuple[Any, Any]


class AdapterComparison(BaseModel):
    """Each value is a pair: of the first adapter, of the second. What is equal is left out of options and data."""

    summary: str
    adapters: tuple[str, str]
    options: dict[str, Pair] = Field(default_factory=dict)
    data: dict[str, Pair] = Field(default_factory=dict, description="Base model, data folder, digest and rows")
    results: dict[str, Pair] = Field(default_factory=dict)
    benchmark: dict[str, Pair] = Field(default_factory=dict)
    curves: str | None = Field(default=None, description="The call that draws both")


def compare(one: Described, other: Described) -> AdapterComparison:
    """The two side by side."""
    first, second = one.adapter, other.adapter
    known: list[dict[str, Any]] = [plain(described.training) for described in (one, other)]
    names = [name for name in dict.fromkeys([*known[0], *known[1]]) if known[0].get(name) != known[1].get(name)]
    return AdapterComparison(
        summary=_summary(one, other) + _other_tests(one, other),
        adapters=(first.path, second.path),
        options={name: _pair(known, name) for name in names},
        data={
            name: pair
            for name in ("model", "data", "data_digest", "train_rows")
            if (pair := (getattr(first, name), getattr(second, name)))[0] != pair[1]
        },
        results={
            name: pair for name in _RESULTS if (pair := (getattr(first, name), getattr(second, name))) != (None, None)
        },
        benchmark=_benchmarks(first, second),
        curves=_curves(first, second),
    )


def plain(training: TrainingOptions | None) -> dict[str, Any]:
    """Options as plain data, without paths and secrets."""
    if training is None:
        return {}
    return redact_value(training.model_dump(mode="json", exclude={"model", "data", "adapter_path"}))


def differing(training: TrainingOptions, other: TrainingOptions) -> dict[str, Any]:
    """The options of ``training`` that ``other`` has otherwise."""
    beside = plain(other)
    return {name: value for name, value in plain(training).items() if value != beside[name]}


def _pair(known: list[dict[str, Any]], name: str) -> Pair:
    return known[0].get(name), known[1].get(name)


def _benchmarks(first: Adapter, second: Adapter) -> dict[str, Pair]:
    seen = [adapter.benchmark.model_dump() if adapter.benchmark else {} for adapter in (first, second)]
    return {name: pair for name in _BENCHMARK if (pair := _pair(seen, name)) != (None, None)}


def _summary(one: Described, other: Described) -> str:
    if one.group and one.group == other.group:
        return _lower("validation loss", one.adapter.val_loss, other.adapter.val_loss)
    if same_test([one.report, other.report]):
        return _lower("benchmark loss", one.benchmark_loss, other.benchmark_loss)
    if not one.group or not other.group:
        return "the validation loss of one of them is not known; run_benchmark both on the same test set"
    return (
        "their validation losses can't be compared (other base, validation rows or tokens counted); "
        "run_benchmark both on the same test set"
    )


def _lower(what: str, first: float | None, second: float | None) -> str:
    if first == second:
        return f"both have {what} {first}"
    better = "first" if (first or 0) < (second or 0) else "second"
    return f"the {better} has the lower {what}: {first} against {second}"


def _other_tests(one: Described, other: Described) -> str:
    """What must be known of the benchmark losses that stand side by side."""
    if one.report is None or other.report is None or same_test([one.report, other.report]):
        return ""
    return (
        "; their benchmark losses can't be compared (other base, test rows or tokens counted): "
        "run_benchmark(adapters=[both]) measures them alike"
    )


def _curves(first: Adapter, second: Adapter) -> str | None:
    if first.job_id is None or second.job_id is None or first.job_id == second.job_id:
        return None
    return f"read_training_log(job_id={first.job_id!r}, compare_with=[{second.job_id!r}])"
