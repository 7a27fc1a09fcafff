"""The quick benchmarks run, and what they print is what RESULTS.md's rows read."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.measurements import MEASUREMENTS
from benchmarks.results import ROOT

pytestmark = pytest.mark.integration
SMALLEST = {
    "server_start": ["--rounds", "1"],
    "tool_calls": ["--rounds", "1"],
    "hook_latency": ["--rounds", "1", "--launcher", "--json"],
    "log_reads": ["--rounds", "1", "--events", "2000"],
    "datasets": ["--rows", "5000"],
    "interval_coverage": ["--pairs", "2"],
    "exactness": ["--pairs", "lora:adam", "--kills", "1"],
    "memory_estimate": ["report", "benchmarks/memory_grid.linux-cpu.json"],
}


@pytest.mark.parametrize("name", SMALLEST)
def test_its_figures_are_those_that_the_page_shows(name: str):
    command = [sys.executable, MEASUREMENTS[name].command[0], *SMALLEST[name]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    rows = list(MEASUREMENTS[name].rows(json.loads(done.stdout)))
    assert rows, done.stderr
    assert all(row.figure and "None" not in row.figure for row in rows)
