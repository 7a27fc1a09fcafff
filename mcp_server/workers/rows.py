"""Every row the run will see is tokenized before the first step, so that none fails or poisons it hours later."""

from __future__ import annotations

import time
from typing import Any, cast

from mlx_lm.tuner.datasets import CacheDataset

from mcp_server.errors import DataError
from mcp_server.workers.batches import BatchOrder
from mcp_server.workers.job import WorkerJob
from mcp_server.workers.watch import Alert

_SHOWN = 5
_CUT_SHARE = 0.005  # of all tokens, from which rows that are cut are worth an alert
_PADDING_SHARE = 0.4
_PAD_TO = 32  # mlx-lm pads to one more than a multiple of this


def check_rows(
    worker: WorkerJob, dataset: CacheDataset, batches: list[list[int]], name: str, length: int
) -> list[Alert]:
    """Tokenize the rows of ``batches`` and see what would be lost. ``length``: max_seq_length.

    Raises DataError naming file and rows when the chat template refuses one, or when nothing of a row would be trained
    (its prompt fills the window): stock mlx-lm turns the whole run into NaN on a batch of such rows.
    """
    told = time.monotonic()
    tokens = lost = padded = 0
    cut_rows: list[int] = []
    untrained: list[int] = []
    total = sum(len(batch) for batch in batches)
    seen = 0
    for batch in batches:
        widest = 0
        for row in batch:
            ids, offset = _tokens(dataset, row, f"{worker.spec.options['data']}/{name}.jsonl")
            kept = min(len(ids), length)
            if offset >= kept:
                untrained.append(row)
            if kept < len(ids):
                cut_rows.append(row)
            tokens += len(ids)
            lost += len(ids) - kept
            widest = max(widest, kept)
            seen += 1
        padded += len(batch) * min(1 + _PAD_TO * -(-widest // _PAD_TO), max(length, 1))
        if time.monotonic() - told > 2:
            told = time.monotonic()
            worker.check_stop()
            worker.events.write("progress", name=f"tokenizing {name}", step=seen, total=total)
    if untrained:
        raise DataError(_untrained(untrained, f"{worker.spec.options['data']}/{name}.jsonl", length))
    alerts: list[Alert] = []
    if tokens and lost / tokens >= _CUT_SHARE:
        alerts.append(
            Alert(
                "rows-cut",
                f"{len(cut_rows)} rows of {name} are longer than {length} tokens: {lost / tokens:.1%} of its tokens are cut",
            )
        )
    if (
        padded
        and name == "train"
        and 1 - (tokens - lost) / padded >= _PADDING_SHARE
        and any(len(b) > 1 for b in batches)
    ):
        alerts.append(Alert("padding", f"{1 - (tokens - lost) / padded:.0%} of each batch is padding"))
    return alerts


def _tokens(dataset: CacheDataset, row: int, file: str) -> tuple[list[int], int]:
    try:
        ids, offset = cast(tuple[list[int], int], dataset[row])
    except Exception as error:
        # Chat templates raise what they like; all of it means that this row can't be trained on.
        text = " ".join(str(error).split())[:300]
        raise DataError(
            f"{file}:{row + 1} the chat template or tokenizer refuses this row: {text}; correct it"
        ) from error
    if not ids:
        raise DataError(f"{file}:{row + 1} has no tokens; delete the row")
    return ids, offset


def _untrained(rows: list[int], file: str, length: int) -> str:
    shown = ", ".join(f"{file}:{row + 1}" for row in sorted(set(rows))[:_SHOWN])
    count = len(set(rows))
    more = f" (showing {_SHOWN} of {count})" if count > _SHOWN else ""
    return (
        f"nothing would be learnt from {count} row{'s' * (count != 1)} whose prompt alone fills max_seq_length={length}: "
        f"{shown}{more}; raise max_seq_length or remove the rows"
    )


def rows_of(dataset: CacheDataset, order: BatchOrder | None, batch_size: int, steps: int) -> list[list[int]]:
    """The batches to check: those the run will draw, or all of a validation set."""
    if order is not None:
        return order.coming(steps)
    count: Any = len(dataset)
    return [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
