"""Every measurement in one command, and RESULTS.md from what they gave.

    python benchmarks/results.py [--only NAME ...] [--render]

Each entry of ``MEASUREMENTS`` runs a script of this folder in a fresh process and keeps its JSON in ``benchmarks/results``;
RESULTS.md is made from those files alone, so that no figure gets in by hand. ``--render`` measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
Row = tuple[str, str, str]
"""What was measured, the figure with its spread, the goal."""


@dataclass
class Measurement:
    """One script, how it is called, and which of its figures are shown."""

    title: str
    command: list[str]
    rows: Callable[[dict[str, Any]], list[Row]]


def spread(low_high: list[float]) -> str:
    return f"({low_high[0]}–{low_high[1]})"


def _start(found: dict[str, Any]) -> list[Row]:
    return [("spawn to first answer, against a bare MCPServer", f"{found['ratio']} ×", found["goal"])]


def _logs(found: dict[str, Any]) -> list[Row]:
    return [
        (f"1,000,000 events against 1,000, {name}", f"{value['ratio']} ×", "≤ 3")
        for name, value in found.items()
        if isinstance(value, dict)
    ]


def _overhead(found: dict[str, Any]) -> list[Row]:
    speed = f"{found['speed_ratio_median']} × {spread(found['speed_ratio_min_max'])}"
    return [
        ("tokens/s, stock=true against stock mlx_lm.lora", speed, "≥ 0.98"),
        ("peak memory, the same", f"{found['peak_memory_ratio']} ×", "≤ 1.02"),
        ("losses equal to the last bit", str(found["losses_equal"]), "True"),
    ]


def _hooks(found: dict[str, Any]) -> list[Row]:
    rows = found["rows"]
    goals = {"unrelated": "≤ 1.15", "parsed": "≤ 2.7"}
    return [
        (
            f"{kind} calls, worst of {len(chosen)}, against bare python",
            f"{max(row['ratio'] for row in chosen)} ×, p95 {max(row['p95_ms'] for row in chosen)} ms",
            goal,
        )
        for kind, goal in goals.items()
        if (chosen := [row for label, row in rows.items() if label.startswith(kind)])
    ]


def _exact(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"{pair.replace(':', ', ')}: {figures['kills']} kills, {figures['resumes']} resumes",
            f"largest loss difference {figures['largest_loss_difference']}, weights equal {figures['weights_equal']}",
            "0.0, True",
        )
        for pair, figures in found.items()
        if isinstance(figures, dict) and "kills" in figures
    ]


def _planner(found: dict[str, Any]) -> list[Row]:
    def errors(case: dict[str, Any]) -> str:
        memory, step, total = (case[name] for name in ("probe_memory_error", "step_time_error", "total_time_error"))
        return f"memory {memory:+.1%}, step {step:+.1%}, in all {total:+.1%} of {case['seconds_in_all']['run']} s"

    return [(f"{case['case']}: probe against run", errors(case), "3 %, 15 %, 15 %") for case in found["cases"]]


def _peers(found: dict[str, Any]) -> list[Row]:
    rows: list[Row] = [
        (
            f"{name}, tokens/s and peak memory against stock",
            f"{figures['speed']} × {spread(figures['speed_min_max'])}, {figures['peak_memory']} ×",
            "",
        )
        for name, figures in found["contenders"].items()
    ]
    for name, why in found["do_not_run_here"].items():
        rows.append((f"{name} does not run here", why.strip().splitlines()[-1][:120], ""))
    return rows


def _datasets(found: dict[str, Any]) -> list[Row]:
    times = found["cpu_time_as_multiple_of_json_loads"]
    whole = found["parts"]["whole"]
    peak = whole["peak_mb"]
    return [
        (f"{found['rows']:,} rows inspected, peak memory", f"{peak} MB", "< 1,000"),
        ("CPU time against a json.loads loop", f"{times['whole']} ×, {times['exact']} × without near-duplicates", ""),
    ]


def _benchmark(found: dict[str, Any]) -> list[Row]:
    losses = {name: pair["difference"] for name, pair in found["test_loss"].items()}
    speed, ends = found["speed_ratio_median"]["generation"], found["speed_ratio_min_max"]["generation"]
    return [
        ("test loss against mlx_lm lora --test, worst difference", str(max(losses.values())), "≤ 0.001"),
        ("perplexity against mlx_lm.perplexity", f"{found['perplexity']['ratio']} ×", "within 1 %"),
        ("generation tokens/s against mlx_lm.benchmark", f"{speed} × {spread(ends)}", "within 5 %"),
    ]


def _coverage(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"{case}: 95 % interval holds the truth",
            ", ".join(f"{kind} {share:.1%}" for kind, share in kinds.items()),
            "",
        )
        for case, kinds in found["coverage"].items()
    ]


def _gate(found: dict[str, Any]) -> list[Row]:
    return [(name.replace("_", " "), str(value), "") for name, value in found.items() if isinstance(value, int | float)]


_MEMORY_PARTS = {
    "blind": "drawn and measured when all was fixed",
    "not_built_on": "all that nothing was fitted to",
    "all": "all",
}


def _memory(found: dict[str, Any]) -> list[Row]:
    return [
        (
            f"{of['configurations']} configurations, {name}: median error, worst, furthest under",
            f"{of['median_error']:.1%}, {of['worst_error']:.1%}, {of['furthest_under']:+.1%}",
            "8 %, 20 %, −10 %",
        )
        for part, name in _MEMORY_PARTS.items()
        if (of := found["parts"].get(part))
    ]


def _measures(found: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for workload, configurations in found["workloads"].items():
        for name, one in configurations.items():
            if "failed" in one:
                rows.append((f"{workload}: {name}", f"failed: {one['failed'][:80]}", ""))
            elif name != "stock":
                stock = one["peak_gb"] / one["peak_ratio"]
                speed = f"{one['speed_ratio']} × {spread(one['speed_ratio_min_max'])}"
                figure = f"{speed}, {one['peak_ratio']} × of {stock:.3g} GB"
                rows.append((f"{workload}: {name}, {one['rounds']} rounds", figure, ""))
    return rows


def measures() -> list[str]:
    """What each measure of ``measures.py`` gave, one table a kept file, on whatever machine it was taken."""
    lines: list[str] = []
    for file in sorted(RESULTS.glob("measures-*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        asked = found["arguments"]
        where = f"{found['machine']}, {found['backend']}"
        lines += [
            "",
            f"### {asked['shape']}, {asked['type']}-bit, {asked['batch']} × {asked['tokens']} tokens, {asked['steps']} steps",
        ]
        lines += [
            "",
            where,
            "",
            "| workload and measure | useful tokens/s against stock, peak memory against stock | |",
            "| --- | --- | --- |",
        ]
        lines += [f"| {what} | {figure} | {goal} |" for what, figure, goal in _measures(found)]
    return ["", "## What is faster or smaller than stock mlx-lm", *lines] if lines else []


MEASUREMENTS: dict[str, Measurement] = {
    "server_start": Measurement("Server cold start", ["benchmarks/server_start.py"], _start),
    "log_reads": Measurement("Reading logs as they grow", ["benchmarks/log_reads.py"], _logs),
    "training_overhead": Measurement(
        "Training with stock=true against stock mlx-lm", ["benchmarks/training_overhead.py", "--rounds", "5"], _overhead
    ),
    "peers": Measurement("Training beside its peers", ["benchmarks/peers.py"], _peers),
    "exactness": Measurement("Killed and resumed against uninterrupted", ["benchmarks/exactness.py"], _exact),
    "planner": Measurement("A probe's word against the run", ["benchmarks/planner.py", "--steps", "250"], _planner),
    "memory": Measurement(
        "Estimated against measured peak memory, MLX's CPU back end",
        ["benchmarks/memory_fit.py", "summary", "benchmarks/memory_grid.linux-cpu.json"],
        _memory,
    ),
    "hook_latency": Measurement(
        "The gate, whole process", ["benchmarks/hook_latency.py", "--launcher", "--json"], _hooks
    ),
    "gate": Measurement("The gate's verdicts on its corpora", ["tests/guard/score.py"], _gate),
    "benchmark_parity": Measurement(
        "run_benchmark against stock mlx-lm", ["benchmarks/benchmark_parity.py"], _benchmark
    ),
    "interval_coverage": Measurement(
        "Intervals of simulated benchmarks", ["benchmarks/interval_coverage.py"], _coverage
    ),
    "datasets": Measurement("Inspecting a data set", ["benchmarks/datasets.py"], _datasets),
}


def measure(name: str, seconds: float) -> bool:
    """Run one measurement and keep its JSON; False when it gave none."""
    entry = MEASUREMENTS[name]
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [sys.executable, *entry.command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
        )
        found = json.loads(done.stdout[done.stdout.index("{") :])
    except (ValueError, subprocess.TimeoutExpired) as error:
        print(f"{name}: no result: {error}", file=sys.stderr)
        return False
    RESULTS.mkdir(exist_ok=True)
    found["taken"] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "load_average": round(os.getloadavg()[0], 1),
        "seconds": round(time.monotonic() - began),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {found['taken']['seconds']} s", file=sys.stderr)
    return True


def render() -> str:
    """RESULTS.md from the kept files."""
    lines = [
        "# Results",
        "",
        "Made by `make bench` from `benchmarks/results/*.json`. Ratios compare two things measured in turn in one run on one",
        "machine. **No figure here was taken on a Mac.** `load` is the load average at the end of a measurement on its machine;",
        "what the goals are about is said in [README.md](README.md).",
    ]
    for name, entry in MEASUREMENTS.items():
        file = RESULTS / f"{name}.json"
        if not file.exists():
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        taken = found.pop("taken", {})
        lines += ["", f"## {entry.title}", "", "| what | figure | goal |", "| --- | --- | --- |"]
        lines += [f"| {what} | {figure} | {goal} |" for what, figure, goal in entry.rows(found)]
        where = ", ".join(str(taken[key]) for key in ("date", "machine") if key in taken)
        load = f", load {taken['load_average']}" if "load_average" in taken else ""
        lines += ["", f"`{' '.join(entry.command)}` — {where}{load}"]
    return "\n".join(lines + measures()) + "\n"


def main() -> int:
    """Measure and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), help="these alone")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--seconds", type=float, default=3600, help="longest time for one measurement")
    chosen = parser.parse_args()
    asked = [] if chosen.render else chosen.only or list(MEASUREMENTS)
    without = [name for name in asked if not measure(name, chosen.seconds)]
    (ROOT / "benchmarks" / "RESULTS.md").write_text(render(), encoding="utf-8")
    return 1 if without else 0


if __name__ == "__main__":
    sys.exit(main())
