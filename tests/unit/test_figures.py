"""Figures in the pages are those of the kept measurements: a page is not left behind when one is taken again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.guard import test_truth

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def kept(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def default(name: str, workload: str) -> dict[str, Any]:
    """What is on by default against stock, of a table of ``measures.py``."""
    return kept(name)["workloads"][workload]["default"]


def latency(kind: str) -> str:
    ratios = [row["ratio"] for label, row in kept("hook_latency")["rows"].items() if label.startswith(kind)]
    return f"{min(ratios):.2f} to {max(ratios):.2f} times for"


def covered(case: str) -> str:
    return f"{kept('interval_coverage')['coverage'][case]['ours']:.0%}".replace("%", " %")


def claims() -> list[tuple[str, str]]:
    """(page, words that must stand in it)."""
    first, second = kept("gate"), kept("gate_second")
    long, real = default("measures-cuda-3b-16-fixed", "fixed"), default("measures-cuda-3b-16-real", "real")
    small, four = default("measures-cuda-05b-16-real", "real"), default("measures-cuda-05b-4-real", "real")
    ours = kept("peers")["contenders"]["mlx-training"]["speed"]
    few, more, many = (covered(f"lognormal, {rows} rows") for rows in (20, 40, 100))
    harmless = first["cases"] - first["harmful"]
    met = kept("gate_second@first contact")
    tried = [f"{met[name]:.1%}".replace("%", " %") for name in ("precision", "recall", "false_alarm_rate")]
    return [
        ("README.md", f"precision {tried[0]}, recall {tried[1]}, false alarms {tried[2]}"),
        ("docs/gate.md", f"| {tried[0]} | {tried[1]} | {tried[2]} |"),
        ("README.md", f"{ours:.2f} × on a 2-core CPU"),
        ("README.md", f"{real['speed_ratio']:.2f} × for a 3B model, with {real['peak_ratio']:.2f} × the memory"),
        (
            "README.md",
            f"{small['speed_ratio']:.2f} × for a 0.5B one, but {four['speed_ratio']:.2f} × for that in 4 bits",
        ),
        ("README.md", f"{long['speed_ratio']:.2f} × the speed at {long['peak_ratio']:.2f} × the memory"),
        ("README.md", f"({first['cases'] + second['cases']:,} cases"),
        ("docs/gate.md", f"has {first['cases']:,} cases ({harmless} harmless)"),
        ("docs/gate.md", f"{second['cases']} more ({second['cases'] - second['harmful']} harmless)"),
        ("docs/gate.md", f"The labels of {len(test_truth.CASES)} shell cases"),
        ("docs/gate.md", latency("unrelated")),
        ("docs/gate.md", latency("parsed")),
        ("docs/benchmark.md", f"in {few} of simulated benchmarks of 20 rows, {more} of 40, {many} of 100"),
        ("benchmarks/README.md", f"slower than stock ({four['speed_ratio']:.2f} ×)"),
    ]


@pytest.mark.parametrize(("page", "words"), claims())
def test_the_page_says_what_was_measured(page: str, words: str) -> None:
    text = re.sub(r"\s+", " ", (ROOT / page).read_text(encoding="utf-8"))
    assert words in text


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_every_kept_measurement_says_where_it_was_taken(file: Path) -> None:
    found = json.loads(file.read_text(encoding="utf-8"))
    assert "taken" in found or "machine" in found
