"""What is gathered of every row while the files are read: figures, duplicates, leaks, languages, secrets."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mcp_server.datasets.duplicates import ExactIndex, Groups, NearIndex
from mcp_server.datasets.findings import Collector
from mcp_server.datasets.lengths import percentile
from mcp_server.datasets.report import Duplicates, SplitSummary
from mcp_server.datasets.rows import CHAT, Problem, format_of, renamed
from mcp_server.datasets.scan import FileScan, OnRow
from mcp_server.datasets.secrets import find_secrets, may_hold_secret
from mcp_server.datasets.text import language_of, looks_garbled, roles_of, said_text, training_text
from mcp_server.datasets.watch import Watch

_LANGUAGE_FIRST, _LANGUAGE_EVERY = 512, 64  # rows whose language is guessed
_ODD_FACTOR, _ODD_CHARACTERS = 20, 20_000


class _File:
    """Figures of one file; rows are numbered on through all files."""

    def __init__(self, name: str, path: Path, first_row: int) -> None:
        self.name = name
        self.path = path
        self.first_row = first_row
        self.lines = array("I")
        self.offsets = array("Q")
        self.characters = array("I")
        self.turns: Counter[int] = Counter()
        self.roles: Counter[str] = Counter()
        self.with_tools = 0


class Survey:
    """Gathers from the observers that it gives out, one a file, in the order of the files."""

    def __init__(self, files: dict[str, Path], *, near: bool, names: dict[str, str] | None = None) -> None:
        self._paths = files
        self._names = names or {}
        self._files: dict[str, _File] = {}
        self._rows = 0
        self._exact = ExactIndex()
        self._near = NearIndex() if near else None
        self._repeats = 0
        self._leaks: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._handles: dict[str, BinaryIO] = {}

    def observer(self, name: str, findings: Collector) -> OnRow:
        """What ``scan_file`` shall call for each row of the file ``name``."""
        file = self._files[name] = _File(name, self._paths[name], self._rows)

        def on_row(line: int, offset: int, row: dict[str, Any], row_format: str, raw: str) -> None:
            number = self._rows
            self._rows += 1
            text = training_text(row, row_format)
            file.lines.append(line)
            file.offsets.append(offset)
            file.characters.append(len(text))
            roles = roles_of(row, row_format)
            file.turns[len(roles)] += 1
            file.roles.update(roles)
            file.with_tools += row_format == CHAT and bool(row.get("tools"))
            if may_hold_secret(raw):
                _add_secrets(findings, file.path, line, raw)
            if garbled := looks_garbled(text):
                findings.add(file.path, line, Problem("garbled", garbled, "warning"))
            if number < _LANGUAGE_FIRST or number % _LANGUAGE_EVERY == 0:
                self._languages[language_of(text)] += 1
            first = self._exact.first(number, text)
            if first != number:
                self._add_repeat(findings, file, line, first)
            elif self._near is not None:
                self._near.add(number, said_text(row, row_format))

        return on_row

    def _add_repeat(self, findings: Collector, file: _File, line: int, first: int) -> None:
        other, other_line = self._place(first)
        if other is file:
            self._repeats += 1
            text = f"is the same as line {other_line}; repeated rows weigh more, and are no new examples"
            findings.add(file.path, line, Problem("duplicate", text, "warning"))
            return
        self._leaks[f"{other.name} > {file.name}"] += 1
        text = (
            f"is the same as {other.path.name}:{other_line}, so what is measured on it says nothing; remove one of them"
        )
        findings.add(file.path, line, Problem("leak", text))

    def duplicates(self, findings: Collector, watch: Watch) -> Duplicates:
        """Look for near-duplicates, and count all."""
        if self._near is None:
            return Duplicates(exact=self._repeats, leaked_exact=dict(self._leaks))
        groups = Groups(self._rows)
        leaked = bytearray(self._rows)
        leaks: Counter[str] = Counter()
        near = 0
        starts = [file.first_row for file in self._files.values()]

        def wanted(one: int, other: int) -> bool:
            if any(one < start <= other for start in starts):
                return not leaked[other]
            return groups.find(one) != groups.find(other)

        try:
            pairs = self._near.pairs(self._text, wanted, lambda done, of: watch.tick(done, of, "near-duplicates"))
            for one, other, similarity in pairs:
                (earlier, earlier_line), (file, line) = self._place(one), self._place(other)
                alike = f"{similarity:.0%} alike"
                if earlier is file:
                    groups.join(one, other)
                    near += 1
                    text = f"is {alike} to line {earlier_line}"
                    findings.add(file.path, line, Problem("near-duplicate", text, "warning"))
                else:
                    leaked[other] = 1
                    leaks[f"{earlier.name} > {file.name}"] += 1
                    text = f"is {alike} to {earlier.path.name}:{earlier_line}; what is measured on it is too good"
                    findings.add(file.path, line, Problem("near-leak", text, "warning"))
        finally:
            for handle in self._handles.values():
                handle.close()
        return Duplicates(exact=self._repeats, near=near, leaked_exact=dict(self._leaks), leaked_near=dict(leaks))

    def add_odd_rows(self, findings: Collector) -> None:
        """Rows far longer than the rest of their file, and languages that are rare."""
        for file in self._files.values():
            ordered = sorted(file.characters)
            limit = max(_ODD_FACTOR * percentile(ordered, 0.5), _ODD_CHARACTERS)
            if not ordered or ordered[-1] <= limit:
                continue
            for line, characters in zip(file.lines, file.characters, strict=True):
                if characters > limit:
                    text = f"has {characters:,} characters, where the median row has {percentile(ordered, 0.5):,}"
                    findings.add(file.path, line, Problem("odd-length", text, "warning"))
        shares = self.languages()
        named = {name: share for name, share in shares.items() if name != "Latin" and share >= 0.02}
        if len(named) > 1:
            mix = ", ".join(f"{name} {share:.0%}" for name, share in named.items())
            text = f"mixes languages ({mix}, by a sample); is that meant?"
            findings.add(next(iter(self._paths.values())).parent, None, Problem("language-mix", text), "info")

    def languages(self) -> dict[str, float]:
        """Share of the sampled rows by language or script, the six commonest."""
        total = sum(self._languages.values())
        return {name: round(count / total, 3) for name, count in self._languages.most_common(6)}

    def summary(self, name: str, scan: FileScan) -> SplitSummary:
        file = self._files[name]
        characters = sorted(file.characters)
        turns = sorted(file.turns)
        formats = dict(scan.formats)
        if file.with_tools:
            formats[CHAT] -= file.with_tools
            formats = {"chat with tools": file.with_tools} | {key: rows for key, rows in formats.items() if rows}
        return SplitSummary(
            path=str(file.path),
            lines=scan.lines,
            formats=formats,
            megabytes=round(scan.bytes / 1e6, 3),
            roles=dict(file.roles.most_common(8)),
            turns=(turns[0], _median(file.turns), turns[-1]) if turns and turns[-1] else None,
            characters=(
                percentile(characters, 0.5),
                percentile(characters, 0.99),
                characters[-1] if characters else 0,
            ),
        )

    def longest(self, name: str) -> Iterator[tuple[int, int]]:
        """(characters, line) of each row of a file."""
        file = self._files[name]
        return zip(file.characters, file.lines, strict=True)

    def _place(self, row: int) -> tuple[_File, int]:
        """File and line of a row."""
        file = next(file for file in reversed(self._files.values()) if file.first_row <= row)
        return file, file.lines[row - file.first_row]

    def _text(self, row: int) -> str:
        """The text of a row, read again."""
        file = next(file for file in reversed(self._files.values()) if file.first_row <= row)
        handle = self._handles.get(file.name)
        if handle is None:
            handle = self._handles[file.name] = file.path.open("rb")
        handle.seek(file.offsets[row - file.first_row])
        found: dict[str, Any] = json.loads(handle.readline().decode("utf-8-sig"))
        named = renamed(found, self._names)
        return said_text(named, format_of(named) or "text")


def _median(counts: Counter[int]) -> int:
    return percentile(sorted(counts.elements()), 0.5)


def _add_secrets(findings: Collector, path: Path, line: int, raw: str) -> None:
    # The line's escapes would hide where a token begins.
    for kind in find_secrets(raw.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')):
        text = f"holds what looks like a {kind}: the model would learn it by heart; revoke it and remove it"
        findings.add(path, line, Problem(f"secret: {kind}", text))
