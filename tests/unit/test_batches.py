"""The order of rows and what becomes of long ones: every row once in every epoch, exact from any position."""

from __future__ import annotations

from itertools import islice
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset

from mcp_server.datasets import lengths as figures
from mcp_server.errors import DataError
from mcp_server.planning.rows import RowLengths
from mcp_server.training.options import TrainingOptions
from mcp_server.workers.batches import Batch, BatchOrder, BucketedOrder, Share, StockOrder, make_order
from mcp_server.workers.losses import masked_loss, target_mask, weighed
from mcp_server.workers.tokens import TokenRows, to_device
from mcp_server.workers.validation import Validation


class Numbers:
    """A data set whose row n is (tokens, prompt tokens) of given lengths, all its tokens n + 1."""

    def __init__(self, lengths: list[int], prompt: int = 0) -> None:
        self._lengths, self._prompt = lengths, prompt
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, row: int) -> dict[str, int]:
        return {"row": row}

    def process(self, row: dict[str, int]) -> tuple[list[int], int]:
        self.read.append(row["row"])
        return [row["row"] + 1] * self._lengths[row["row"]], self._prompt


def options(**changes: Any) -> TrainingOptions:
    return TrainingOptions.model_validate({"model": "m", "data": "d", "batch_size": 4, "max_seq_length": 64} | changes)


def rows_of(lengths: list[int], prompt: int = 0, **changes: Any) -> TokenRows:
    return TokenRows(Numbers(lengths, prompt), "train.jsonl", options(**changes), None)


def realistic(count: int, seed: int = 0) -> list[int]:
    """Log-normal lengths with median 200, up to 2,048 tokens."""
    draw = np.random.default_rng(seed).lognormal(np.log(200), 0.9, count)
    return np.clip(draw, 8, 2048).astype(int).tolist()


def epoch(order: BatchOrder, steps: int) -> list[Batch]:
    return list(islice(order.batches(), steps))


