"""The one pass of ``prepare_dataset`` over its source: read, convert, check, drop, spool."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mcp_server.datasets.duplicates import ExactIndex, NearIndex
from mcp_server.datasets.findings import LINES_KEPT
from mcp_server.datasets.layouts import Layouts, Unusable, format_of_layout
from mcp_server.datasets.preparation import Dropped, PrepareRequest
from mcp_server.datasets.rows import check_row
from mcp_server.datasets.secrets import find_secrets, may_hold_secret, redact
from mcp_server.datasets.sources import Record, read_file
from mcp_server.datasets.split import KEPT, rank_of
from mcp_server.datasets.text import content_characters, said_text, training_text
from mcp_server.datasets.watch import Watch

_EXAMPLES = 3
_COLUMNS = 8  # unused ones that are named


class Gathered:
    """The usable rows, numbered from 0 in the order of the source, and what was left out."""

    def __init__(self, *, near: bool) -> None:
        self.read: dict[Path, int] = {}
        self.layouts: Counter[str] = Counter()
        self.format = ""
        self.offsets = array("Q")
        self.alive = bytearray()
        self.ranks = bytearray()  # by row: its place in KEPT, or DRAWN
        self.near = NearIndex() if near else None
        self.warnings: list[str] = []
        self._files: list[Path] = []
        self._file_of = array("I")
        self._lines = array("I")
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    @property
    def rows(self) -> int:
        return len(self.offsets)

    def begin(self, path: Path) -> None:
        self._files.append(path)
        self.read[path] = 0

    def keep(self, line: int, offset: int, said: str, rank: int) -> None:
        self.offsets.append(offset)
        self.alive.append(1)
        self.ranks.append(rank)
        self._file_of.append(len(self._files) - 1)
        self._lines.append(line)
        if self.near is not None:
            self.near.add(self.rows - 1, said)

    def file_of(self, row: int) -> int:
        """The number of the source file of a kept row."""
        return self._file_of[row]

    def origin(self, row: int) -> str:
        """``file:line`` of a kept row."""
        return f"{self._files[self._file_of[row]].name}:{self._lines[row]}"

    def place(self, row: int) -> str:
        """``origin`` of a row whose split is kept, and the split."""
        return f"{self.origin(row)}, which stays in {KEPT[self.ranks[row]]}"

    def drop(self, where: str, reason: str, text: str) -> None:
        """Note a row that was not kept."""
        self._reasons[reason] += 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(redact(f"{where} {text}")[:200])

    def drop_row(self, row: int, reason: str, text: str) -> None:
        """Leave out a row that had been kept."""
        self.alive[row] = 0
        self.drop(self.origin(row), reason, text)

    def dropped(self) -> list[Dropped]:
        """By reason, most frequent first."""
        return [
            Dropped(reason=reason, rows=count, examples=self._examples[reason])
            for reason, count in self._reasons.most_common()
        ]

    @contextmanager
    def reader(self, spool: Path) -> Generator[Callable[[int], str]]:
        """A function that reads a kept row's text again."""
        with spool.open("rb") as lines:

            def text_of(row: int) -> str:
                lines.seek(self.offsets[row])
                found: dict[str, Any] = json.loads(lines.readline())
                return said_text(found, format_of_layout(found))

            yield text_of


def gather(request: PrepareRequest, files: list[Path], splits: dict[Path, str], spool: Path, watch: Watch) -> Gathered:
    """Read ``files`` and write every usable row to ``spool``. Raises DataError when a file can't be read, Cancelled.

    Those of ``splits`` that keep their rows come first, so that of equal rows theirs is the one that stays.
    """
    gathered = Gathered(near=request.near_duplicates != "ignore")
    pass_ = _Pass(request, gathered)
    total = sum(path.stat().st_size for path in files)
    done = 0
    with spool.open("wb") as out:
        for path in sorted(files, key=lambda path: rank_of(splits.get(path))):
            gathered.begin(path)
            size = path.stat().st_size
            for record in read_file(path, chunk_characters=request.chunk_characters):
                gathered.read[path] += 1
                if not gathered.read[path] & 0xFF:
                    watch.tick(done, total, f"reading {path.name}: {gathered.read[path]:,} rows")
                split = None if request.resplit else record.split or splits.get(path)
                pass_.take(record, rank_of(split), out)
            done += size
            watch.tick(done, total, f"read {path.name}")
    gathered.warnings += [*pass_.secret_warnings(), *pass_.unused_columns()]
    return gathered


