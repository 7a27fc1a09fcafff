"""What a GPU is lent for: every entry is one that its script takes, and the time is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import cuda, measures

TINY = [
    "measures.py", "--shape", "tiny", "--workload", "fixed", "--steps", "2", "--tokens", "64", "--rounds", "1",
    "--only", "default",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "WARM_UP", [])


def test_the_table_has_both_shapes_both_widths_and_both_workloads():
    tables = [words[1:] for words in cuda.RUNS.values() if words[0] == "measures.py"]
    asked = [measures.parser_of_arguments().parse_args(words) for words in tables]
    assert {(one.shape, one.type, one.workload) for one in asked} == {
        (f"qwen2.5-{size}", kind, workload)
        for size in ("0.5b", "3b")
        for kind in ("4", "16")
        for workload in ("fixed", "real")
    }
    assert all(one.rounds == 2 and {"all", "default"} <= set(one.only) for one in asked)


@pytest.mark.parametrize("script", ["training_overhead.py", "planner.py", "exactness.py"])
def test_every_worker_entry_is_one_that_its_script_takes(script: str):
    entries = [words[1:] for words in cuda.RUNS.values() if words[0] == script]
    assert len(entries) >= 4
    # The entry with the most options and one too many: the script names that one alone, so it knows all the others.
    words = [*max(entries, key=len), "--no-such-option"]
    done = subprocess.run(
        [sys.executable, str(cuda.ROOT / "benchmarks" / script), *words], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.strip().endswith("unrecognized arguments: --no-such-option")


def test_a_device_takes_one_entry_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "RUNS", {"first": TINY, "second": [*TINY, "--nonsense"]})
    assert cuda.deal(["first", "second"], ["0"], tmp_path, 300, "a machine") == {"first": 0, "second": 2}
    found = json.loads((tmp_path / "first.json").read_text())
    assert found["machine"] == "a machine"
    assert found["workloads"]["fixed"]["default"]["rounds"] == 1
    assert found["workloads"]["fixed"]["default"]["peak_gb"] > 0
    assert "--nonsense" in (tmp_path / "second.log").read_text()


def test_what_a_script_prints_is_kept_as_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["log_reads.py", "--events", "2000", "--rounds", "1"]
    monkeypatch.setattr(cuda, "RUNS", {"first": words})
    assert cuda.deal(["first"], ["0"], tmp_path, 300, "a machine") == {"first": 0}
    found = json.loads((tmp_path / "first.json").read_text())
    assert (found["machine"], found["events"]) == ("a machine", 2000)


def test_what_is_not_done_in_time_is_ended_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "RUNS", {"first": [*TINY, "--steps", "5000"], "second": TINY})
    assert cuda.deal(["first", "second"], ["0"], tmp_path, 4) == {"first": None}
    assert not [one for one in psutil.Process().children(recursive=True) if str(tmp_path) in " ".join(one.cmdline())]
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if '"steps": 5000' in " ".join(one.info["cmdline"] or [])
    ]
