"""The held-out rows: their losses under a model, and the questions they ask."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tuner.datasets import CacheDataset, create_dataset

from mcp_server.datasets.features import FeatureNames
from mcp_server.datasets.rows import renamed
from mcp_server.errors import DataError
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.workers import job
from mcp_server.workers.batches import batch_of
from mcp_server.workers.losses import target_mask

_SHOWN = 5


@dataclass(frozen=True)
class Question:
    """One prompt: ``row`` counts from 0; ``tokens`` is what the model sees, ``text`` what a person asks."""

    row: int
    tokens: list[int]
    text: str
    reference: str


class HeldOut:
    """One split of the data, tokenized and checked. Raises DataError naming rows that can't be measured."""

    def __init__(self, worker: job.WorkerJob, options: BenchmarkOptions, tokenizer: Any, window: int | None) -> None:
        """``window``: the model's context, tokens."""
        assert options.data is not None
        self._worker = worker
        self._batch_size = options.batch_size
        self._tokenizer = tokenizer
        self._window = window
        self.length = min(options.max_seq_length, window or options.max_seq_length)
        names = options.over(FeatureNames()).features
        self.file = Path(options.data) / f"{options.split}.jsonl"
        with self.file.open(encoding="utf-8") as lines:
            self._raw: list[dict[str, Any]] = [renamed(json.loads(line), names) for line in lines]
        try:
            data = create_dataset(self._raw, tokenizer, types.SimpleNamespace(mask_prompt=bool(options.mask_prompt)))
        except ValueError as error:
            raise DataError(f"{self.file} can't be used: {error}") from error
        self.rows = CacheDataset(data)
        self.notes: list[str] = []
        self._check()

    def __len__(self) -> int:
        return len(self._raw)

    def _check(self) -> None:
        """Tokenize every row; see that something of each is counted."""
        lengths: list[int] = []
        unmeasured: list[int] = []
        for row in range(len(self)):
            tokens, offset = self._tokens(row)
            lengths.append(len(tokens))
            if offset >= min(len(tokens), self.length):
                unmeasured.append(row)
            if not row & 0xFF:
                self._worker.check_stop()
        if unmeasured:
            where = ", ".join(f"{self.file}:{row + 1}" for row in unmeasured[:_SHOWN])
            more = f" (showing {_SHOWN} of {len(unmeasured)})" if len(unmeasured) > _SHOWN else ""
            raise DataError(
                f"the prompt alone fills the {self._limit()} in {len(unmeasured)} of {len(self)} rows, so that no answer "
                f"is measured: {where}{more}; {self._remedy()}"
            )
        cut = sum(length > self.length for length in lengths)
        if cut:
            self.notes.append(f"{cut} of {len(self)} rows were cut to the {self._limit()}")
        # Rows of like length together: less padding. Their order does not change a row's loss.
        self._order = sorted(range(len(self)), key=lengths.__getitem__)

    def _limit(self) -> str:
        if self.length == self._window:
            return f"model's context window of {self.length} tokens"
        return f"window of max_seq_length={self.length} tokens"

    def _remedy(self) -> str:
        return "remove or shorten them" if self.length == self._window else "raise max_seq_length or remove them"

    def _tokens(self, row: int) -> tuple[list[int], int]:
        try:
            tokens, offset = cast(tuple[list[int], int], self.rows[row])
        except Exception as error:
            # Chat templates raise what they like; all of it means that this row can't be measured.
            text = " ".join(str(error).split())[:300]
            raise DataError(f"{self.file}:{row + 1} is refused by chat template or tokenizer: {text}") from error
        if not tokens:
            raise DataError(f"{self.file}:{row + 1} has no tokens; delete the row")
        return tokens, offset

    def losses(self, model: nn.Module, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Summed loss (nats) and number of counted tokens of every row, in the file's order. Both (rows,)."""
        sums, counts = np.zeros(len(self)), np.zeros(len(self))
        for start in range(0, len(self), self._batch_size):
            self._worker.check_stop()
            rows = self._order[start : start + self._batch_size]
            tokens, where = batch_of(self.rows, rows, self.length)
            sums[rows], counts[rows] = row_losses(model, tokens, target_mask(tokens, where))
            self._worker.events.write("progress", name=f"loss of {name}", step=start + len(rows), total=len(self))
        return sums, counts

    def questions(self, limit: int) -> list[Question]:
        """At most ``limit`` rows, evenly spread, that end with an assistant's text, as prompts.

        Raises DataError when a prompt leaves no room in the context for an answer.
        """
        asked = [(row, *found) for row, raw in enumerate(self._raw) if (found := _asked(raw)) is not None]
        if len(asked) > limit:
            asked = [asked[int(index * len(asked) / limit)] for index in range(limit)]
        questions: list[Question] = []
        for row, messages, reference in asked:
            tokens = self._tokenizer.apply_chat_template(
                messages, tools=self._raw[row].get("tools"), add_generation_prompt=True, return_dict=False
            )
            if self._window is not None and len(tokens) >= self._window:
                raise DataError(
                    f"{self.file}:{row + 1} has a prompt of {len(tokens)} tokens, and the model's context window is "
                    f"{self._window}; remove or shorten it"
                )
            questions.append(Question(row, tokens, _text(messages), reference.strip()))
        return questions


def _asked(row: dict[str, Any]) -> tuple[list[dict[str, Any]], str] | None:
    """Messages before the last answer, and that answer; None of rows without one."""
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return [{"role": "user", "content": row["prompt"]}], row["completion"]
    messages: list[dict[str, Any]] = row.get("messages") or []
    if len(messages) > 1 and messages[-1].get("role") == "assistant" and isinstance(messages[-1].get("content"), str):
        return messages[:-1], messages[-1]["content"]
    return None


def _text(messages: list[dict[str, Any]]) -> str:
    content = messages[-1].get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def row_losses(model: nn.Module, tokens: mx.array, mask: mx.array) -> tuple[np.ndarray, np.ndarray]:
    """``trainer.default_loss`` before its sum: per row, the summed loss (nats) and the tokens counted.

    ``tokens`` (B, L), ``mask`` (B, L - 1) of the targets.
    """
    losses = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]) * mask
    sums, counts = losses.astype(mx.float32).sum(axis=1), mask.sum(axis=1)
    mx.eval(sums, counts)
    return np.array(sums, dtype=np.float64), np.array(counts, dtype=np.float64)
