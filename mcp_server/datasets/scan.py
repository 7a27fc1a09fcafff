"""One reading of a JSONL file: every line checked by the row rules, every good row handed on. Memory does not grow with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mcp_server.datasets.findings import Collector, Severity
from mcp_server.datasets.rows import TEXT, Problem, check_row, parse_line, renamed
from mcp_server.datasets.watch import Watch
from mcp_server.errors import DataError

MAX_LINE_BYTES = 32 * 1024 * 1024  # longer than any context window; a binary file has no line ends at all
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class FileScan:
    """What one file holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self.bytes = 0
        self.more = False  # lines beyond the limit
        self.formats: Counter[str] = Counter()

    @property
    def format(self) -> str | None:
        """The format mlx-lm reads the file in: that of its first row."""
        return next(iter(self.formats), None)


OnRow = Callable[[int, int, dict[str, Any], str, str], None]
"""Called for each row that has a format: line number, byte offset, row, format, the line's text."""


def scan_file(
    path: Path,
    findings: Collector,
    on_row: OnRow | None = None,
    watch: Watch | None = None,
    limit: int | None = None,
    names: dict[str, str] | None = None,
) -> FileScan:
    """Check every line of ``path``, or its first ``limit`` lines; ``names`` as in ``check_line``.

    Raises DataError when it can't be read, Cancelled by ``watch``.
    """
    scan = FileScan(path)
    size = path.stat().st_size if path.is_file() else None
    try:
        with path.open("rb") as file:
            for number, offset, raw in read_lines(file):
                if limit is not None and number > limit:
                    scan.more = True
                    break
                scan.lines = number
                scan.bytes = offset + len(raw)
                if watch is not None and not number & 0x3FF:
                    watch.tick(scan.bytes, size, f"reading {path.name}")
                text, problem = decode_line(raw)
                row = None
                if problem is None:
                    row, problem = parse_line(text)
                if problem is not None:
                    findings.add(path, number, _array_problem(problem, number, text) or problem)
                if problem is not None and problem.code == "bom":
                    row, _ = parse_line(text.removeprefix("\ufeff"))
                if row is None:
                    continue
                row = renamed(row, names) if names else row
                found, problems = check_row(row, scan.format)
                for problem in problems:
                    findings.add(path, number, problem)
                if found is not None:
                    scan.formats[found] += 1
                    if on_row is not None:
                        on_row(number, offset, row, found, text)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}; check its permissions") from error
    return scan


def read_lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Line number from 1, byte offset and bytes of each line; of a line over the limit only its beginning."""
    offset = 0
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        yield number, offset, raw
        offset += len(raw)
        while len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            raw = file.readline(MAX_LINE_BYTES + 1)
            offset += len(raw)


def decode_line(raw: bytes) -> tuple[str, Problem | None]:
    """The text of a line without its end, and what is wrong with its bytes."""
    if len(raw) > MAX_LINE_BYTES:
        return "", Problem("line-too-long", f"is longer than {MAX_LINE_BYTES >> 20} MiB; is this a text file?")
    if raw.startswith(_UTF16) or raw[1:4:2] == b"\x00\x00" or raw[0:3:2] == b"\x00\x00":
        return "", Problem("encoding", "is UTF-16, which mlx-lm can't read; save as plain UTF-8")
    try:
        return raw.decode("utf-8").rstrip("\r\n"), None
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 ({error.reason} at byte {error.start}: 0x{raw[error.start]:02x})"
        return "", Problem("encoding", f"{what}; save as plain UTF-8")


def _array_problem(problem: Problem, number: int, text: str) -> Problem | None:
    """A whole file that is one JSON array is a common export; a message about its first line would not say so."""
    if number == 1 and problem.code in ("bad-json", "not-an-object") and text.lstrip().startswith("["):
        return Problem(
            "json-array",
            "begins one JSON array; mlx-lm reads JSON lines, one object a line; prepare_dataset turns the one into the other",
        )
    return None


def check_splits(
    scans: dict[str, FileScan],
    folder: Path,
    *,
    batch_size: int,
    validate: bool,
    test: bool,
    mask_prompt: bool = False,
    assistant_only_loss: bool = False,
    stock: bool = False,
) -> Iterator[tuple[Path, Severity, Problem]]:
    """What a training needs of the splits as a whole: (file, severity, problem) of each that is missing or too small.

    Fewer rows than a batch are one small batch: ``workers/batches.py``. To stock mlx-lm they are an error.
    """
    if "train" not in scans:
        text = f"has no train.jsonl; put the examples there, one JSON object a line{others(folder)}"
        yield folder, "error", Problem("no-train", text)
    if "valid" not in scans:
        yield (
            folder,
            "error" if validate else "warning",
            Problem(
                "no-valid",
                "has no valid.jsonl, so overfitting could not be seen; move about a tenth of train.jsonl there, "
                "or pass val_batches=0 to train without validation",
            ),
        )
    if "test" not in scans:
        yield (
            folder,
            "error" if test else "info",
            Problem("no-test", "has no test.jsonl; make one, or pass test=false" if test else _NO_TEST),
        )
    for name, scan in scans.items():
        rows = scan.lines
        if mask_prompt and scan.format == TEXT:
            text = (
                "is plain text, which has no prompt to mask, so mlx-lm refuses mask_prompt=true; "
                "leave mask_prompt out, or make prompt/completion rows"
            )
            yield scan.path, "error", Problem("text-mask-prompt", text)
        if assistant_only_loss and scan.format == TEXT:
            text = "is plain text, which has no answers; leave assistant_only_loss out, or make chat rows"
            yield scan.path, "error", Problem("text-assistant-only", text)
        if not scan.formats:
            what = "is empty" if not rows else "has no row that mlx-lm can read"
            yield (
                scan.path,
                "error",  # mlx-lm reads all three files and fails on an empty one, needed or not
                Problem("empty-file", f"{what}; put examples there, one JSON object a line, or delete the file"),
            )
        elif rows < batch_size and not scan.more:
            has = f"has {rows} row{'s' * (rows != 1)}, fewer than batch_size={batch_size}"
            refused: Severity = "error" if stock and name == "train" else "warning"
            yield scan.path, refused, Problem("fewer-than-batch", f"{has}{_small(name, rows, stock)}")


def _small(name: str, rows: int, stock: bool) -> str:
    """What it means that a split is smaller than a batch."""
    if name != "train":
        return ": its loss is that of very few rows and says little; add rows"
    if stock:
        return f", which stock mlx-lm refuses; use a batch_size of at most {rows}, or leave stock out, or add rows"
    return f": every step sees them all; add rows, or use a batch_size of at most {rows}"


_NO_TEST = "has no test.jsonl; run_benchmark will need one to show that the adapter is better than the base model"


def others(folder: Path) -> str:
    """What a folder holds instead, for a message."""
    names = sorted(entry.name for entry in folder.iterdir())[:5]
    return f" (the folder holds {', '.join(names)})" if names else " (the folder is empty)"
