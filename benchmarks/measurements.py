"""What `make bench` measures, in the order in which it does: those first that other programs disturb most."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks import rows


@dataclass
class Measurement:
    """One script, how it is called, which of its figures are shown, and how long it takes on two quiet cores."""

    title: str
    command: list[str]
    rows: Callable[[rows.Found], Iterable[rows.Row]]
    seconds: int
    section: bool = True
    """False: a file of ``measures.py``, each of which has a section of its own."""

    @property
    def limit(self) -> float:
        """It may take three times as long as it should, and a minute."""
        return 3 * self.seconds + 60


MAC = sys.platform == "darwin"


def _sizes() -> dict[str, list[str]]:
    """Models that keep this machine busy: a GPU would be done with a CPU's in no time. Those for Macs were never tried."""
    if not MAC:
        return {"measures": ["--shape", "tiny", "--steps", "16"], "overhead": [], "peers": [], "planner": []}
    roomy = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >= 30 * 2**30
    shape = ["--shape", "qwen2.5-0.5b", "--type", "16"] if roomy else ["--shape", "small", "--type", "16"]
    model = ["--hidden", "512", "--layers", "12", "--vocab", "32000"]
    return {
        "measures": [*shape, "--steps", "48"],
        "overhead": [*model, "--tokens", "512"],
        "peers": [*model, "--window", "1024", "--epoch", "48"],
        "planner": ["--steps", "3000"],
    }


SIZES = _sizes()


def _measures(tokens: int, seconds: int, only: tuple[str, ...] = ()) -> dict[str, Measurement]:
    """``only`` these configurations beside stock; none named: all of them."""
    shape = SIZES["measures"][1]
    command = ["benchmarks/measures.py", *SIZES["measures"], "--workload", "real", "--tokens", str(tokens)]
    command += ["--rounds", "3", *(("--only", *only) if only else ()), "--output", "{output}"]
    name = f"measures-{'apple-silicon' if MAC else 'cpu'}-{shape}-{tokens}"
    return {
        name: Measurement(f"Against stock, up to {tokens:,} tokens", command, rows.measures, seconds, section=False)
    }


MEASUREMENTS: dict[str, Measurement] = {
    "server_start": Measurement("Server cold start", ["benchmarks/server_start.py"], rows.start, 30),
    "tool_calls": Measurement("A plain tool call", ["benchmarks/tool_calls.py"], rows.calls, 10),
    "hook_latency": Measurement(
        "The gate, whole process", ["benchmarks/hook_latency.py", "--launcher", "--peer", "--json"], rows.hooks, 40
    ),
    "log_reads": Measurement("Reading logs as they grow", ["benchmarks/log_reads.py"], rows.logs, 15),
    "training_overhead": Measurement(
        "Training with stock=true against stock `mlx_lm.lora`",
        ["benchmarks/training_overhead.py", "--rounds", "5", *SIZES["overhead"]],
        rows.overhead,
        60,
    ),
    "peers": Measurement("Training beside its peers", ["benchmarks/peers.py", *SIZES["peers"]], rows.peers, 600),
    "benchmark_parity": Measurement(
        "run_benchmark against stock mlx-lm", ["benchmarks/benchmark_parity.py"], rows.parity, 40
    ),
    "planner": Measurement(
        "A probe's word against the run", ["benchmarks/planner.py", *SIZES["planner"]], rows.planner, 720
    ),
    **_measures(512, 830),
    **_measures(2048, 1420, only=("length bucketing", "default")),
    "datasets": Measurement("Inspecting a data set", ["benchmarks/datasets.py"], rows.datasets, 200),
    "quality": Measurement(
        "Held-out loss after training, the measures on against stock", ["benchmarks/quality.py"], rows.quality, 200
    ),
    "distributed": Measurement(
        "Two ranks on this machine against one", ["benchmarks/distributed.py"], rows.distributed, 345
    ),
    "exactness": Measurement("Killed and resumed against uninterrupted", ["benchmarks/exactness.py"], rows.exact, 90),
    "context": Measurement("Tokens of context", ["benchmarks/context.py"], rows.context, 50),
    "gate": Measurement("The gate's verdicts", ["tests/guard/score.py", "--json"], rows.gate, 25),
    "gate_second": Measurement(
        "The gate's verdicts, second corpus", ["tests/guard/score.py", "--json", "tests.guard.second"], rows.gate, 15
    ),
    "memory_estimate": Measurement(
        "Memory estimated without a probe, against the kept grid of measured peaks",
        ["benchmarks/memory_fit.py", "report", "benchmarks/memory_grid.linux-cpu.json"],
        rows.estimate,
        5,
    ),
    "interval_coverage": Measurement(
        "Intervals of simulated benchmarks", ["benchmarks/interval_coverage.py"], rows.coverage, 100
    ),
}
