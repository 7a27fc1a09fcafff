"""The order in which rows become batches: random, the same for the same seed, and continued exactly from any position.

``StockOrder`` is mlx-lm's own: fixed slices of the rows in file order (its sort by length compares the number of keys), in
an order drawn anew for each epoch from numpy's global generator, which validation draws from too; the last rows that fill
no batch are left out. ``BucketedOrder`` puts rows of like length together and gives every row once in every epoch.

Batches are lists of *pieces* (``tokens.TokenRows``). Both orders are global: every rank knows each whole batch and takes its
``Share`` of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice, pairwise
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset

from mcp_server.datasets.lengths import window_batches
from mcp_server.errors import DataError
from mcp_server.training.options import TrainingOptions
from mcp_server.workers.tokens import TokenRows, to_device

RandomState = list[Any]
Batch = list[int]


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


@dataclass(frozen=True)
class Share:
    """What rank ``rank`` of ``ranks`` takes of a batch, as mlx-lm shares it, in ``parts`` whose gradients the trainer adds up.

    The trainer takes the plain mean over ranks and parts, each of which gives the mean over its own trained tokens. For S_i
    the sum and n_i the tokens of share i of N that is 1/N Σ S_i/n_i, and of the batch in one piece it is Σ S_i / Σ n_i: each
    share is therefore weighted by N n_i / Σ n. With ``plain`` all ranks that have a row count alike, as in mlx-lm.
    """

    parts: int = 1
    rank: int = 0
    ranks: int = 1
    plain: bool = False

    @property
    def number(self) -> int:
        """Shares of a batch, those of all ranks together."""
        return self.parts * self.ranks

    def of(self, batch: Batch) -> list[Batch]:
        """The parts, which differ by at most one row; in a batch with fewer rows than shares some are empty."""
        mine = self._own(batch)
        ends = [len(mine) * part // self.parts for part in range(self.parts + 1)]
        return [mine[start:end] for start, end in pairwise(ends)]

    def weight(self, part: Batch, batch: Batch, rows: TokenRows) -> float:
        """What the mean loss of ``part`` is multiplied by."""
        number: float = self.number
        if self.plain:
            number /= min(self.ranks, len(batch))
            batch = self._own(batch)
        return number * sum(map(rows.counted, part)) / max(1, sum(map(rows.counted, batch)))

    def _own(self, batch: Batch) -> Batch:
        return batch[self.rank :: self.ranks]


class BatchOrder:
    """Batch after batch without end."""

    def __init__(self, rows: TokenRows, batch_size: int, share: Share | None = None) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self._share = share or Share()

    @property
    def weighs(self) -> bool:
        """Whether the loss is ``losses.weighed``: of shares of a batch, or since batches don't count alike."""
        return self._share.number > 1

    def weight(self, batch: Batch) -> float:
        """What the mean loss of ``batch`` is multiplied by: in mlx-lm every batch counts alike, whatever it holds."""
        return 1.0

    def __iter__(self) -> Iterator[tuple[float, Iterator[tuple[mx.array, ...]]]]:
        """Each batch: its weight, and its parts, made when asked for: the arguments of the loss, or of ``losses.weighed``."""
        for batch in self.batches():
            yield self.weight(batch), map(partial(self._arrays, batch), self._share.of(batch))

    def _arrays(self, batch: Batch, part: Batch) -> tuple[mx.array, ...]:
        if not self.weighs:
            return self.rows.batch(part)
        weight = self.weight(batch) * self._share.weight(part, batch, self.rows)
        # Of a part without a trained token (none of its rows has one, or it has no rows) stock's loss would be 0/0.
        arrays = self.rows.batch(part) if weight else self.rows.blank((part or batch)[0])
        return *arrays, to_device(np.array(weight, np.float32))

    def batches(self) -> Iterator[Batch]:
        """The whole batches from here on; what is taken of them is taken."""
        raise NotImplementedError

    def coming(self, batches: int) -> Iterator[Batch]:
        """The next ``batches`` batches without advancing, none of them much more than once."""
        raise NotImplementedError

    def position(self) -> dict[str, Any]:
        """Where the order stands, as JSON."""
        raise NotImplementedError

    def restore(self, position: dict[str, Any]) -> None:
        """Go on from ``position``; with other data or another order than it was taken on, a new epoch begins."""
        raise NotImplementedError


