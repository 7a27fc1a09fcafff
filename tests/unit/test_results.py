"""RESULTS.md is what the kept measurements say, a failed measurement costs no other one anything, and goals are judged."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import results, rows
from benchmarks.measurements import MEASUREMENTS, Measurement
from benchmarks.results import NoResultError, measure, render

KEPT = sorted(results.RESULTS.glob("*.json"))
START: dict[str, Any] = {
    "benchmark": "server cold start",
    "rounds": 3,
    "median_seconds": {"bare": 0.5, "ours": 0.6},
    "ratio": 1.2,
    "ratio_min_max": [1.1, 1.3],
    "cpu_ratio": 1.2,
}


def entry(folder: Path, code: str, seconds: int = 30) -> Measurement:
    """A measurement whose script is ``code``."""
    script = folder / "script.py"
    script.write_text(code)
    return Measurement("Something", [str(script)], rows.start, seconds)


def take(folder: Path, chosen: Measurement) -> None:
    measure("something", chosen, folder, folder)


def test_the_page_is_made_from_the_kept_files_alone():
    assert results.PAGE.read_text(encoding="utf-8") == render(), "run `python benchmarks/results.py --render`"


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_every_kept_file_has_rows_on_the_page(file: Path):
    page = results.PAGE.read_text(encoding="utf-8")
    found = json.loads(file.read_text(encoding="utf-8"))
    is_measures = file.stem.startswith("measures-")
    read = rows.measures if is_measures else MEASUREMENTS[file.stem.partition("@")[0]].rows
    shown = list(read(found))
    assert shown
    assert all(f"| {row.what} | {row.figure} | {row.goal} |" in page for row in shown)


def test_every_script_exists_and_is_explained():
    readme = (results.ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for one in MEASUREMENTS.values():
        assert (results.ROOT / one.command[0]).exists()
        assert f"`{Path(one.command[0]).name}`" in readme


def test_a_whole_run_takes_as_long_as_the_makefile_says():
    minutes = sum(one.seconds for one in MEASUREMENTS.values()) / 60
    said = re.search(r"about (\d+) minutes", (results.ROOT / "Makefile").read_text(encoding="utf-8"))
    assert said is not None and abs(int(said[1]) - minutes) < 5


def test_goals_met_and_missed_are_told_apart(tmp_path: Path):
    (tmp_path / "server_start.json").write_text(json.dumps(START))
    met = render(tmp_path)
    assert "**1 of 1 goals are met.**" in met
    assert "| 1.2 × (1.1–1.3) | ≤ 1.25 × | ✓ |" in met
    (tmp_path / "server_start.json").write_text(json.dumps(START | {"ratio": 1.26}))
    missed = render(tmp_path)
    assert "**0 of 1 goals are met.** Missed:" in missed
    assert "| 1.26 × (1.1–1.3) | ≤ 1.25 × | **✗ missed** |" in missed


def test_a_failed_case_is_a_missed_goal_and_its_words_do_not_break_the_table(tmp_path: Path):
    figures = {"probe_memory_error": -0.02, "step_time_error": 0.2, "total_time_error": 0.1}
    good = {"case": "a", "steps": 9, "seconds_in_all": {"run": 40.0}} | figures
    cases = [good, {"case": "b", "steps": 9, "failed": "RuntimeError: one\ntwo | three"}]
    (tmp_path / "planner.json").write_text(json.dumps({"cases": cases}))
    page = render(tmp_path)
    assert "| b | gave no figure: RuntimeError: one two \\| three | a figure | **✗ missed** |" in page
    assert "| time of a step, worst of 1 case | +20.0% (median of the sizes 20.0%) | ± 15 % | **✗ missed** |" in page
    assert "**2 of 4 goals are met.**" in page


def test_a_figure_from_a_mac_is_called_one(tmp_path: Path):
    (tmp_path / "server_start.json").write_text(json.dumps(START))
    assert "**No figure here was taken on a Mac.**" in render(tmp_path)
    (tmp_path / "server_start.json").write_text(json.dumps(START | {"taken": {"machine": "macOS 26.1 arm64"}}))
    assert "No figure here was taken on a Mac" not in render(tmp_path)


def test_a_measurement_is_kept_with_when_and_where(tmp_path: Path):
    take(tmp_path, entry(tmp_path, f"print('words before', {json.dumps(START)!r})"))
    kept = json.loads((tmp_path / "something.json").read_text())
    assert kept["ratio"] == START["ratio"]
    assert {"date", "machine", "versions", "load_before", "load_average", "seconds"} <= kept["taken"].keys()


def test_one_that_writes_a_file_is_read_from_there(tmp_path: Path):
    chosen = entry(tmp_path, "import sys; open(sys.argv[1], 'w').write('{\"ratio\": 2}'); print('a table')")
    chosen.command.append("{output}")
    take(tmp_path, chosen)
    assert json.loads((tmp_path / "something.json").read_text())["ratio"] == 2


@pytest.mark.parametrize("code", ["raise SystemExit('the disk is full')", "print('no figures')", "print('{\"cut\": ')"])
def test_a_failed_one_says_why_and_leaves_what_was_kept(tmp_path: Path, code: str):
    (tmp_path / "something.json").write_text("{}")
    with pytest.raises(NoResultError, match="disk is full" if "disk" in code else "it said nothing"):
        take(tmp_path, entry(tmp_path, code))
    assert (tmp_path / "something.json").read_text() == "{}"
    assert not list(tmp_path.glob("*.part"))


def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Measurement, "limit", 3.0)
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    with pytest.raises(NoResultError, match="not done within 3 s"):
        take(tmp_path, entry(tmp_path, code))
    pid, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the job outlived its measurement"
        time.sleep(0.05)
