"""The loss on a data set that is not trained on: mlx-lm's own ``evaluate`` over batches that are ours.

The mean is over tokens, so neither order nor batches matter to it, but for rounding. With bucketing every row counts, or of
many the same few at each validation; stock draws other batches each time and leaves the last rows out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tuner import trainer

from mcp_server.training.options import TrainingOptions
from mcp_server.workers.batches import Batch, Share, StockOrder
from mcp_server.workers.losses import masked_loss
from mcp_server.workers.tokens import TokenRows

_SEED = 0  # which rows are looked at when not all are: the same for every run, so that losses can be compared


class Validation:
    """``batches`` batches of ``rows``, -1 for all, of which this rank takes its ``share``."""

    def __init__(self, rows: TokenRows, options: TrainingOptions, batches: int, share: Share | None = None) -> None:
        self.rows = rows
        self._size = options.batch_size
        self._count = batches
        self._share = share or Share()
        self._stock = None if options.buckets else StockOrder(rows, options.batch_size)
        self._fixed: list[Batch] | None = None
        # Before each batch, on every rank alike; what it raises ends the validation.
        self.on_batch: Callable[[], None] = lambda: None

    def loss(self, model: nn.Module, loss: Callable[..., Any] = masked_loss) -> float:
        """Mean loss (nats) per trained token."""
        return cast(
            float,
            trainer.evaluate(
                model=model,
                dataset=self.rows,
                batch_size=self._size,
                num_batches=-1,  # counted in _iterate, since it may be told of parts of batches
                max_seq_length=self.rows.max_seq_length,
                loss=loss,
                iterate_batches=self._iterate,
            ),
        )

    def batches(self) -> list[Batch]:
        """All batches that may be looked at."""
        if self._stock is not None:
            return list(self._stock.coming(len(self.rows)))
        if self._fixed is None:
            self._fixed = self._choose()
        return self._fixed

    def __len__(self) -> int:
        """Batches of one validation."""
        whole = len(self.batches())
        return whole if self._count == -1 else min(whole, self._count)

    def _choose(self) -> list[Batch]:
        """Batches by length, the longest first, so that too little memory shows at once."""
        chosen = np.random.default_rng(_SEED).permutation(len(self.rows))
        if self._count != -1:
            chosen = chosen[: self._count * self._size]
        pieces = [piece for row in sorted(chosen.tolist()) for piece in self.rows.pieces(row)]
        pieces.sort(key=self.rows.length, reverse=True)
        return [pieces[at : at + self._size] for at in range(0, len(pieces), self._size)]

    def _iterate(self, **_: Any) -> Iterator[tuple[mx.array, mx.array]]:
        batches = iter(self.batches())
        if self._stock is not None:
            batches = islice(self._stock.epoch(), None if self._count == -1 else self._count)
        for batch in batches:
            self.on_batch()
            # A rank that has no row of a small last batch has one batch less: the sums are taken over all ranks at the end.
            # After an out-of-memory in parts, as in training: their sums are those of the whole batch.
            yield from (self.rows.batch(part) for part in self._share.of(batch) if self._has_a_mean(part))

    def _has_a_mean(self, part: Batch) -> bool:
        """Whether ``part`` is to be looked at. One without a trained token, which has no mean, is not; but a whole batch
        is: mlx-lm has none for it either."""
        return bool(part) and (self._share.parts == 1 or any(map(self.rows.counted, part)))
