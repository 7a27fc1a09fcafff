"""Perplexity on general text, as ``mlx_lm.perplexity`` measures it: all files one stream of tokens, cut into windows."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tuner.datasets import create_dataset

from mcp_server.errors import DataError, ModelError
from mcp_server.evaluation.start import text_files
from mcp_server.workers.heldout import row_losses

WINDOW = 512  # tokens, mlx_lm.perplexity's sequence length
SHORTEST_WINDOW = 64  # of a short text, so that it has windows enough to tell chance from change
WANTED_WINDOWS = 20
MOST_WINDOWS = 256  # mlx_lm.perplexity's number of samples
FEWEST_TOKENS = 16


def windows(path: Path, tokenizer: Any, context: int | None) -> mx.array:
    """The text as (windows, tokens) int32: at most ``MOST_WINDOWS``, evenly spread; shorter ones of a short text.

    Raises DataError when there is hardly any.
    """
    stream: list[int] = []
    for file in text_files(path):
        for tokens in _documents(file, tokenizer):
            stream += tokens
    wanted = max(SHORTEST_WINDOW, len(stream) // WANTED_WINDOWS)
    width = min(wanted, WINDOW, context or WINDOW, len(stream))
    if len(stream) < FEWEST_TOKENS:
        raise DataError(f"forgetting_data {path} has {len(stream)} tokens; give some pages of general text")
    count = len(stream) // width
    cut = np.array(stream[: count * width], dtype=np.int32).reshape(count, width)
    if count > MOST_WINDOWS:
        cut = cut[(np.arange(MOST_WINDOWS) * count) // MOST_WINDOWS]
    return mx.array(cut)


def _documents(file: Path, tokenizer: Any) -> list[Any]:
    """Token lists, each with an end of text, as mlx-lm's data sets make them."""
    try:
        if file.suffix != ".jsonl":
            rows: list[Any] = [{"text": file.read_text(encoding="utf-8")}]
        else:
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        data = create_dataset(rows, tokenizer, types.SimpleNamespace(mask_prompt=False))
        return [list(data.process(row)[0]) for row in rows]
    except Exception as error:
        # Not UTF-8, not JSON, no known format, a template that refuses: the file is the thing to name.
        text = " ".join(str(error).split())[:200]
        raise DataError(f"forgetting_data {file} can't be read as text: {type(error).__name__}: {text}") from error


def losses(model: nn.Module, data: mx.array, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Summed loss (nats) and tokens of every window, both (windows,): all tokens but the first of each count."""
    sums: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for start in range(0, len(data), batch_size):
        batch = data[start : start + batch_size]
        summed, counted = row_losses(model, batch, mx.ones((batch.shape[0], batch.shape[1] - 1), dtype=mx.bool_))
        sums.append(summed)
        counts.append(counted)
    found = np.concatenate(sums)
    if not np.isfinite(found).all():
        raise ModelError("the loss on forgetting_data is NaN or infinite: the weights overflow on it; leave it out")
    return found, np.concatenate(counts)
