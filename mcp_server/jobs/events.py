"""``metrics.jsonl``: one event a line, append only, read from a cursor (a byte offset) at a cost that does not grow."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

Event = dict[str, Any]
_FREQUENT = ("train", "memory", "progress")
PUBLISHED = "adapter saved"  # the phase that is told when the adapter is in its place
READ_LIMIT = 256 * 1024  # bytes read by one call; more than that is sampled


class EventWriter:
    """Appends events, each in one ``write`` so that several writers never mix lines.

    A full disk loses events, not the job: the write fails quietly, and the next line starts clean.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._torn = _ends_in_mid_line(path)

    def write(self, type: str, **fields: Any) -> bool:
        """Append one event of ``type`` with a time stamp; False when the disk would not take it."""
        event = {"type": type, "time": round(time.time(), 3)} | {key: _finite(value) for key, value in fields.items()}
        line = ("\n" if self._torn else "") + json.dumps(event, ensure_ascii=False) + "\n"
        data = line.encode()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                written = os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError:
            return False
        self._torn = written < len(data)
        return not self._torn


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they are written as text, so that every reader sees them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _ends_in_mid_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


class EventSlice:
    """What a read found: ``events`` in order, the next ``cursor``, and ``skipped_bytes`` that were only sampled."""

    def __init__(self, events: list[Event], cursor: int, skipped_bytes: int) -> None:
        self.events = events
        self.cursor = cursor
        self.skipped_bytes = skipped_bytes


def read_since(path: Path, cursor: int, limit: int = READ_LIMIT) -> EventSlice:
    """Events from ``cursor`` (0: the start) to the end of the file.

    At most ``limit`` bytes are read: of a longer stretch the beginning, the end and evenly spaced samples between.
    A line that is still being written is left for the next read. A cursor beyond the file means the file was replaced:
    it is read from its start.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = cursor if 0 <= cursor <= size else 0
            if size - start <= limit:
                file.seek(start)
                data = file.read(size - start)
                end = data.rfind(b"\n") + 1
                return EventSlice(_parse(data[:end]), start + end, 0)
            return _sample(file.fileno(), start, size, limit)
    except OSError:
        return EventSlice([], 0, 0)


def _sample(descriptor: int, start: int, size: int, limit: int) -> EventSlice:
    edge = min(limit // 4, 64 * 1024)
    width = 2048  # a handful of lines
    pieces = (limit - 2 * edge) // width
    head = os.pread(descriptor, edge, start)
    head = head[: head.rfind(b"\n") + 1]
    tail_start = size - edge
    middle: list[Event] = []
    step = (tail_start - start - edge) / pieces
    for number in range(pieces):
        chunk = os.pread(descriptor, width, start + edge + int(number * step))
        # Only whole lines: the first of a chunk is usually cut. One of the frequent events is enough, the rare ones all count.
        whole = _parse(chunk[chunk.find(b"\n") + 1 : chunk.rfind(b"\n") + 1])
        middle += whole[:1] + [event for event in whole[1:] if event["type"] not in _FREQUENT]
    tail = os.pread(descriptor, edge, tail_start)
    first = tail.find(b"\n") + 1
    last = tail.rfind(b"\n") + 1
    events = _parse(head) + middle + _parse(tail[first:last])
    return EventSlice(events, tail_start + last, tail_start - start - len(head))


def without_repeats(events: list[Event]) -> list[Event]:
    """The events of the trajectory that counts: what lay beyond the checkpoint of a resume was done again after it."""
    kept: list[Event] = []
    for event in events:
        if event["type"] == "resume":
            kept = [one for one in kept if _before_checkpoint(one, event["step"])]
        kept.append(event)
    return kept


def _before_checkpoint(event: Event, step: int) -> bool:
    """Whether it happened before the checkpoint of ``step``, which is taken after its step is reported and before validation."""
    ends = {"train": step, "memory": step, "val": step - 1}
    return event["type"] not in ends or event["step"] <= ends[event["type"]]


def copy_history(source: Path, target: Path, step: int) -> None:
    """Begin the log of a continued run with the curves of the run before it, up to its checkpoint of ``step``. They are marked
    as ``copied``: a reader who waits for news does not wait for these."""
    with contextlib.suppress(OSError), source.open("rb") as lines, target.open("wb") as copy:
        for line in lines:
            if not line.startswith((b'{"type": "train"', b'{"type": "val"', b'{"type": "resume"')):
                continue
            for event in _parse(line):
                if isinstance(event.get("step"), int) and event["step"] <= step and _before_checkpoint(event, step):
                    copy.write(json.dumps(event | {"copied": True}, ensure_ascii=False).encode() + b"\n")


def tail(path: Path) -> list[Event]:
    """The events in the last 64 KiB, oldest first."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - 65536))
            data = file.read()
    except OSError:
        return []
    return _parse(data[: data.rfind(b"\n") + 1])


def _parse(data: bytes) -> list[Event]:
    events: list[Event] = []
    for line in data.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a line torn by a full disk or a power cut; the next one starts clean
        if isinstance(event, dict) and isinstance(event.get("type"), str):
            events.append(event)
    return events
