"""The event log: append only, read from a cursor, proof against torn lines."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest

from mcp_server.jobs.events import READ_LIMIT, EventWriter, copy_history, read_since, tail, without_repeats


def write_steps(path: Path, count: int) -> None:
    lines = (json.dumps({"type": "train", "time": 0.0, "step": n, "loss": 1 / (n + 1)}) for n in range(count))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_cursor_reads_give_every_event_once(tmp_path: Path):
    writer = EventWriter(tmp_path / "m.jsonl")
    seen: list[int] = []
    cursor = 0
    for step in range(5):
        writer.write("train", step=step)
        found = read_since(tmp_path / "m.jsonl", cursor)
        seen += [event["step"] for event in found.events]
        cursor = found.cursor
    assert seen == [0, 1, 2, 3, 4]
    assert read_since(tmp_path / "m.jsonl", cursor).events == []


def test_line_being_written_is_left_for_the_next_read(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"type":"train","step":1}\n{"type":"tra')
    first = read_since(path, 0)
    assert [event["step"] for event in first.events] == [1]
    with path.open("ab") as file:
        file.write(b'in","step":2}\n')
    assert [event["step"] for event in read_since(path, first.cursor).events] == [2]


def test_torn_line_costs_itself_and_nothing_else(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"type":"train","step":1}\n{"type":"tra')
    assert EventWriter(path).write("train", step=3)
    assert [event["step"] for event in read_since(path, 0).events] == [1, 3]


def test_not_a_number_is_written_as_text(tmp_path: Path):
    EventWriter(tmp_path / "m.jsonl").write("train", loss=float("nan"))
    line = (tmp_path / "m.jsonl").read_text(encoding="utf-8")
    assert json.loads(line, parse_constant=pytest.fail)["loss"] == "nan"


def test_long_log_is_sampled_from_start_to_end(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    write_steps(path, 100_000)
    found = read_since(path, 0)
    steps = [event["step"] for event in found.events]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert steps[-1] == 99_999
    assert found.skipped_bytes > 0
    assert sum(len(json.dumps(event)) for event in found.events) < READ_LIMIT
    assert any(20_000 < step < 80_000 for step in steps), "the middle is sampled too"
    assert found.cursor == path.stat().st_size


def test_cursor_beyond_the_file_reads_from_the_start(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    write_steps(path, 3)
    assert len(read_since(path, 10_000).events) == 3


def test_what_a_resume_does_again_counts_once():
    def event(kind: str, step: int, loss: float) -> dict[str, object]:
        return {"type": kind, "step": step, "loss": loss}

    before = [event("train", 4, 1.0), event("val", 4, 2.0), event("train", 6, 0.9), event("val", 6, 1.9)]
    after = [event("val", 4, 2.0), event("train", 6, 0.9)]
    resumed = without_repeats([*before, {"type": "resume", "step": 4}, *after])
    assert [(one["type"], one["step"]) for one in resumed] == [("train", 4), ("resume", 4), ("val", 4), ("train", 6)]


def test_curves_of_the_run_before_are_copied_up_to_its_checkpoint_and_marked(tmp_path: Path):
    """A validation comes after the checkpoint of its step and is done again; what lies beyond is of no account."""
    before, log = EventWriter(tmp_path / "before.jsonl"), tmp_path / "m.jsonl"
    for kind, step in (("train", 2), ("resume", 2), ("train", 4), ("val", 3), ("val", 4), ("train", 6), ("resume", 6)):
        before.write(kind, step=step, total=6, loss=1.0)
    before.write("phase", name="training")
    copy_history(tmp_path / "before.jsonl", log, 4)
    copied = read_since(log, 0).events
    assert [(event["type"], event["step"]) for event in copied] == [
        ("train", 2), ("resume", 2), ("train", 4), ("val", 3),
    ]  # fmt: skip
    assert all(event["copied"] for event in copied)
    copy_history(tmp_path / "gone.jsonl", tmp_path / "none.jsonl", 4)
    assert not (tmp_path / "none.jsonl").exists()


def test_missing_log_is_empty(tmp_path: Path):
    assert read_since(tmp_path / "none.jsonl", 5).events == []
    assert tail(tmp_path / "none.jsonl") == []


def test_disk_that_takes_no_more_loses_events_but_not_the_writer(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    writer = EventWriter(path)
    assert writer.write("train", step=1)
    size = path.stat().st_size
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # The file may grow by ten bytes: the next write is cut short, the one after refused.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, old[1]))
        assert not writer.write("train", step=2)
        assert not writer.write("train", step=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert writer.write("train", step=4)
    assert [event["step"] for event in read_since(path, 0).events] == [1, 4]
