"""The course of a job: read at a bounded cost, thinned without losing what matters."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mcp_server.jobs import events
from mcp_server.training.curve import as_text, sparkline, text_plot
from mcp_server.training.history import LIVE_BYTES, read_history, smooth, thin


def write(path: Path, *found: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps({"time": 1.0, **event}) + "\n" for event in found), encoding="utf-8")
    return path


def train(step: int, loss: float | str) -> dict[str, Any]:
    return {"type": "train", "step": step, "loss": loss, "learning_rate": 1e-5, "tokens_per_second": 100.0, "total": 9}


def test_curves_alerts_and_facts_are_told_apart(tmp_path: Path):
    history = read_history(
        write(
            tmp_path / "m.jsonl",
            {"type": "data", "rows": {"train": 12}, "digest": "d"},
            {"type": "phase", "name": "training", "parameters": 7},
            {"type": "val", "step": 0, "loss": 2.0},
            train(1, 1.5),
            {"type": "memory", "step": 1, "active_bytes": 3, "peak_bytes": 4, "cache_bytes": 5, "available_bytes": 6},
            {"type": "val", "step": 1, "loss": 1.8},
            {"type": "alert", "kind": "plateau", "message": "flat", "step": 1},
        )
    )
    assert (history.train, history.val) == ([(1, 1.5)], [(0, 2.0), (1, 1.8)])
    assert (history.active, history.peak, history.cache) == ([(1, 3)], [(1, 4)], [(1, 5)])
    assert history.best == (1, 1.8), "the loss before training is no checkpoint's"
    assert history.facts == {"rows": {"train": 12}, "digest": "d", "parameters": 7}
    assert [(alert.kind, alert.step) for alert in history.alerts] == [("plateau", 1)]


def test_losses_that_are_not_finite_are_marked_and_not_drawn(tmp_path: Path):
    history = read_history(write(tmp_path / "m.jsonl", train(1, 1.0), train(2, "nan"), train(3, "inf")))
    assert history.train == [(1, 1.0)]
    assert history.not_finite == [2, 3]


def test_steps_rise_even_if_the_resume_between_was_not_seen(tmp_path: Path):
    history = read_history(write(tmp_path / "m.jsonl", train(1, 1.0), train(2, 0.9), train(3, 0.8), train(2, 0.7)))
    assert history.train == [(1, 1.0), (2, 0.7)]


def test_a_million_events_are_sampled_and_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, rare = tmp_path / "m.jsonl", b'{"type": "val", "time": 1.0, "step": %d, "loss": 0.5}\n'
    line = b'{"type": "train", "time": 1.0, "step": %d, "loss": 1.0}\n'
    with path.open("wb") as file:
        for start in range(0, 1_000_000, 10_000):
            file.write(b"".join(line % step for step in range(start, start + 10_000)) + rare % (start + 9_999))
    read = 0
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        nonlocal read
        read += size
        return pread(descriptor, size, offset)

    monkeypatch.setattr(events.os, "pread", counted)
    history = read_history(path, LIVE_BYTES)
    assert 0 < read <= LIVE_BYTES < path.stat().st_size / 10
    assert history.sampled
    steps = [step for step, _ in history.train]
    assert (steps[0], steps[-1]) == (0, 999_999)
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert max(gaps) < 20_000, "evenly from start to end"


def test_thinning_keeps_ends_and_spikes():
    points = [(float(step), 1.0) for step in range(10_000)]
    points[4321] = (4321.0, 9.0)
    points[5000] = (5000.0, 0.1)
    found = thin(points, 500)
    assert len(found) <= 500
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert {(4321.0, 9.0), (5000.0, 0.1)} <= set(found)
    assert [x for x, _ in found] == sorted(x for x, _ in found)
    assert thin(points[:3], 500) == points[:3]


def test_running_mean_has_as_many_points_and_less_noise():
    points = [(float(step), 1.0 + (-1) ** step * 0.5) for step in range(400)]
    found = smooth(points)
    assert len(found) == len(points)
    assert max(y for _, y in found[100:]) - min(y for _, y in found[100:]) < 0.2


def test_text_plots_have_their_size_whatever_the_points():
    for points in (
        [(1.0, 2.0)],
        [(1.0, 2.0), (2.0, 2.0)],
        [(0.0, 0.0), (5.0, -3.0)],
        [(float(n), 1 / (n + 1)) for n in range(999)],
    ):
        rows = text_plot([points, points[:1]], width=40, height=6)
        assert len(rows) == 8
        assert all(len(label + "".join(character for character, _ in cells)) == 51 for label, cells in rows)
        assert any(number == 0 for _, cells in rows for _, number in cells) or len(points) == 1
    assert text_plot([[], []], width=40, height=6) == [("", [("(no points yet)", None)])]
    assert as_text([(1.0, 4.0), (2.0, 2.0)]).startswith("        4 ┤")


def test_sparkline_falls_with_the_loss():
    assert sparkline([]) == ""
    assert sparkline([(1.0, 3.0)]) == "3 ▁ 3"
    line = sparkline([(float(n), 10.0 - n) for n in range(10)], width=5)
    assert line == "10 █▆▅▃▁ 1"
