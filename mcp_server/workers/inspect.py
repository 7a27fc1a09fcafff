"""Token lengths with a model's tokenizer and template: a short-lived process of ``datasets.tokens``, no weights, no GPU.

The truth is mlx-lm's own data set classes. They render and encode row by row; here rows are rendered one by one and
encoded together, which is several times as fast, after the first rows have shown that the outcome is the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from mcp_server.datasets import lengths
from mcp_server.datasets.findings import Collector
from mcp_server.datasets.rows import CHAT, COMPLETIONS, Problem, check_row, parse_line, renamed
from mcp_server.datasets.scan import decode_line, read_lines
from mcp_server.datasets.secrets import find_secrets, redact
from mcp_server.datasets.tokens import Example, Part, SplitTokens, TokenAnswer, TokenFile, TokenReport, TokenRequest
from mcp_server.workers.loading import load_tokenizer_of
from mcp_server.workers.rendering import Rendered, Renderer
from mcp_server.workers.voice import Voice, answer

_BATCH = 256
_SHOWN = 700  # characters of each part of the example


def _measure_all(request: TokenRequest, voice: Voice) -> TokenAnswer:
    tokenizer = load_tokenizer_of(request.model)
    findings = Collector()
    splits: dict[str, SplitTokens] = {}
    example: Example | None = None
    total = sum(file.lines for file in request.files)
    every_length = array("I", bytes(4 * total)) if request.lengths_to else None
    before = 0
    for file in request.files:
        one = _FileMeasure(request, file, tokenizer, findings)
        for done, line, length in one.run():
            voice.progress(before + done, total, f"counting tokens of {Path(file.path).name}")
            if every_length is not None:
                every_length[before + line - 1] = length
        before += file.lines
        if one.lengths:
            splits[file.split] = one.statistics()
        example = example or one.example
    if request.lengths_to and every_length is not None:
        Path(request.lengths_to).write_bytes(every_length.tobytes())
    report = TokenReport(
        model=request.model,
        max_seq_length=request.max_seq_length,
        batch_size=request.batch_size,
        mask_prompt=request.mask_prompt,
        assistant_only_loss=request.assistant_only_loss,
        splits=splits,
        example=example,
    )
    return TokenAnswer(report=report, findings=findings.sorted())


class _FileMeasure:
    """One file's lengths, findings and example."""

    def __init__(self, request: TokenRequest, file: TokenFile, tokenizer: Any, findings: Collector) -> None:
        self._request = request
        self._file = file
        self._tokenizer = tokenizer
        self._findings = findings
        self._renderer = Renderer(
            tokenizer, mask_prompt=request.mask_prompt, assistant_only_loss=request.assistant_only_loss
        )
        self.lengths = array("I")
        self._longest = 0  # of all that were counted, sampled or not
        self._keys = array("H")
        self._trained = 0
        self.example: Example | None = None

    def run(self) -> Iterator[tuple[int, int, int]]:
        """Measure; (lines done, line, length) of each row."""
        pending: list[tuple[int, dict[str, Any], str]] = []
        done = 0
        for number, row, row_format in self._rows():
            done = number
            pending.append((number, row, row_format))
            if len(pending) == _BATCH:
                yield from ((done, line, length) for line, length in self._measure(pending))
                pending = []
        yield from ((done, line, length) for line, length in self._measure(pending))

    def _rows(self) -> Iterator[tuple[int, dict[str, Any], str]]:
        """Chosen lines that hold a row mlx-lm can read; what is wrong with the others the structural part says."""
        also = set(self._file.also)
        first: str | None = None
        with Path(self._file.path).open("rb") as handle:
            for number, _, raw in read_lines(handle):
                if number > self._file.lines:
                    return  # max_rows
                if not self._file.takes(number) and number not in also:
                    continue
                text, problem = decode_line(raw)
                row, _ = parse_line(text.removeprefix("\ufeff")) if problem is None else (None, None)
                if row is None:
                    continue
                row = renamed(row, self._request.names)
                found, problems = check_row(row, first)
                if found is None or any(bad.severity == "error" and bad.code in _UNREADABLE for bad in problems):
                    continue
                first = first or found
                yield number, row, found

    def _measure(self, rows: list[tuple[int, dict[str, Any], str]]) -> list[tuple[int, int]]:
        measured: list[tuple[int, int]] = []
        for (number, row, row_format), rendered in zip(rows, self._renderer.render(rows), strict=True):
            if isinstance(rendered, Problem):
                self._findings.add(self._file.path, number, rendered)
                continue
            length = len(rendered.tokens)
            measured.append((number, length))
            self._longest = max(self._longest, length)
            for problem in _findings_of(rendered, row_format, self._request, self._tokenizer):
                self._findings.add(self._file.path, number, problem)
            if not self._file.takes(number):
                continue  # one of the longest rows, looked at for the findings alone
            self.lengths.append(length)
            self._keys.append(min(len(row), 65535))
            self._trained += rendered.trained(self._request.max_seq_length)
            # Cut at tokens, the pieces of a secret look like none: such a row is not shown.
            if self.example is None and not find_secrets(self._tokenizer.decode(rendered.tokens)):
                self.example = self._make_example(number, rendered)
        return measured

    def _make_example(self, number: int, rendered: Rendered) -> Example:
        window = self._request.max_seq_length
        tokens = rendered.tokens
        texts: dict[str, Any] = {"cut": self._text(tokens[window:]) or None}
        if rendered.mask is not None:
            texts["parts"] = self._parts(tokens[:window], rendered.mask)
        else:
            start = min(max(1, rendered.offset), len(tokens))
            texts["not_trained"] = self._text(tokens[: min(start, window)])
            texts["trained"] = self._text(tokens[min(start, window) : window])
            if len(tokens) < window:
                # stock's mask runs to steps <= length, one place beyond the row's last token: the first padding token, id 0.
                texts["then"] = repr(self._tokenizer.decode([0])) + ", the padding token's id 0"
        return Example(
            file=self._file.path, line=number, tokens=len(tokens), trained_tokens=rendered.trained(window), **texts
        )

    def _parts(self, tokens: list[int], mask: bytes) -> list[Part]:
        """Runs of trained and of other tokens."""
        runs = groupby(zip(tokens, mask, strict=False), key=lambda pair: bool(pair[1]))
        return [Part(trained=trained, text=self._text([token for token, _ in run])) for trained, run in runs]

    def _text(self, tokens: list[int]) -> str:
        return _shown(self._tokenizer.decode(tokens))

    def statistics(self) -> SplitTokens:
        """Figures of the sampled rows, and the length of the longest."""
        window, batch = self._request.max_seq_length, self._request.batch_size
        ordered = lengths.sorted_array(self.lengths)
        tokens = sum(ordered)
        rows_cut, tokens_cut = lengths.cut(ordered, window)
        stock = lengths.stock_order(self.lengths, self._keys)
        bucketed, _ = lengths.expected_padding(ordered, self._file.lines, batch, window, bucketed=True)
        return SplitTokens(
            rows_measured=len(ordered),
            rows=self._file.lines,
            tokens=tokens,
            mean=round(tokens / len(ordered), 1),
            p50=lengths.percentile(ordered, 0.5),
            p90=lengths.percentile(ordered, 0.9),
            p99=lengths.percentile(ordered, 0.99),
            max=self._longest,
            rows_cut=round(rows_cut / len(ordered), 4),
            tokens_cut=round(tokens_cut / tokens, 4) if tokens else 0.0,
            tokens_trained=round(self._trained / max(1, tokens - tokens_cut), 4),
            padding_stock=round(lengths.padding_share(stock, batch, window), 4),
            padding_bucketed=round(bucketed, 4),
            histogram=lengths.histogram(ordered),
        )


