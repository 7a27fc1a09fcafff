"""Reading what data come in: JSONL, JSON, CSV, TSV, Parquet, text; a file or a folder. Streams; sources are only read."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mcp_server import launch
from mcp_server.datasets.layouts import Unusable
from mcp_server.datasets.rows import parse_line
from mcp_server.datasets.scan import decode_line, read_lines
from mcp_server.datasets.split import NAMES, rank_of, split_named
from mcp_server.errors import DataError

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TEXT_FILES = (".txt", ".md")
# What lies beside data and is none.
_NOT_DATA = ("preparation.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_CHUNK = 1 << 20
_MAX_ITEM_CHARACTERS = 64 << 20
_CONTAINERS = ("data", "rows", "examples", "conversations", "items")


class Record(NamedTuple):
    """One row of a source, or why there is none."""

    path: Path
    line: int
    row: dict[str, Any] | None
    problem: Unusable | None = None
    split: str | None = None  # where the file has several


def find_files(source: Path) -> tuple[list[Path], list[Path]]:
    """(files to read, files left out), sorted. Raises DataError when there is nothing to read.

    In a folder that has tables, text files are taken for notes (README.md) and left out.
    """
    if not source.exists():
        raise DataError(f"source {source} does not exist; give a file or folder with {', '.join(TABLES + TEXT_FILES)}")
    if source.is_file():
        if source.suffix.lower() not in TABLES + TEXT_FILES:
            raise DataError(
                f"source {source} has the ending {source.suffix or '(none)'!r}, which is not known; "
                f"known are {', '.join(TABLES + TEXT_FILES)}"
            )
        return [source], []
    found = sorted(
        path
        for path in source.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    tables = [path for path in found if path.suffix.lower() in TABLES and path.name not in _NOT_DATA]
    chosen = tables or [path for path in found if path.suffix.lower() in TEXT_FILES]
    if not chosen:
        names = ", ".join(path.name for path in found[:5]) or "nothing"
        raise DataError(f"source {source} holds no data (found {names}); known are {', '.join(TABLES + TEXT_FILES)}")
    taken = set(chosen)
    return chosen, [path for path in found if path not in taken]


def splits_of(files: list[Path], source: Path) -> dict[Path, str]:
    """The split that each file of a folder belongs to by its name, or by that of the folder that it lies in."""
    if source.is_file():
        return {}
    found = {path: split for path in files if (split := _split_of(path.relative_to(source)))}
    if "train" in found.values():
        return found
    # With none named train, names may be about something else: speed-test.csv, dev/install.md.
    return {
        path: split for path, split in found.items() if path.stem.lower() in NAMES and path.suffix.lower() in TABLES
    }


def _split_of(path: Path) -> str | None:
    folders = (split_named(name) for name in reversed(path.parent.parts))
    return split_named(path.stem) or next(filter(None, folders), None)


def read_file(path: Path, *, chunk_characters: int) -> Iterator[Record]:
    """The rows of one file. Raises DataError when it can't be read at all."""
    reader = _READERS.get(path.suffix.lower())
    try:
        yield from reader(path) if reader is not None else _read_text(path, chunk_characters)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}; check its permissions") from error


def _read_jsonl(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, _, raw in read_lines(file):
            text, problem = decode_line(raw)
            if problem is None:
                # Blank lines and a byte order mark are what this tool is there to remove.
                text = text.removeprefix("\ufeff")
                if not text.strip():
                    continue
                row, problem = parse_line(text)
                if row is not None:
                    yield Record(path, number, row)
                    continue
            assert problem is not None
            yield Record(path, number, None, Unusable(problem.code, problem.message))


def _read_json(path: Path) -> Iterator[Record]:
    """An array of objects, item by item; or an object that holds one; or a single row; or JSON lines by another name."""
    with path.open(encoding="utf-8-sig") as file:
        try:
            head = file.read(64 * 1024).lstrip()
            if head.startswith("["):
                file.seek(0)
                yield from _read_array(path, file)
                return
            if not head.startswith("{"):
                raise DataError(f"{path} is neither a JSON array nor an object; is it JSON?")
            yield from _read_object(path, file)
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error


def _read_object(path: Path, file: io.TextIOBase) -> Iterator[Record]:
    file.seek(0)
    first = file.readline()
    try:
        json.loads(first)
        many = bool(file.readline().strip())
    except (ValueError, RecursionError):
        many = False
    if many:
        yield from _read_jsonl(path)
        return
    file.seek(0)
    text = file.read(_MAX_ITEM_CHARACTERS + 1)
    if len(text) > _MAX_ITEM_CHARACTERS:
        raise DataError(
            f"{path} is one JSON object of over {_MAX_ITEM_CHARACTERS >> 20} MB; save its rows as JSON lines"
        )
    try:
        whole: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}; correct it") from error
    yield from _read_lists(path, whole)


