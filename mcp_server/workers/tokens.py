"""A data set as tokens: each row is tokenized once, when it is first asked for, and kept in four bytes a token.

What training sees are *pieces*: a row is one piece, several (``excess_length_strategy="split"``), or none (too long and
dropped, or nothing of it would be trained).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from mcp_server.datasets.lengths import padded_length
from mcp_server.errors import DataError
from mcp_server.training.options import TrainingOptions
from mcp_server.workers.assistant import AssistantMask


class Seen:
    """What became of the rows that were read, row numbers counted from 0."""

    def __init__(self) -> None:
        self.rows = 0
        self.tokens = 0
        self.tokens_lost = 0
        self.cut = 0
        self.split = 0
        self.windows = 0  # the pieces of the rows that were split
        self.dropped: list[int] = []  # longer than max_seq_length
        self.untrained: list[int] = []  # nothing to learn within max_seq_length


def to_device(values: np.ndarray) -> mx.array:
    """``mx.array(values)``, once more without the allocator's kept buffers where CUDA's allocator fails to move one.

    An array made from host memory may be given a kept device buffer, which MLX then moves; on two H200s (MLX 0.32.4) that
    failed once with "cudaMemcpy(...) failed: invalid argument". Stock clears the cache at every step and can't meet it.
    """
    try:
        return mx.array(values)
    except RuntimeError as error:
        if "cudaMemcpy" not in str(error):
            raise
        mx.synchronize()
        mx.clear_cache()
        return mx.array(values)


class TokenRows:
    """One file's rows as tokens. ``data``: an mlx-lm data set; ``file``: its name, for messages."""

    def __init__(
        self, data: Any, file: str, options: TrainingOptions, tokenizer: Any, max_seq_length: int | None = None
    ) -> None:
        self._data = data
        self._file = file
        self._strategy = options.excess_length_strategy
        self.max_seq_length = max_seq_length or options.max_seq_length
        # As mlx-lm, which would train on such rows or turn to NaN: the check before the first step refuses them.
        self._keep_untrained = options.stock
        self._mask = AssistantMask(tokenizer) if options.assistant_only_loss else None
        self._ids = array("i")
        self._trained = bytearray()  # parallel to the tokens, 1 where trained; only with a mask of every answer
        self._starts = array("q")  # of each piece: where its tokens begin,
        self._lengths = array("i")  # how many they are,
        self._offsets = array("i")  # and the first trained one, as mlx-lm's span has it
        self._first = np.full(len(data), -1, np.int64)  # of each row: its first piece, -1 before it is read,
        self._count = np.zeros(len(data), np.int32)  # and how many it has
        self.seen = Seen()
        self.on_row: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._data)

    @property
    def one_piece_each(self) -> bool:
        """Whether every row is exactly one piece, so that pieces can be counted without reading the rows."""
        return self._keep_untrained and self._strategy == "truncate"

    def keys(self, row: int) -> int:
        """What stock mlx-lm sorts rows by, taking it for their length: the number of the row's keys."""
        return len(self._data[row])

    def pieces(self, row: int) -> range:
        """The pieces of ``row``, which is tokenized now if it was not before. Raises DataError naming file and row."""
        if self._first[row] < 0:
            self._read(row)
        first = int(self._first[row])
        return range(first, first + int(self._count[row]))

    def length(self, piece: int) -> int:
        """Tokens of a piece."""
        return self._lengths[piece]

    def trained(self, piece: int) -> np.ndarray:
        """Which tokens of a piece are trained, (length,) bool, without the padding token that stock's spans let in."""
        start, length = self._starts[piece], self._lengths[piece]
        if self._mask is not None:
            mask = np.frombuffer(self._trained[start : start + length], np.uint8).astype(bool)
        else:
            mask = np.arange(length) >= self._offsets[piece]
        mask[:1] = False  # the first token is never predicted
        return mask

    def counted(self, piece: int) -> int:
        """How many targets of a piece the loss counts, with the padding token that stock's spans let in."""
        if self._mask is not None:
            return int(self.trained(piece).sum())
        # In a batch as wide as max_seq_length a piece of that length has no padding.
        return max(0, min(self._lengths[piece], self.max_seq_length - 1) - max(1, self._offsets[piece]) + 1)

    def tokens(self, piece: int) -> np.ndarray:
        """The tokens of a piece, (length,) int32."""
        start = self._starts[piece]
        return np.array(self._ids[start : start + self._lengths[piece]], np.int32)

    def batch(self, pieces: list[int]) -> tuple[mx.array, mx.array]:
        """A batch as ``losses`` takes it: tokens (B, L), and spans (B, 2) or, with a mask, its targets (B, L - 1) bool.

        Padding is stock's: with zeros to one more than a multiple of 32, or to max_seq_length.
        """
        lengths = [self._lengths[piece] for piece in pieces]
        tokens = np.zeros((len(pieces), padded_length(max(lengths), self.max_seq_length)), np.int32)
        for at, piece in enumerate(pieces):
            tokens[at, : lengths[at]] = self.tokens(piece)
        if self._mask is None:
            spans = np.array([(self._offsets[piece], self._lengths[piece]) for piece in pieces], np.int32)
            return to_device(tokens), to_device(spans)
        where = np.zeros(tokens.shape, np.bool_)
        for at, piece in enumerate(pieces):
            where[at, : lengths[at]] = self.trained(piece)
        return to_device(tokens), to_device(where[:, 1:].astype(np.uint8)).astype(mx.bool_)

    def blank(self, piece: int) -> tuple[mx.array, mx.array]:
        """A batch of one piece of which nothing is trained."""
        tokens, _ = self.batch([piece])
        return tokens, mx.zeros((1, tokens.shape[1] - 1), dtype=mx.bool_)

    def _read(self, row: int) -> None:
        ids, offset, mask = self._tokenize(row)
        seen, window = self.seen, self.max_seq_length
        seen.rows += 1
        seen.tokens += len(ids)
        self.on_row()
        self._first[row] = len(self._starts)
        too_long = len(ids) > window
        if too_long and self._strategy == "drop":
            seen.dropped.append(row)
            seen.tokens_lost += len(ids)
            return
        if too_long and self._strategy == "split":
            # The first token of a window is context alone: it is the last one of the window before.
            windows = [(start, min(window, len(ids) - start)) for start in range(0, len(ids) - 1, window - 1)]
        else:
            windows = [(0, min(window, len(ids)))]
        keep = [place for place in windows if _learns(*place, offset, mask)]
        if not keep:
            seen.untrained.append(row)
            keep = windows if self._keep_untrained else []
        if too_long and keep and self._strategy == "split":
            seen.split += 1
            seen.windows += len(keep)
        elif too_long and keep:
            seen.cut += 1
            seen.tokens_lost += len(ids) - window
        self._store(row, ids, offset, mask, keep)

    def _store(self, row: int, ids: list[int], offset: int, mask: bytes | None, windows: list[tuple[int, int]]) -> None:
        if not windows:
            return
        base, end = len(self._ids), windows[-1][0] + windows[-1][1]
        self._ids.extend(ids[:end])
        if mask is not None:
            self._trained += mask[:end]
        for start, length in windows:
            self._starts.append(base + start)
            self._lengths.append(length)
            self._offsets.append(max(0, offset - start))
        self._count[row] = len(windows)

    def _tokenize(self, row: int) -> tuple[list[int], int, bytes | None]:
        """The row's tokens, the first that is trained, and with a mask which ones are."""
        where = f"{self._file}:{row + 1}"
        try:
            if self._mask is not None:
                ids, mask = self._mask.of(self._data, self._data[row])
                offset = 0
            else:
                (ids, offset), mask = self._data.process(self._data[row]), None
        except DataError as error:
            raise DataError(f"{where} {error}") from error
        except Exception as error:
            # Chat templates raise what they like; all of it means that this row can't be trained on.
            text = " ".join(str(error).split())[:300]
            raise DataError(f"{where} the chat template or tokenizer refuses this row: {text}; correct it") from error
        if not ids:
            raise DataError(f"{where} has no tokens; delete the row")
        return ids, offset, mask

    def untrained_text(self) -> str:
        """Which rows have nothing to learn, for a message."""
        found = sorted(self.seen.untrained)
        return f"{len(found)} row{'s' * (len(found) != 1)} ({self.places(found)})"

    def places(self, rows: list[int], shown: int = 5) -> str:
        """``rows`` as file:line, the first of them."""
        listed = ", ".join(f"{self._file}:{row + 1}" for row in rows[:shown])
        return listed + (f", showing {shown} of {len(rows):,}" if len(rows) > shown else "")


def _learns(start: int, length: int, offset: int, mask: bytes | None) -> bool:
    """Whether a window of a row holds a token that is predicted and trained."""
    if mask is not None:
        return any(mask[start + 1 : start + length])
    return start + length > max(start + 1, offset)
