"""Which run was best, and how to repeat it, in one call."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mcp_server import settings
from mcp_server.adapters.compare import AdapterComparison, compare, differing
from mcp_server.adapters.describe import Adapter, Described, describe
from mcp_server.adapters.find import WEIGHTS, find_adapters, is_adapter
from mcp_server.errors import PathError
from mcp_server.evaluation.past import PastBenchmark, measured_after, past_benchmarks, same_test
from mcp_server.jobs import store
from mcp_server.training import artifacts


class AdapterRequest(BaseModel):
    """Which adapters."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=5, ge=1, le=100, description="Adapters to list, the best of the newest data first")
    offset: int = Field(default=0, ge=0, description="Adapters to leave out at the front")
    folder: str | None = Field(default=None, description="Folder to search besides past jobs; default the project")
    compare: list[str] | None = Field(
        default=None, min_length=2, max_length=2, description="Two adapters, by path or job id: only how they differ"
    )


class Repeat(BaseModel):
    """How to make the best one again, as a new adapter."""

    path: str
    arguments: dict[str, Any] | None = Field(default=None, description="For start_lora_training")
    command: str | None = None


class AdapterList(BaseModel):
    """The adapters, best first within the same base and data, the newest data first.

    Of the others, model, data and options are said where they differ from the best's arguments.
    """

    summary: str
    showing: str
    best: Repeat | None = None
    adapters: list[Adapter] = Field(default_factory=list)
    comparison: AdapterComparison | None = None


def list_adapters(request: AdapterRequest) -> AdapterList:
    """The adapters of the project and of past jobs, or how two of them differ. Raises PathError, JobError."""
    if request.compare is not None:
        one, other = (describe(path, _benchmarks(path)) for path in map(_named, request.compare))
        comparison = compare(one, other)
        return AdapterList(summary=comparison.summary, showing="2 adapters compared", comparison=comparison)
    root = settings.resolve(request.folder) if request.folder else settings.project()
    if not root.is_dir():
        raise PathError(f"folder={str(root)!r} is not a folder; give one that holds adapters, or leave it out")
    os.scandir(root).close()  # one that may not be listed would read as one without adapters
    found = find_adapters(root)
    ranked = _ranked(_describe(found.folders))
    shown = ranked[request.offset : request.offset + request.limit]
    showing = f"{len(shown)} of {len(ranked)} adapters"
    if found.cut:
        showing += f"; the search below {root} was cut short, name a folder"
    best = ranked[0] if ranked and ranked[0].adapter.rank is not None else None
    return AdapterList(
        summary=_why(best.adapter) if best else _no_best(ranked),
        showing=showing,
        best=_repeat(best) if best else None,
        adapters=[_beside(described, best) for described in shown],
    )


def _named(name: str) -> Path:
    """The adapter folder that ``name`` means."""
    path = settings.resolve(name)
    if is_adapter(path):
        return path
    if "/" not in name and (store.jobs_folder() / name).is_dir():
        adapter = store.get(name).spec().options.get("adapter_path")
        if adapter and is_adapter(Path(adapter)):
            return Path(adapter)
        raise PathError(f"job {name} has no adapter (any more); list_adapters shows those that there are")
    raise PathError(f"{path} is not an adapter folder (no {WEIGHTS} there); list_adapters shows those that there are")


def _benchmarks(folder: Path) -> list[PastBenchmark]:
    return measured_after(past_benchmarks({str(folder)}).get(str(folder), []), folder / WEIGHTS)


def _describe(folders: list[Path]) -> list[Described]:
    known = past_benchmarks({str(folder) for folder in folders})
    found: list[Described] = []
    for folder in folders:
        with contextlib.suppress(OSError):  # deleted since it was found
            found.append(describe(folder, measured_after(known.get(str(folder), []), folder / WEIGHTS)))
    return found


def _ranked(found: list[Described]) -> list[Described]:
    """Groups by their newest member, in them the best first; adapters that no loss is known of come last, newest first."""
    ordered: list[Described] = []
    for members in sorted(_groups(found), key=lambda members: -max(member.written for member in members)):
        score, name = _score(members)
        members.sort(key=lambda member: (score(member), -member.written))
        for place, member in enumerate(members, 1):
            member.adapter.rank = f"{place} of {len(members)} by {name}"
        ordered += members
    unknown = [described for described in found if described.adapter.rank is None]
    return ordered + sorted(unknown, key=lambda described: -described.written)


def _groups(found: list[Described]) -> list[list[Described]]:
    """Adapters whose losses mean the same: of their validations or, where there was none, of benchmarks by the same test."""
    validated: dict[tuple[str, ...], list[Described]] = {}
    for described in found:
        if described.group:
            validated.setdefault(described.group, []).append(described)
    groups = list(validated.values())
    for described in found:
        if described.group or described.report is None:
            continue
        tested = (group for group in groups if same_test([*(member.report for member in group), described.report]))
        if (group := next(tested, None)) is not None:
            group.append(described)
        else:
            groups.append([described])
    return groups


def _score(members: list[Described]) -> tuple[Callable[[Described], float], str]:
    """What orders a group: held-out loss where all were measured by the same test, else validation loss."""
    if same_test([member.report for member in members]):
        return _benchmark_loss, "benchmark loss"
    return _validation_loss, "validation loss"


def _benchmark_loss(member: Described) -> float:
    return math.inf if member.benchmark_loss is None else member.benchmark_loss


def _validation_loss(member: Described) -> float:
    return math.inf if member.adapter.val_loss is None else member.adapter.val_loss


def _why(best: Adapter) -> str:
    text, seen = f"{best.path} is {best.rank}", best.benchmark
    if best.val_loss is not None:
        text += f": validation loss {best.val_loss}"
    if best.val_loss is not None and best.steps is not None:
        text += f" after {best.weights_of_step or best.steps} steps"
    if seen is None or seen.verdict is None:
        return f"{text}; not benchmarked yet, so not proved"
    return f"{text}; benchmark on {seen.split}.jsonl: {seen.verdict}, loss {seen.loss}"


def _repeat(best: Described) -> Repeat | None:
    if best.training is None:
        return None
    again = artifacts.repeated(best.training)
    return Repeat(path=best.adapter.path, arguments=artifacts.changed(again), command=artifacts.command(again))


def _beside(described: Described, best: Described | None) -> Adapter:
    """The adapter without what is the best one's too: every word here is read by a model."""
    adapter = described.adapter
    if best is None or best.training is None:
        return adapter
    same = {name: None for name in ("model", "data") if getattr(adapter, name) == getattr(best.adapter, name)}
    if described is best:
        return adapter.model_copy(update={**same, "options": {}})
    if described.training is None:
        return adapter.model_copy(update=same)
    if adapter.data_digest == best.adapter.data_digest:
        same |= {"data_digest": None, "train_rows": None}
    return adapter.model_copy(update={**same, "options": differing(described.training, best.training)})


def _no_best(found: list[Described]) -> str:
    if not found:
        return "there are no adapters yet; start_lora_training makes one"
    return "no adapter here has a known validation or benchmark loss; run_benchmark tells which is best"
