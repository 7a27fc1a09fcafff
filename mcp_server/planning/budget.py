"""How much memory a job may use on this machine, and how much of it is free now."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import psutil
from pydantic import BaseModel, Field

from mcp_server import settings
from mcp_server.jobs import lock, store
from mcp_server.jobs.events import tail
from mcp_server.jobs.world import World
from mcp_server.platform import chip, readings
from mcp_server.platform import facts as machine

Backend = Literal["apple-silicon", "linux-cpu", "linux-cuda"]
TIGHT = 0.85  # of the limit: above it a longer row or a browser tab is enough to swap
_SYSTEM_BYTES = 2 * 10**9  # what Linux itself and the job's Python need beside MLX


class Budget(BaseModel):
    """Bytes. ``limit`` is what one process may use at all; ``free`` what nobody else uses now."""

    backend: Backend
    chip: str | None
    total: int
    limit: int
    limit_from: str = Field(description="Where the limit comes from")
    free: int
    ranks: int = Field(default=1, description="Processes among which the rows of a batch are split")
    machines: int = Field(default=1, description="Machines, or GPUs, that work on a batch at once")
    facts: dict[str, Any] = Field(default_factory=dict, exclude=True)

    def of_rank(self, world: World | None) -> Budget:
        """The budget of one rank of ``world``: those of one machine share it, but on CUDA each has a GPU of its own."""
        if world is None:
            return self
        here = processes_sharing(world)
        source = f"{self.limit_from}, shared by {here} ranks" if here > 1 else self.limit_from
        change = {"limit": self.limit // here, "free": self.free // here, "limit_from": source}
        return self.model_copy(update={**change, "ranks": world.size, "machines": max(world.size // here, 1)})

    def machine_key(self) -> str:
        """Measurements of one machine are good for it alone, and for one back end with one way of compiling."""
        compiled = "" if os.environ.get("MLX_DISABLE_COMPILE") is None else " uncompiled"
        return f"{self.chip or 'unknown'} {self.total / 2**30:.0f} GiB {self.backend}{compiled}"


def read(backend: Backend) -> Budget:
    """The budget of this machine, through the facts' one seam."""
    facts = machine.collect()
    found = readings.collect(facts)
    total = _integer(facts, "memory_bytes") or psutil.virtual_memory().total
    free = _integer(found, "available_bytes")
    free = total if free is None else free
    if backend == "apple-silicon":
        limit, source = _metal_limit(total, found)
    elif backend == "linux-cuda" and _integer(found, "gpu_memory_bytes"):
        total = limit = int(found["gpu_memory_bytes"])
        free = int(found.get("gpu_free_bytes", limit))  # 0 is an answer, too
        source = "the GPU's memory (nvidia-smi)"
    else:
        total = min(total, _integer(found, "memory_limit_bytes") or total)
        limit, source = max(total - _SYSTEM_BYTES, total // 2), "the machine's memory less 2 GB"
    name = facts.get("chip")
    return Budget(
        backend=backend,
        chip=str(name) if name else None,
        total=total,
        limit=limit,
        limit_from=source,
        free=min(free + _own_jobs_bytes(backend), total),
        facts={**facts, **found},
    )


def processes_sharing(world: World | None) -> int:
    """How many ranks take their memory from this machine's one."""
    return 1 if world is None or world.engine == "nccl" else world.local


def free_bytes() -> int:
    """Memory that nobody uses now, where jobs of this machine take it from."""
    backend, _ = machine.backend(machine.collect())
    return read(backend_name(backend)).free


def backend_name(name: str | None) -> Backend:
    """Where nothing else is known, what the product is for."""
    return "linux-cuda" if name == "linux-cuda" else "linux-cpu" if name == "linux-cpu" else "apple-silicon"


def _metal_limit(total: int, found: Mapping[str, Any]) -> tuple[int, str]:
    wired = _integer(found, "wired_limit_bytes")
    if wired:
        return min(wired, total), "iogpu.wired_limit_mb"
    told = _integer(found, "working_set_bytes")
    if told:
        return told, "Metal's recommended working set"
    return chip.working_set_bytes(total), "Metal's usual share of the memory (two thirds, above 32 GB three quarters)"


def working_set(budget: Budget) -> int:
    """What Metal advises one process to use on this Mac, bytes."""
    return _integer(budget.facts, "working_set_bytes") or chip.working_set_bytes(budget.total)


def _integer(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _own_jobs_bytes(backend: Backend) -> int:
    """Memory of our own job that runs now, where MLX takes it from: it will be free when the next one's turn comes."""
    holder = lock.read_holder(str(settings.home() / "gpu.lock")) or {}
    pid, job_id = holder.get("pid"), holder.get("job_id")
    if not isinstance(pid, int) or not isinstance(job_id, str):
        return 0
    folder = store.JobFolder(store.jobs_folder() / job_id)
    worker = folder.state().worker
    try:
        if worker is None or not worker.alive():
            return 0
        if backend == "linux-cuda":  # the GPU's memory is in no figure of the process
            told = [event for event in tail(folder.metrics) if event["type"] == "memory"][-1:]
            return sum(int(event["active_bytes"]) + int(event["cache_bytes"]) for event in told)
        return process_bytes(pid, backend)
    except psutil.Error:
        return 0


def process_bytes(pid: int, backend: Backend) -> int:
    """Host memory of a process and its children (several ranks). Raises psutil.Error.

    On a Mac the GPU's buffers are in the footprint (uss) and not in the resident set.
    """
    process = psutil.Process(pid)
    family = (process, *process.children(recursive=True))
    if backend == "apple-silicon":
        return sum(one.memory_full_info().uss for one in family)
    return sum(one.memory_info().rss for one in family)


def largest_programs(count: int = 3) -> list[str]:
    """The programs with the most resident memory, for the advice to close them: "Xcode 6.2 GB"."""
    sizes: dict[str, int] = {}
    for process in psutil.process_iter(["name", "memory_info"]):
        memory = process.info.get("memory_info")
        if memory is not None:
            name = str(process.info.get("name") or "?")
            sizes[name] = sizes.get(name, 0) + memory.rss
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:count]
    return [f"{name} {size / 1e9:.1f} GB" for name, size in largest if size > 2 * 10**8]
