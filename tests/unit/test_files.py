"""Atomic files: the old content or the new, never a part."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from mcp_server.jobs.files import read_json, write_atomic, write_json


def test_write_replaces_the_whole_file(tmp_path: Path):
    write_json(tmp_path / "a.json", {"a": "x" * 1000})
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_reader_of_the_old_file_goes_on_reading_the_old_file(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"a": "x" * 1_000_000})  # more than the reader takes at once
    before = path.read_text(encoding="utf-8")
    with path.open(encoding="utf-8") as reader:
        begun = reader.read(1)
        write_json(path, {"a": 1})
        assert begun + reader.read() == before


def test_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"kept": True})
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert read_json(path) == {"kept": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_not_a_number_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_damaged_json_reads_as_none(tmp_path: Path, content: bytes):
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None
