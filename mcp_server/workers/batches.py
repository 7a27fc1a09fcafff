"""The order in which mlx-lm takes its batches, made explicit so that it can be saved and continued.

Stock's ``iterate_batches`` cuts the rows into fixed slices and draws a permutation of the slices for every epoch from
numpy's global generator, which validation draws from too. The same draws are made here in the same order, so the
batches are stock's own, and padding is left to stock's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset

RandomState = list[Any]


class _Rows(CacheDataset):
    """Some rows of a data set, in the order given."""

    def __init__(self, data: CacheDataset, rows: list[int]) -> None:
        self._whole = data
        self._rows = rows

    def itemlen(self, idx: int) -> int:
        return 0  # all alike, so that stock's sort leaves the order alone

    def __getitem__(self, idx: int) -> Any:
        return self._whole[self._rows[idx]]

    def __len__(self) -> int:
        return len(self._rows)


def batch_of(dataset: CacheDataset, rows: list[int], max_seq_length: int) -> tuple[mx.array, mx.array]:
    """One batch of these rows, in this order, padded by stock's own function.

    Tokens, shape (rows, length), and [offset, length] of each row, shape (rows, 2).
    """
    return next(
        trainer.iterate_batches(dataset=_Rows(dataset, rows), batch_size=len(rows), max_seq_length=max_seq_length)
    )


class BatchOrder:
    """Stock's batches of one data set, from any position."""

    def __init__(
        self,
        dataset: CacheDataset,
        batch_size: int,
        max_seq_length: int,
        parts: int = 1,
        share: Callable[[list[int]], list[int]] = list,
    ) -> None:
        """``parts``: each batch is given in this many equal pieces. ``share``: what of a piece's rows is this rank's."""
        rows = sorted(range(len(dataset)), key=dataset.itemlen)
        self._slices = [rows[at : at + batch_size] for at in range(0, len(rows) - batch_size + 1, batch_size)]
        self._dataset = dataset
        self._max_seq_length = max_seq_length
        self._part_size = batch_size // parts
        self._share = share
        self._epoch_start: RandomState | None = None
        self._permutation: list[int] = []
        self._taken = 0

    def __iter__(self) -> Iterator[Iterator[tuple[mx.array, mx.array]]]:
        """Batch after batch without end, each as its parts."""
        while True:
            if self._taken >= len(self._permutation):
                self._epoch_start = random_state()
                self._permutation = np.random.permutation(len(self._slices)).tolist()
                self._taken = 0
            rows = self._slices[self._permutation[self._taken]]
            self._taken += 1
            yield self._parts_of(rows)

    def _parts_of(self, rows: list[int]) -> Iterator[tuple[mx.array, mx.array]]:
        for start in range(0, len(rows), self._part_size):
            part = self._share(rows[start : start + self._part_size])
            yield batch_of(self._dataset, part, self._max_seq_length)

    def coming(self, batches: int) -> list[list[int]]:
        """The rows of the next ``batches`` batches, at most one epoch's, without advancing."""
        if batches >= len(self._slices):
            return self._slices
        state = random_state()
        order = self._permutation[self._taken :] + np.random.permutation(len(self._slices)).tolist()
        set_random_state(state)
        return [self._slices[index] for index in order[:batches]]

    def position(self) -> dict[str, Any]:
        """Where the order stands, as JSON."""
        return {
            "epoch_start": self._epoch_start,
            "taken": self._taken,
            "slices": len(self._slices),
            "random": random_state(),
        }

    def restore(self, position: dict[str, Any]) -> None:
        """Go on from ``position``; with other data than it was taken on, a new epoch begins."""
        if position["epoch_start"] is not None and position["slices"] == len(self._slices):
            set_random_state(position["epoch_start"])
            self._epoch_start = position["epoch_start"]
            self._permutation = np.random.permutation(len(self._slices)).tolist()
            self._taken = position["taken"]
        set_random_state(position["random"])


def random_state() -> RandomState:
    """The state of numpy's global generator, as JSON."""
    state: Any = np.random.get_state(legacy=True)
    name, keys, *rest = state
    return [name, keys.tolist(), *rest]


def set_random_state(state: RandomState) -> None:
    """Put numpy's global generator into ``state``."""
    name, keys, *rest = state
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
