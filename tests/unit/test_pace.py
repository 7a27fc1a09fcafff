"""How long a job will take yet, and times in words."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_server.jobs.pace import duration, seconds_left


def reports(*times: float, total: int = 10) -> list[dict[str, Any]]:
    return [{"type": "train", "step": step, "total": total, "time": at} for step, at in enumerate(times, 1)]


def test_time_left_is_that_of_the_steps_to_come():
    assert seconds_left(reports(0, 4, 8)) == 28.0
    assert seconds_left(reports(0, 4, 8, total=3)) == 0.0


def test_only_the_newest_reports_count():
    assert seconds_left(reports(*range(0, 3000, 100), *range(3000, 3020), total=60)) == 10.0


def test_the_time_that_a_run_lay_still_before_it_was_resumed_does_not_count():
    resumed = {"type": "resume", "step": 3, "total": 10, "time": 9000.0}
    after = [report | {"step": report["step"] + 3} for report in reports(9001, 9003, 9005)]
    assert seconds_left([*reports(0, 4, 8), resumed, *after]) == 8.0
    assert seconds_left([*reports(0, 4, 8), resumed, *after[:2]]) is None


def test_steps_of_another_kind_do_not_count():
    losses = [report | {"type": "progress", "name": "loss of the base"} for report in reports(0, 1, 2, 3, 4)]
    answers = [report | {"type": "progress", "name": "answers of the base"} for report in reports(10, 20, 30)]
    assert seconds_left([*losses, *answers[:2]]) is None
    assert seconds_left([*losses, *answers]) == 70.0


def test_too_few_reports_say_nothing():
    assert seconds_left(reports(0, 4)) is None
    assert seconds_left([{"type": "val", "step": 1, "total": 9, "time": 1.0}] * 5) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")]
)
def test_times_have_two_units_at_most(seconds: float, words: str):
    assert duration(seconds) == words
