"""What was found wrong with a data set: each kind once a file, with the first lines, a count and a severity.

A collector's memory does not grow with the number of bad rows, and nothing that looks like a secret passes through it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from mcp_server.datasets.rows import Problem
from mcp_server.datasets.secrets import redact

Severity = Literal["error", "warning", "info"]
LINES_KEPT = 5
_ORDER: dict[str, int] = {"error": 0, "warning": 1, "info": 2}


class Finding(BaseModel):
    """One kind of problem in one file."""

    severity: Severity = Field(description="error: mlx-lm fails or trains garbage; warning: seldom meant; info")
    code: str
    file: str
    line: int | None = Field(default=None, description="First line, counted from 1; none: the whole file")
    message: str = Field(description="Of the first line")
    count: int = Field(default=1, description="How many lines have it")
    more_lines: list[int] = Field(default_factory=list, description="The next lines that have it, at most four")

    def text(self) -> str:
        """``file:line message (and n more lines)``."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        also = f" (and {self.count - 1} more line{'s' * (self.count > 2)})" if self.count > 1 else ""
        return f"{where} {self.message}{also}"


class Collector:
    """Findings as they come, grouped by file, code and severity: a warning never hides an error of the same code."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, Severity], Finding] = {}
        self.error_count = 0
        self.first_errors: list[str] = []

    def add(self, file: Path | str, line: int | None, problem: Problem, severity: Severity | None = None) -> None:
        """Note ``problem`` of ``line`` (None: of the file as a whole)."""
        level: Severity = severity or ("error" if problem.severity == "error" else "warning")
        key = (str(file), problem.code, level)
        known = self._found.get(key)
        if level == "error":
            self.error_count += 1
            if len(self.first_errors) < LINES_KEPT:
                where = f"{file}:{line} " if line is not None else f"{file} "
                self.first_errors.append(where + _clean(problem.message))
        if known is None:
            self._found[key] = Finding(
                severity=level, code=problem.code, file=str(file), line=line, message=_clean(problem.message)
            )
            return
        known.count += 1
        if line is not None and len(known.more_lines) < LINES_KEPT - 1:
            known.more_lines.append(line)

    def extend(self, findings: Iterable[Finding]) -> None:
        """Take over findings that were made elsewhere (the tokenizer's process)."""
        for finding in findings:
            self._found[(finding.file, finding.code, finding.severity)] = finding
            self.error_count += finding.count if finding.severity == "error" else 0

    def sorted(self) -> list[Finding]:
        """Worst first, then the most frequent; each kind once before it is repeated for another file."""
        worst = sorted(self._found.values(), key=lambda found: (_ORDER[found.severity], -found.count, found.file))
        seen: Counter[tuple[str, str]] = Counter()
        repeats: list[int] = []
        for found in worst:
            repeats.append(seen[found.severity, found.code])
            seen[found.severity, found.code] += 1
        by_kind = sorted(zip(repeats, worst, strict=True), key=lambda pair: (_ORDER[pair[1].severity], pair[0]))
        return [found for _, found in by_kind]

    def count(self, severity: Severity) -> int:
        """Kinds of findings of one severity."""
        return sum(found.severity == severity for found in self._found.values())


def _clean(message: str) -> str:
    """A row's content may be quoted in a message: never a secret of it, never pages of it."""
    text = redact(message)
    return text if len(text) <= 400 else text[:397] + "..."