@pytest.mark.parametrize(("count", "size"), [(1, 4), (7, 4), (8, 4), (403, 4), (1000, 3), (403, 512)])
def test_every_row_comes_once_in_every_epoch(count: int, size: int):
    order = BucketedOrder(rows_of(realistic(count), max_seq_length=2048), size, seed=1)
    steps = options(batch_size=size).steps_per_epoch(count)
    assert steps == -(-count // size)
    for _ in range(3):
        batches = epoch(order, steps)
        seen = [piece for batch in batches for piece in batch]
        assert sorted(seen) == sorted(set(seen)) == list(range(count))
        assert sorted(map(len, batches)) == sorted([size] * (count // size) + [count % size] * bool(count % size))


def test_epochs_and_seeds_mix_rows_anew_and_the_same_seed_gives_the_same():
    lengths = realistic(200)
    batches = [epoch(BucketedOrder(rows_of(lengths, max_seq_length=2048), 4, seed), 100) for seed in (0, 0, 1)]
    by_row = [[order[:50], order[50:]] for order in batches]
    assert batches[0] == batches[1]
    first, second = ({frozenset(batch) for batch in half} for half in by_row[0])
    assert len(first & second) < 10, "other rows meet in the second epoch"
    assert batches[0] != batches[2]


def test_rows_of_a_batch_are_alike_and_much_less_is_padding_than_in_stocks_batches():
    lengths = realistic(2000)
    rows = rows_of(lengths, max_seq_length=2048)
    useful = {}
    for name, order in (("bucketed", BucketedOrder(rows, 4, 0)), ("stock", StockOrder(rows, 4))):
        batches = epoch(order, 500)
        places = sum(rows.batch(batch)[0].size for batch in batches)
        useful[name] = sum(rows.length(piece) for batch in batches for piece in batch) / places
    assert useful["bucketed"] > 0.9
    assert useful["bucketed"] > 1.4 * useful["stock"]


@pytest.mark.parametrize("bucketed", [True, False])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_plan_reckons_the_padding_that_training_has(bucketed: bool, size: int):
    lengths = realistic(2000)
    chosen = options(batch_size=size, max_seq_length=2048, length_bucketing=bucketed)
    known = RowLengths(
        rows=2000,
        valid_rows=0,
        test_rows=0,
        format="text",
        longest=max(lengths),
        p50=200,
        p90=600,
        p99=1600,
        mean=280.0,
        counted_by="the model's tokenizer",
        sample=lengths[:200],
    )
    rows = rows_of(lengths, batch_size=size, max_seq_length=2048)
    batches = epoch(make_order(rows, chosen), 2000 // size)
    places = sum(rows.batch(batch)[0].size for batch in batches)
    padding, width = known.padding(chosen)
    assert padding == pytest.approx(1 - sum(lengths) / places, abs=0.04)
    assert width == pytest.approx(places / 2000, rel=0.12)


def test_run_begins_with_the_longest_batch_of_its_first_window():
    for seed in range(5):
        rows = rows_of(realistic(400, seed), max_seq_length=2048)
        batches = epoch(BucketedOrder(rows, 4, seed), figures.window_batches(400, 4))
        longest = [max(map(rows.length, batch)) for batch in batches]
        assert longest[0] == max(longest)


@pytest.mark.parametrize("taken", [0, 1, 13, 14, 15, 27, 40])
def test_order_goes_on_exactly_from_any_position(taken: int):
    lengths = realistic(55)  # 13 whole batches and one of three rows
    whole = epoch(BucketedOrder(rows_of(lengths, max_seq_length=2048), 4, seed=5), 60)
    rows = rows_of(lengths, max_seq_length=2048)
    order = BucketedOrder(rows, 4, seed=5)
    told = [[rows.length(piece) for piece in batch] for batch in epoch(order, taken)]
    position = order.position()
    again_rows = rows_of(lengths, max_seq_length=2048)
    again = BucketedOrder(again_rows, 4, seed=5)
    again.restore(position)
    for left, right in zip(whole[taken:], epoch(again, 60 - taken), strict=True):
        # Pieces are numbered as they are read; their tokens say which row they are.
        assert [int(again_rows.tokens(piece)[0]) for piece in right] == [
            row_number(lengths, piece, whole) for piece in left
        ]
    assert len(told) == taken


@pytest.mark.parametrize("taken", [0, 1, 9, 10, 14])
def test_stocks_order_goes_on_exactly_though_validation_draws_between(taken: int):
    """An epoch has ten batches; both draw from numpy's global generator."""

    def told(order: StockOrder, start: int, end: int) -> list[Batch]:
        found: list[Batch] = []
        for number, batch in enumerate(islice(order.batches(), end - start), start):
            found.append([int(order.rows.tokens(piece)[0]) for piece in batch])
            if number % 4 == 3:
                np.random.permutation(5)
        return found

    np.random.seed(3)
    whole = told(StockOrder(rows_of([20] * 40, stock=True), 4), 0, 35)
    np.random.seed(3)
    begun = StockOrder(rows_of([20] * 40, stock=True), 4)
    assert told(begun, 0, taken) == whole[:taken]
    position = begun.position()
    np.random.seed(99)  # another process
    again = StockOrder(rows_of([20] * 40, stock=True), 4)
    again.restore(position)
    assert told(again, taken, 35) == whole[taken:]


def row_number(lengths: list[int], piece: int, whole: list[Batch]) -> int:
    """The token that the row of ``piece`` of the uninterrupted order is made of."""
    rows = rows_of(lengths, max_seq_length=2048)
    for _ in epoch(BucketedOrder(rows, 4, seed=5), len(whole)):
        pass
    return int(rows.tokens(piece)[0])


def test_other_data_batches_or_order_begin_a_new_epoch():
    order = BucketedOrder(rows_of([20] * 40), 4, seed=0)
    epoch(order, 3)
    position = order.position()
    for changed in (
        BucketedOrder(rows_of([20] * 41), 4, seed=0),
        BucketedOrder(rows_of([20] * 40), 8, seed=0),
        BucketedOrder(rows_of([20] * 40), 4, seed=1),
    ):
        changed.restore(position)
        assert (changed.position()["epoch"], changed.position()["taken"]) == (1, 0)
    stock = StockOrder(rows_of([20] * 40, stock=True), 4)
    stock.restore(position)
    assert len(next(stock.batches())) == 4
    order.restore(stock.position())
    assert order.position()["taken"] == 0


def test_only_rows_that_a_run_reaches_are_tokenized():
    rows = rows_of([20] * 10_000)
    order = BucketedOrder(rows, 4, seed=0)
    assert len(list(order.coming(60))) == 60
    assert rows.seen.rows == 400
    assert order.position()["taken"] == 0
    assert len(epoch(order, 60)) == 60


def test_looking_ahead_sees_what_comes_and_no_more_than_the_rest_and_an_epoch():
    order = BucketedOrder(rows_of(realistic(50)), 4, seed=2)
    epoch(order, 5)
    coming = list(order.coming(10_000))
    assert len(coming) == (13 - 5) + 13
    assert epoch(order, len(coming)) == coming


@pytest.mark.parametrize("grown", [{"stock": True}, {"length_bucketing": False}])
def test_without_bucketing_batches_are_stocks_own(grown: dict[str, Any]):
    lengths = [int(n) % 70 + 2 for n in np.random.default_rng(0).integers(0, 1000, 30)]
    data = CacheDataset(Numbers(lengths, prompt=1))
    np.random.seed(7)
    stock = list(islice(trainer.iterate_batches(data, 4, 64, loop=True), 20))
    np.random.seed(7)
    order = make_order(rows_of(lengths, prompt=1, **grown), options(**grown))
    for (tokens, spans), (weight, parts) in zip(stock, order, strict=False):
        assert weight == 1
        ((ours, where),) = parts
        assert ours.dtype == tokens.dtype
        assert mx.array_equal(ours, tokens)
        assert mx.array_equal(where, spans)
        if mx.array_equal(tokens, stock[-1][0]):
            break


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_a_batch_as_mlx_lm_does(ranks: int):
    batch = list(range(100, 108))
    for rank in range(ranks):
        assert Share(1, rank, ranks).of(batch) == [batch[rank : rank + 8 : ranks]]
    parts = [part for rank in range(ranks) for part in Share(2, rank, ranks).of(batch)]
    assert sorted(piece for part in parts for piece in part) == batch


class _Next(nn.Module):
    """A model whose loss depends on every token of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 8)

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.embed.as_linear(mx.cumsum(self.embed(tokens), axis=1) / 8)


def shared_loss(model: nn.Module, order: BatchOrder) -> tuple[float, int, mx.array]:
    """Summed losses, trained tokens and summed gradient of what ``order`` gives of its next batch."""
    total, tokens, gradient = 0.0, 0, mx.zeros((16, 8))
    _, parts = next(iter(order))
    for arrays in parts:
        loss = weighed(masked_loss) if len(arrays) == 3 else masked_loss
        (value, count), found = nn.value_and_grad(model, loss)(model, *arrays)
        total += cast(float, value.item())
        tokens += cast(int, count.item())
        gradient += found["embed"]["weight"]
    return total, tokens, gradient


@pytest.mark.parametrize("kind", ["spans", "masks", "cut"])
@pytest.mark.parametrize(("parts", "ranks"), [(1, 2), (1, 4), (2, 1), (3, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_shares_of_a_batch_have_its_loss_gradient_and_tokens_however_few_its_rows(
    size: int, parts: int, ranks: int, kind: str
):
    """Rows of unequal length, so that shares have unequal numbers of tokens; with few rows some have none."""
    lengths = [9, 40, 12, 7, 64, 25, 33, 10][:size]
    chosen = {"max_seq_length": 33} if kind == "cut" else {}
    rows = _masked(lengths) if kind == "masks" else rows_of(lengths, prompt=5, **chosen)
    mx.random.seed(0)
    model = _Next()
    whole, tokens, gradient = shared_loss(model, BucketedOrder(rows, 8, seed=1))
    number = parts * ranks
    found = [shared_loss(model, BucketedOrder(rows, 8, 1, Share(parts, rank, ranks))) for rank in range(ranks)]
    assert sum(loss for loss, _, _ in found) / number == pytest.approx(whole, abs=1e-6)
    assert sum(count for _, count, _ in found) == tokens
    apart = sum(own for _, _, own in found) / number - gradient
    assert float(mx.abs(apart).max()) < 1e-6 < float(mx.abs(gradient).max())


def test_a_part_without_a_trained_token_is_no_nan_after_an_out_of_memory():
    """Stock keeps rows whose prompt fills the window; alone in a part their mean loss would be 0/0."""
    rows = rows_of([8, 40, 9, 30], prompt=20, stock=True, batch_size=4)
    mx.random.seed(0)
    model = _Next()
    loss, tokens, gradient = shared_loss(model, StockOrder(rows, 4))
    share = Share(4, plain=True)
    apart, counted, summed = shared_loss(model, StockOrder(rows, 4, share))
    assert counted == tokens and apart / 4 == pytest.approx(loss, abs=1e-6)
    assert float(mx.abs(summed / 4 - gradient).max()) < 1e-6 < float(mx.abs(gradient).max())


class _EveryThird:
    """Stands where the mask of every answer does: of a row of ``lengths`` every third token is trained."""

    def of(self, data: Numbers, row: dict[str, int]) -> tuple[list[int], bytes]:
        ids, _ = data.process(row)
        return ids, bytes(place % 3 == 2 for place in range(len(ids)))


def _masked(lengths: list[int]) -> TokenRows:
    rows = rows_of(lengths)
    vars(rows)["_mask"] = _EveryThird()
    return rows


@pytest.mark.parametrize(("size", "parts", "ranks"), [(3, 1, 2), (5, 2, 2), (1, 1, 2), (3, 3, 1)])
def test_with_stock_ranks_count_alike_whatever_their_tokens(size: int, parts: int, ranks: int):
    """mlx-lm's mean over the ranks of each rank's mean; a rank without a row, which it does not know, is left out."""
    rows = rows_of([9, 40, 12, 7, 64][:size])
    batch = next(StockOrder(rows, 8).batches())
    model = _Next()
    own = [batch[rank::ranks] for rank in range(ranks) if batch[rank::ranks]]
    means: list[Any] = [masked_loss(model, *rows.batch(mine))[0].item() for mine in own]
    shares = [Share(parts, rank, ranks, plain=True) for rank in range(ranks)]
    found = sum(shared_loss(model, StockOrder(rows, 8, share))[0] for share in shares)
    assert found / (parts * ranks) == pytest.approx(sum(means) / len(means), abs=1e-6)


@pytest.mark.parametrize("kind", ["spans", "masks"])
def test_every_trained_token_of_an_epoch_counts_the_same_in_batches_of_like_length(kind: str):
    """The epoch's weighted gradients add up to that of all rows in one batch, whose mean is over tokens, and stock's don't."""
    lengths = [3, 60, 4, 5, 61, 33, 6, 20, 50, 7, 3]
    rows = _masked(lengths) if kind == "masks" else rows_of(lengths)
    model = _Next()
    pieces = [piece for row in range(len(lengths)) for piece in rows.pieces(row)]
    (_, tokens), whole = nn.value_and_grad(model, masked_loss)(model, *rows.batch(pieces))
    order = BucketedOrder(rows, 2, seed=1)
    weighted, alike, usual = mx.zeros((16, 8)), mx.zeros((16, 8)), []
    for batch, (weight, parts) in zip(list(order.coming(6)), order, strict=False):
        (arrays,) = parts
        assert arrays[2].item() == pytest.approx(weight)
        (_, counted), found = nn.value_and_grad(model, masked_loss)(model, *rows.batch(batch))
        weighted += weight * found["embed"]["weight"]
        alike += found["embed"]["weight"]
        usual.append(cast(int, counted.item()) / weight)
    assert usual == pytest.approx([usual[0]] * 6)
    apart = mx.abs(weighted * usual[0] / tokens - whole["embed"]["weight"]).max()
    assert float(apart) < 1e-6 < float(mx.abs(alike / 6 - whole["embed"]["weight"]).max())


def test_a_usual_batch_is_the_same_after_a_resume_and_for_every_rank():
    lengths = [5 + 7 * (n % 9) for n in range(40)]
    order = BucketedOrder(rows_of(lengths), 4, seed=2)
    first = [weight for weight, _ in islice(order, 13)]
    assert sum(first[:10]) / 10 == pytest.approx(1, abs=0.3)
    again = BucketedOrder(rows_of(lengths), 4, seed=2, share=Share(1, 1, 2))
    again.restore(order.position() | {"taken": 0, "epoch": 1})
    assert [weight for weight, _ in islice(again, 3)] == first[10:]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_batch_of_all_rows_is_a_usual_one_though_they_are_fewer_than_a_batch(count: int):
    order = BucketedOrder(rows_of([9, 20, 31, 5][:count]), 4, seed=0)
    assert [weight for weight, _ in islice(order, 2)] == pytest.approx([1, 1])


@pytest.mark.parametrize("rows", range(1, 9))
@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_small_last_batch_still_has_every_part(rows: int, parts: int):
    found = Share(parts).of(list(range(rows)))
    assert len(found) == parts
    assert [piece for part in found for piece in part] == list(range(rows))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_long_rows_are_cut_split_or_dropped():
    lengths = [20, 150, 64, 65]
    cut, split, drop = (rows_of(lengths, excess_length_strategy=how) for how in ("truncate", "split", "drop"))
    pieces = {
        name: [list(rows.pieces(n)) for n in range(4)]
        for name, rows in (("cut", cut), ("split", split), ("drop", drop))
    }
    assert [[cut.length(p) for p in row] for row in pieces["cut"]] == [[20], [64], [64], [64]]
    # Windows overlap by a token: each but the first of the row is predicted once.
    assert [[split.length(p) for p in row] for row in pieces["split"]] == [[20], [64, 64, 24], [64], [64, 2]]
    assert sum(int(split.trained(p).sum()) for p in pieces["split"][1]) == 149
    assert [[drop.length(p) for p in row] for row in pieces["drop"]] == [[20], [], [64], []]
    assert (cut.seen.cut, cut.seen.tokens_lost) == (2, 87)
    assert (split.seen.split, split.seen.windows, split.seen.tokens_lost) == (2, 5, 0)
    assert (drop.seen.dropped, drop.seen.tokens_lost) == ([1, 3], 215)


def test_windows_without_an_answer_are_left_out():
    rows = rows_of([300], prompt=130, excess_length_strategy="split")
    spans: list[Any] = [rows.batch([piece])[1].tolist() for piece in rows.pieces(0)]
    assert [span for (span,) in spans] == [
        [4, 64],
        [0, 64],
        [0, 48],
    ]  # of windows that begin at tokens 126, 189 and 252
    assert sum(int(rows.trained(piece).sum()) for piece in rows.pieces(0)) == 300 - 130


def test_row_whose_prompt_fills_the_window_is_left_out_and_all_of_them_are_refused():
    rows = rows_of([100] * 3, prompt=64)
    assert [len(rows.pieces(row)) for row in range(3)] == [0, 0, 0]
    assert rows.seen.untrained == [0, 1, 2]
    for order in (BucketedOrder(rows, 2, 0), StockOrder(rows, 2)):
        with pytest.raises(DataError, match=r"train\.jsonl:1"):
            next(order.batches())


def test_span_trains_what_mlx_lm_trains():
    rows = rows_of([40, 20], prompt=5)
    batch = [rows.pieces(row)[0] for row in range(2)]
    tokens, where = rows.batch(batch)
    assert tokens.shape == (2, 65 - 1)
    counted = target_mask(tokens, where).sum(axis=1).tolist()
    # One more than is true: mlx-lm's span lets in the first token of padding.
    assert counted == [36, 16]
    assert [int(rows.trained(piece).sum()) for piece in batch] == [35, 15]


def test_validation_has_every_row_or_always_the_same_ones():
    rows = rows_of(realistic(30), max_seq_length=2048)
    every = Validation(rows, options(), -1)
    assert sorted(piece for batch in every.batches() for piece in batch) == list(range(30))
    assert len(every) == 8
    some = Validation(rows, options(), 3)
    assert sum(map(len, some.batches())) == 12
    assert some.batches() == Validation(rows, options(seed=9), 3).batches()
    assert len(Validation(rows_of(realistic(30), stock=True), options(stock=True), -1)) == 7


@pytest.mark.parametrize("stock", [False, True])
def test_validation_after_an_out_of_memory_holds_fewer_rows_at_once_and_gives_the_same_loss(stock: bool):
    """One row has nothing to learn and would have no mean alone."""
    rows = rows_of([9, 40, 4, 7, 64, 25, 33, 10], prompt=5, stock=stock)
    mx.random.seed(0)
    model, found, most = _Next(), [], []
    sizes: list[int] = []

    def seen(model: nn.Module, tokens: mx.array, where: mx.array) -> tuple[mx.array, mx.array]:
        sizes.append(tokens.shape[0])
        return masked_loss(model, tokens, where)

    for parts in (1, 2, 4):
        np.random.seed(1)
        sizes.clear()
        found.append(Validation(rows, options(stock=stock), -1, Share(parts)).loss(model, seen))
        most.append(max(sizes))
    assert found[1:] == pytest.approx([found[0]] * 2, abs=1e-6)
    assert most == [4, 2, 1]


def test_array_that_the_allocator_could_not_move_is_made_again_without_its_cache(monkeypatch: pytest.MonkeyPatch):
    """CUDA alone: the error is MLX's, seen once on two H200s; any other is the caller's."""
    make, said = mx.array, ["cudaMemcpy(data, buf.data, buf.size, kind) failed: invalid argument"]

    def flaky(values: Any) -> mx.array:
        if said:
            raise RuntimeError(said.pop())
        return make(values)

    monkeypatch.setattr(mx, "array", flaky)
    assert to_device(np.arange(3, dtype=np.int32)).tolist() == [0, 1, 2]
    assert not said
    said += ["cudaMemcpy failed", "cudaMemcpy failed"]
    with pytest.raises(RuntimeError, match="cudaMemcpy"):
        to_device(np.arange(3))
    said += ["out of memory"]
    with pytest.raises(RuntimeError, match="out of memory"):
        to_device(np.arange(3))
