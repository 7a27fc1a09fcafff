"""The table that a GPU is lent for: every entry is one that measures.py takes, and the time is kept."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from benchmarks import cuda, measures

TINY = [
    "--shape",
    "tiny",
    "--workload",
    "fixed",
    "--steps",
    "2",
    "--tokens",
    "64",
    "--rounds",
    "1",
    "--only",
    "default",
]


def test_every_entry_is_one_that_the_script_takes():
    asked = [measures.parser_of_arguments().parse_args(words) for words in cuda.RUNS.values()]
    assert {(one.shape, one.type, one.workload) for one in asked} == {
        (f"qwen2.5-{size}", kind, workload)
        for size in ("0.5b", "3b")
        for kind in ("4", "16")
        for workload in ("fixed", "real")
    }
    assert all(one.rounds == 2 and {"all", "default"} <= set(one.only) for one in asked)


def test_a_device_takes_one_entry_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "RUNS", {"first": TINY, "second": [*TINY, "--nonsense"]})
    assert cuda.deal(["first", "second"], ["0"], tmp_path, 300) == {"first": 0, "second": 2}
    found = json.loads((tmp_path / "first.json").read_text())["workloads"]["fixed"]
    assert found["default"]["rounds"] == 1 and found["default"]["peak_gb"] > 0
    assert "--nonsense" in (tmp_path / "second.log").read_text()


def test_what_is_not_done_in_time_is_ended_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda, "RUNS", {"first": [*TINY, "--steps", "5000"], "second": TINY})
    assert cuda.deal(["first", "second"], ["0"], tmp_path, 4) == {"first": None}
    assert not [one for one in psutil.Process().children(recursive=True) if str(tmp_path) in " ".join(one.cmdline())]
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if '"steps": 5000' in " ".join(one.info["cmdline"] or [])
    ]