def _read_lists(path: Path, whole: dict[str, Any]) -> Iterator[Record]:
    """The rows of the lists that are named for splits, and of one that is named as a container; else the object is a row."""
    lists: dict[str, list[Any]] = {name: value for name, value in whole.items() if _holds_rows(name, value)}
    splits = {name: split for name in lists if (split := split_named(name))}
    read = [*splits, *[name for name in _CONTAINERS if name in lists][:1]]
    if not read:
        yield Record(path, 1, whole)
        return
    number = 0
    for name in sorted(lists, key=lambda name: rank_of(splits.get(name))):
        for item in lists[name]:
            number += 1
            if name in read:
                yield _item(path, number, item)._replace(split=splits.get(name))
            else:
                text = f"is in the list {name!r}; of the file's lists only {' and '.join(read)} can be told to hold the rows"
                yield Record(path, number, None, Unusable("list-not-read", text))


def _holds_rows(name: str, value: Any) -> bool:
    """Whether a value is a list of rows; one under "conversations" may be many of them, or the turns of one."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return name != "conversations" or not {"from", "role"} & value[0].keys()


def _read_array(path: Path, file: io.TextIOBase) -> Iterator[Record]:
    """The items of one JSON array, in memory that does not grow with the file. ``line`` is where an item begins."""
    decoder = json.JSONDecoder()
    buffer = file.read(_CHUNK)
    at = buffer.index("[") + 1
    line = 1 + buffer.count("\n", 0, at)
    while True:
        skipped = _SPACE.match(buffer, at)
        assert skipped is not None
        line += buffer.count("\n", at, skipped.end())
        at = skipped.end()
        if buffer[at : at + 1] == "]":
            rest = buffer[at + 1 :].lstrip()
            while not rest and (more := file.read(_CHUNK)):
                rest = more.lstrip()
            if rest:
                raise DataError(f"{path}:{line} goes on with {rest[0]!r} after its array; put all rows into one array")
            return
        try:
            item, end = decoder.raw_decode(buffer, at)
            # A number at the buffer's end may go on; an object can't.
            whole = end < len(buffer) or isinstance(item, dict)
        except (ValueError, RecursionError) as error:
            item, end, whole = None, at, False
            reason = str(error)
        else:
            reason = "it ends too early"
        if not whole:
            more = file.read(max(_CHUNK, len(buffer) - at))
            if not more or len(buffer) - at > _MAX_ITEM_CHARACTERS:
                raise DataError(f"{path}:{line} is not valid JSON: {reason}; correct the file")
            buffer, at = buffer[at:] + more, 0
            continue
        yield _item(path, line, item)
        line += buffer.count("\n", at, end)
        at = end


_SPACE = re.compile(r"[\s,]*")


def _item(path: Path, line: int, item: Any) -> Record:
    if isinstance(item, dict):
        return Record(path, line, item)
    return Record(path, line, None, Unusable("not-an-object", f"is a {type(item).__name__}; rows must be objects"))


def _read_csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(_MAX_ITEM_CHARACTERS)
    line = 1  # an entry may span lines: it is named by the first
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            head = file.readline()
            file.seek(0)
            delimiter = "\t" if path.suffix.lower() == ".tsv" else (";" if head.count(";") > head.count(",") else ",")
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            if reader.fieldnames is not None:
                line = reader.line_num + 1
            for row in reader:
                if None in row or None in row.values():
                    text = f"has {'more' if None in row else 'fewer'} fields than the header; is a quote missing?"
                    yield Record(path, line, None, Unusable("bad-csv", text))
                else:
                    yield Record(path, line, dict(row))
                line = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
        except csv.Error as error:
            raise DataError(f"{path}:{line} is not CSV that can be read: {error}; correct or re-export it") from error


def _read_parquet(path: Path) -> Iterator[Record]:
    """In a process of its own: pyarrow brings numpy, which the server must not load."""
    command = launch.command(sys.executable, "mcp_server.workers.parquet", str(path))
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        try:
            for number, line in enumerate(process.stdout, start=1):
                yield Record(path, number, json.loads(line))
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if code == 0:
            return
        errors.seek(0)
        lines = errors.read().decode("utf-8", "replace").strip().splitlines() or [f"exit code {code}"]
        raise DataError(f"{path} can't be read: {lines[-1][:300]}")


def _read_text(path: Path, chunk_characters: int) -> Iterator[Record]:
    """A text in pieces of whole paragraphs, each at most ``chunk_characters`` long. ``line`` is where a piece begins."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    line, before = 1, 0
    for at, piece in pieces(text, chunk_characters):
        line += text.count("\n", before, at)
        before = at
        yield Record(path, line, {"text": piece})


def pieces(text: str, limit: int) -> Iterator[tuple[int, str]]:
    """(position, piece): cut at the last paragraph, else line, else sentence, else word that ends within ``limit``."""
    at = 0
    while at < len(text):
        end = min(len(text), at + limit)
        if end < len(text):
            for mark in ("\n\n", "\n", ". ", " "):
                place = text.rfind(mark, at + limit // 4, end)
                if place > 0:
                    end = place + len(mark)
                    break
        piece = text[at:end]
        if piece.strip():
            yield at + len(piece) - len(piece.lstrip()), piece.strip()
        at = end


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