class StockOrder(BatchOrder):
    """mlx-lm's own batches."""

    def __init__(self, rows: TokenRows, batch_size: int, share: Share | None = None) -> None:
        super().__init__(rows, batch_size, share)
        ordered = sorted(range(len(rows)), key=rows.keys)
        if not rows.one_piece_each:
            ordered = [piece for row in ordered for piece in rows.pieces(row)]
        last = max(1, len(ordered) - batch_size + 1)  # of too few rows, one small batch
        self._slices = [ordered[at : at + batch_size] for at in range(0, last, batch_size) if ordered]
        self._epoch_start: RandomState | None = None
        self._permutation: list[int] = []
        self._taken = 0

    def batches(self) -> Iterator[Batch]:
        """As in the base class."""
        while self._slices:
            if self._taken >= len(self._permutation):
                self._epoch_start = random_state()
                self._permutation = np.random.permutation(len(self._slices)).tolist()
                self._taken = 0
            index = self._permutation[self._taken]
            self._taken += 1
            yield self._pieces(index)
        raise DataError(_nothing(self.rows))

    def epoch(self) -> Iterator[Batch]:
        """One epoch in an order of its own, drawn when the first batch is asked for."""
        yield from (self._pieces(index) for index in np.random.permutation(len(self._slices)))

    def coming(self, batches: int) -> Iterator[Batch]:
        """As in the base class."""
        if batches >= len(self._slices):
            return map(self._pieces, range(len(self._slices)))
        state = random_state()
        order = self._permutation[self._taken :] + np.random.permutation(len(self._slices)).tolist()
        set_random_state(state)
        return map(self._pieces, order[:batches])

    def position(self) -> dict[str, Any]:
        """As in the base class."""
        return {
            "epoch_start": self._epoch_start,
            "taken": self._taken,
            "slices": len(self._slices),
            "random": random_state(),
        }

    def restore(self, position: dict[str, Any]) -> None:
        """As in the base class."""
        if "slices" not in position:
            return
        if position["epoch_start"] is not None and position["slices"] == len(self._slices):
            set_random_state(position["epoch_start"])
            self._epoch_start = position["epoch_start"]
            self._permutation = np.random.permutation(len(self._slices)).tolist()
            self._taken = position["taken"]
        set_random_state(position["random"])

    def _pieces(self, index: int) -> Batch:
        rows = self._slices[index]
        return [self.rows.pieces(row)[0] for row in rows] if self.rows.one_piece_each else rows