# Rows with these can't be rendered; mlx-lm takes the others, wrong as they are, and so do the figures.
_UNREADABLE = ("wrong-type", "mixed-formats", "encoding")


def _findings_of(rendered: Rendered, row_format: str, request: TokenRequest, tokenizer: Any) -> Iterator[Problem]:
    length, offset, window = len(rendered.tokens), rendered.offset, request.max_seq_length
    if row_format in (CHAT, COMPLETIONS) and request.mask_prompt:
        if offset >= window:
            yield Problem(
                "prompt-too-long",
                f"has a prompt of {offset} tokens, and max_seq_length={window} leaves nothing of the answer: training leaves "
                "the row out (in stock mlx-lm a batch of such rows gives NaN); shorten it, or raise max_seq_length",
            )
        elif offset >= length:
            yield Problem(
                "nothing-trained", f"has {length} tokens and mask_prompt masks {offset}: nothing is learnt of it"
            )
        elif rendered.prefix < offset:
            yield Problem(
                "template-not-prefix",
                f"is masked in the wrong place: the template renders the prompt differently without its answer (equal for "
                f"{rendered.prefix} of {offset} tokens), so mlx-lm's mask_prompt is off; try mask_prompt=false",
                "warning",
            )
    if rendered.mask is not None and not rendered.trained(window):
        yield Problem(
            "nothing-trained",
            f"has no answer within max_seq_length={window}: training leaves it out; raise max_seq_length",
        )
    if length > window:
        yield Problem(
            "too-long",
            f"has {length} tokens, more than max_seq_length={window}; the end is cut off, answer first; "
            "raise max_seq_length, or see excess_length_strategy",
            "warning",
        )
    if rendered.dropped is not None:
        yield Problem("template-drops", f"has a {rendered.dropped} that the chat template does not show", "warning")
    if row_format != "text" and not set(rendered.tokens[-4:]) & set(tokenizer.eos_token_ids):
        yield Problem(
            "no-end-token",
            "does not end in the model's end token by this chat template, so the model does not learn to stop",
            "warning",
        )


def _shown(text: str) -> str:
    text = redact(text)
    if len(text) <= _SHOWN:
        return text
    half = _SHOWN // 2
    return f"{text[:half]} […{len(text) - 2 * half:,} characters…] {text[-half:]}"


if __name__ == "__main__":
    answer(TokenRequest, _measure_all, "loading the tokenizer")