class _Pass:
    """What decides on each row."""

    def __init__(self, request: PrepareRequest, gathered: Gathered) -> None:
        self._request = request
        self._gathered = gathered
        self._layouts = Layouts(request.mapping, request.system, request.format)
        self._exact = ExactIndex()
        self._offset = 0
        self._secrets: Counter[str] = Counter()
        self._secret_places: dict[str, list[str]] = {}

    def take(self, record: Record, rank: int, out: BinaryIO) -> None:
        where = f"{record.path.name}:{record.line}"
        try:
            layout, row = self._usable(record)
            row_format = format_of_layout(row)
            line = _line(row)
        except Unusable as problem:
            self._gathered.drop(where, problem.code, str(problem))
            return
        text = training_text(row, row_format)
        number = self._gathered.rows
        first = self._exact.first(number, text)
        if first != number:
            if self._gathered.ranks[first] < rank:
                self._gathered.drop(where, "leak", f"is the same as {self._gathered.place(first)}")
            else:
                self._gathered.drop(where, "duplicate", f"is the same as {self._gathered.origin(first)}")
            return
        out.write(line)
        self._gathered.keep(record.line, self._offset, said_text(row, row_format), rank)
        self._gathered.format = self._gathered.format or row_format
        self._gathered.layouts[layout] += 1
        self._offset += len(line)
        if may_hold_secret(text):
            for kind in find_secrets(text):
                self._secrets[kind] += 1
                places = self._secret_places.setdefault(kind, [])
                places += [where] * (len(places) < LINES_KEPT)

    def _usable(self, record: Record) -> tuple[str, dict[str, Any]]:
        """The layout and the row for mlx-lm. Raises Unusable."""
        if record.row is None:
            assert record.problem is not None
            raise record.problem
        layout, row = self._layouts.convert(record.row)
        row_format = format_of_layout(row)
        _, problems = check_row(row, self._gathered.format or None)
        for problem in problems:
            if problem.code == "mixed-formats":
                raise Unusable("mixed-formats", f"is {row_format}, but the first usable row is {self._gathered.format}")
            if problem.severity == "error":
                raise Unusable(problem.code, problem.message)
        self._check_length(row, row_format)
        return layout, row

    def _check_length(self, row: dict[str, Any], row_format: str) -> None:
        characters = content_characters(row, row_format)
        if characters < self._request.min_characters:
            raise Unusable(
                "too-short", f"has {characters} characters, fewer than min_characters={self._request.min_characters}"
            )
        if self._request.max_characters is not None and characters > self._request.max_characters:
            raise Unusable(
                "too-long", f"has {characters:,} characters, more than max_characters={self._request.max_characters:,}"
            )

    def unused_columns(self) -> list[str]:
        """What the rows held and those written do not."""
        unused = [f"{redact(name)[:60]} ({rows:,} rows)" for name, rows in self._layouts.unused.most_common(_COLUMNS)]
        more = len(self._layouts.unused) - len(unused)
        listed = ", ".join(unused) + (f" and {more:,} more" if more else "")
        return [f"columns not used: {listed}; name with mapping what belongs into the rows"] if unused else []

    def secret_warnings(self) -> list[str]:
        return [
            f"{count:,} rows hold what looks like a {kind} ({', '.join(self._secret_places[kind])}); remove it before training"
            for kind, count in self._secrets.items()
        ]


def _line(row: dict[str, Any]) -> bytes:
    """Raises Unusable for what is not Unicode or not JSON."""
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError as error:
        raise Unusable("encoding", "holds half of a surrogate pair") from error
    except ValueError as error:
        raise Unusable("not-a-number", "holds NaN or an infinity, which are not JSON") from error
