"""Small data sets, written line by line so that a test can say which line is which."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_server.datasets.inspect import inspect_dataset
from mcp_server.datasets.preparation import PrepareReport, PrepareRequest
from mcp_server.datasets.prepare import prepare_dataset
from mcp_server.datasets.report import InspectReport, InspectRequest
from mcp_server.datasets.watch import Watch

Write = Callable[..., Path]
Inspect = Callable[..., InspectReport]
Prepare = Callable[..., PrepareReport]


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def good_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows that are unlike each other."""
    return [
        chat(f"What is {n}{n} and why {n}?", f"It is number {n * 7919} of list {n * 31}.")
        for n in range(start, start + count)
    ]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write("train.jsonl", line, line, ...)``: a line is a row, text, or bytes. Gives the data folder."""

    def write_file(name: str, *lines: Any) -> Path:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        coded = (
            line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
            for line in lines
        )
        (folder / name).write_bytes(b"".join(line + b"\n" for line in coded))
        return folder

    return write_file


@pytest.fixture
def inspect(tmp_path: Path) -> Inspect:
    """Inspect ``data`` of the test's folder."""

    def run(**options: Any) -> InspectReport:
        data = options.pop("data", str(tmp_path / "data"))
        return inspect_dataset(InspectRequest(data=data, **options), Watch())

    return run


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Prepare ``source`` (a path in the test's folder) into ``out``."""

    def run(source: str = "source", **options: Any) -> PrepareReport:
        output = options.pop("output", "out")
        request = PrepareRequest(source=str(tmp_path / source), output=str(tmp_path / output), **options)
        return prepare_dataset(request, Watch())

    return run


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def result(folder: Path) -> list[dict[str, Any]]:
    """All rows written, in no order."""
    return [
        json.loads(line)
        for name in ("train", "valid", "test")
        if (folder / f"{name}.jsonl").exists()
        for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]


def tree(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with its hash."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
