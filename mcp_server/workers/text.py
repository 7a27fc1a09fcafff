"""The loss of a model on a text, row by row, so that two models can be compared on the same tokens."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tuner.datasets import create_dataset

from mcp_server.errors import DataError

Row = list[int]


def token_rows(path: Path, tokenizer: Any, *, length: int, limit: int | None = None) -> list[Row]:
    """The tokens of a text: of a .jsonl file each row with its chat template, of other files pieces of ``length``.

    Rows are cut at ``length``; at most ``limit`` tokens in all. Raises DataError when a row can't be tokenized.
    """
    rows: list[Row] = []
    total = 0
    for tokens in _rows(path, tokenizer) if path.suffix == ".jsonl" else _pieces(path, tokenizer, length):
        if len(tokens) < 2:
            continue
        if limit is not None and rows and total + len(tokens[:length]) > limit:
            break
        rows.append(tokens[:length])
        total += len(rows[-1])
    if not rows:
        raise DataError(f"{path} has no row of two tokens or more, so nothing can be measured on it; give another text")
    return rows


def _pieces(path: Path, tokenizer: Any, length: int) -> list[Row]:
    tokens: Row = tokenizer.encode(path.read_text(encoding="utf-8"))
    return [tokens[start : start + length] for start in range(0, len(tokens), length)]


def _rows(path: Path, tokenizer: Any) -> Any:
    with path.open(encoding="utf-8") as file:
        data = [json.loads(line) for line in file]
    dataset: Any = create_dataset(data, tokenizer, types.SimpleNamespace())
    for number, row in enumerate(data, start=1):
        try:
            yield dataset.process(row)[0]
        except Exception as error:
            # Chat templates raise what they like; all of it means that this row can't be used.
            text = " ".join(str(error).split())[:300]
            raise DataError(f"{path}:{number} the chat template or tokenizer refuses this row: {text}") from error


def row_losses(
    model: nn.Module, rows: list[Row], *, batch_size: int = 8, look: Callable[[int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Summed loss (nats) and number of predicted tokens of each row, both (rows,), in the order given.

    Every token but a row's first counts, as in ``mlx_lm.perplexity``. ``look`` is told the rows done before each batch.
    """
    model.eval()
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    sums, counts = np.zeros(len(rows)), np.array([len(row) - 1 for row in rows], dtype=float)
    for start in range(0, len(rows), batch_size):
        if look is not None:
            look(start)
        chosen = order[start : start + batch_size]
        width = max(len(rows[index]) for index in chosen)
        padded = mx.array([rows[index] + [0] * (width - len(rows[index])) for index in chosen])
        lengths = mx.array([len(rows[index]) for index in chosen])
        mask = mx.arange(1, width)[None] < lengths[:, None]
        logits = model(padded[:, :-1]).astype(mx.float32)
        losses = nn.losses.cross_entropy(logits, padded[:, 1:]) * mask
        sums[chosen] = np.array(losses.sum(axis=1))
    return sums, counts