class BucketedOrder(BatchOrder):
    """Rows of like length share a batch, and each row comes once in every epoch.

    An epoch: the rows are shuffled, cut into windows of many batches, each window sorted by length and cut into batches,
    which come in random order (as Hugging Face's group_by_length, but the batches of a window are shuffled too). All is
    drawn from (seed, epoch) alone, so a position is two numbers, every rank has the same order, and only the windows that a
    run reaches are tokenized. Rows left over in a window go into the next; the last batch of an epoch may be small. The
    first batch of all is the longest of its window, so that too little memory shows at once.

    A batch is weighted by its trained tokens, so that each token counts the same in training as it does in validation. Where
    batches of short rows counted as much as those of long ones, the loss after training was higher (benchmarks/quality.py).
    """

    @property
    def weighs(self) -> bool:
        """As in the base class."""
        return True

    def __init__(self, rows: TokenRows, batch_size: int, seed: int, share: Share | None = None) -> None:
        super().__init__(rows, batch_size, share)
        self._seed = seed
        self._window = batch_size * window_batches(len(rows), batch_size)
        self._epoch = 0
        self._taken = 0

    def batches(self) -> Iterator[Batch]:
        """As in the base class."""
        while True:
            found = False
            for batch in islice(self._of_epoch(self._epoch), self._taken, None):
                self._taken += 1
                found = True
                yield batch
            if not found and self._taken == 0:
                raise DataError(_nothing(self.rows))
            self._epoch, self._taken = self._epoch + 1, 0

    def weight(self, batch: Batch) -> float:
        """Its trained tokens by those of a usual batch."""
        return sum(map(self.rows.counted, batch)) / self._usual

    @cached_property
    def _usual(self) -> float:
        """Trained tokens of a batch, by the first rows that are read: the same number in every process of a run."""
        windows = self._windows(np.random.default_rng([self._seed, 0]))
        for rows in windows:
            counts = [self.rows.counted(piece) for row in rows for piece in self.rows.pieces(row)]
            if counts:
                # Of fewer rows than a batch takes, every batch is all of them.
                size = min(self.batch_size, len(counts)) if len(windows) == 1 else self.batch_size
                return max(1, sum(counts)) / len(counts) * size
        raise DataError(_nothing(self.rows))

    def coming(self, batches: int) -> Iterator[Batch]:
        """As in the base class."""
        rest = islice(self._of_epoch(self._epoch), self._taken, None)
        # A whole epoch has every row; what is left of this one comes on top.
        return islice(chain(rest, self._of_epoch(self._epoch + 1)), batches)

    def position(self) -> dict[str, Any]:
        """As in the base class."""
        return {"epoch": self._epoch, "taken": self._taken, "of": self._made_of()}

    def restore(self, position: dict[str, Any]) -> None:
        """As in the base class."""
        if position.get("of") == self._made_of():
            self._epoch, self._taken = position["epoch"], position["taken"]
        else:
            self._epoch, self._taken = position.get("epoch", 0) + 1, 0

    def _made_of(self) -> list[int]:
        return [len(self.rows), self.batch_size, self._seed]

    def _of_epoch(self, epoch: int) -> Iterator[Batch]:
        draw = np.random.default_rng([self._seed, epoch])
        left: Batch = []
        windows = self._windows(draw)
        for number, rows in enumerate(windows):
            pool = left + [piece for row in rows for piece in self.rows.pieces(row)]
            left, batches = _buckets(pool, self.batch_size, self.rows, draw)
            if left and number == len(windows) - 1:
                batches.append(left)
            order = draw.permutation(len(batches)).tolist()
            if epoch == number == 0 and batches:
                longest = max(order, key=lambda index: max(map(self.rows.length, batches[index])))
                order.remove(longest)
                order.insert(0, longest)
            yield from (batches[index] for index in order)

    def _windows(self, draw: np.random.Generator) -> list[list[int]]:
        """An epoch's rows, shuffled by ``draw``."""
        shuffled = draw.permutation(len(self.rows)).tolist()
        return [shuffled[start : start + self._window] for start in range(0, len(shuffled), self._window)]


def _buckets(pool: Batch, size: int, rows: TokenRows, draw: np.random.Generator) -> tuple[Batch, list[Batch]]:
    """Pieces of a window that fill no batch, and the batches of the others, by length.

    Those left over lie at a random place of the sorted window: neither long nor short rows wait longer.
    """
    pool = sorted(pool, key=rows.length)
    over = len(pool) % size
    at = int(draw.integers(len(pool) // size + 1)) * size
    left, rest = pool[at : at + over], pool[:at] + pool[at + over :]
    return left, [rest[start : start + size] for start in range(0, len(rest), size)]


def make_order(rows: TokenRows, options: TrainingOptions, share: Share | None = None) -> BatchOrder:
    """The order that ``options`` ask for."""
    if options.buckets:
        return BucketedOrder(rows, options.batch_size, options.seed, share)
    return StockOrder(rows, options.batch_size, share)


def _nothing(rows: TokenRows) -> str:
    return (
        f"nothing would be learnt from {rows.untrained_text()}: the prompt alone fills max_seq_length={rows.max_seq_length}, "
        "or every row is too long and dropped; raise max_seq_length or change the rows"
    )


def random_state() -> RandomState:
    """The state of numpy's global generator, as JSON."""
    state: Any = np.random.get_state(legacy=True)
    name, keys, *rest = state
    return [name, keys.tolist(), *rest]


def set_random_state(state: RandomState) -> None:
    """Put numpy's global generator into ``state``."""
    name, keys, *rest = state
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
