"""What to give up, in which order, until a training fits: least harm to the result first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mcp_server.planning import memory
from mcp_server.planning.budget import TIGHT
from mcp_server.planning.check import Expectation
from mcp_server.planning.rows import RowLengths

Step = tuple[dict[str, Any], str]


class Smaller:
    """A training that fits: its expectation, the options that changed, and why each."""

    def __init__(self, expected: Expectation, changes: dict[str, Any], cut: list[str]) -> None:
        self.expected = expected
        self.changes = changes
        self.cut = cut


def smallest_harm(expected: Expectation, lengths: RowLengths) -> Smaller | None:
    """What fits with room to spare or, if nothing does, what fits at all (``judge`` then calls it tight)."""
    return shrink(expected, lengths) or shrink(expected, lengths, tight=True)


def shrink(expected: Expectation, lengths: RowLengths, *, tight: bool = False) -> Smaller | None:
    """The first of the ladder's steps that fits; None when the last does not. Nothing changes when it fits as it is."""
    now = expected
    changes: dict[str, Any] = {}
    cut: dict[str, str] = {}  # by the first option of a step: what was cut further is said once
    if fits(now, tight=tight):
        return Smaller(now, changes, [])
    for rung in _RUNGS:
        for change, why in rung(now, lengths):
            then = _with(now, change, lengths)
            if then.peak >= now.peak:
                continue  # it saves nothing here (the loss may make the peak, not the layers): not given up for nothing
            now = then
            changes |= change
            cut[next(iter(change))] = why
            if fits(now, tight=tight):
                return _give_back(expected, Smaller(now, changes, []), cut, lengths, tight=tight)
    return None


def _with(now: Expectation, change: dict[str, Any], lengths: RowLengths) -> Expectation:
    options = now.options.model_copy(update=change)
    return Expectation(now.shape, options, memory.padded(lengths.longest, options.max_seq_length), now.budget)


def _give_back(
    wanted: Expectation, found: Smaller, cut: dict[str, str], lengths: RowLengths, *, tight: bool
) -> Smaller:
    """Undo what a later, larger step has made needless."""
    for name in ("num_layers", "lora_parameters", "grad_checkpoint", "cuda_graphs"):
        if name in found.changes and len(cut) > 1:
            back = _with(found.expected, {name: getattr(wanted.options, name)}, lengths)
            if fits(back, tight=tight):
                del cut[name]
                rest = {key: value for key, value in found.changes.items() if key != name}
                found = Smaller(back, rest, [])
    return Smaller(found.expected, found.changes, list(cut.values()))


def fits(expected: Expectation, *, tight: bool = False) -> bool:
    """Whether the peak stays below the limit with room to spare, erring as far as seen; ``tight``: just below it."""
    if tight:
        return expected.peak <= expected.budget.limit
    return expected.peak <= TIGHT * expected.budget.limit and expected.high <= expected.budget.limit


def _graphs(now: Expectation, _: RowLengths) -> Iterator[Step]:
    if now.budget.backend == "linux-cuda" and now.options.cuda_graphs is None and not now.options.grad_checkpoint:
        yield {"cuda_graphs": True}, "cuda_graphs: less memory, slower where rows have many lengths"


def _checkpoint(now: Expectation, _: RowLengths) -> Iterator[Step]:
    if not now.options.grad_checkpoint:
        yield {"grad_checkpoint": True}, "grad_checkpoint: activations are computed twice, about a third slower"


def _batch(now: Expectation, _: RowLengths) -> Iterator[Step]:
    options = now.options
    batch, accumulated, iters = options.batch_size, options.grad_accumulation_steps, options.iters
    while (share := batch // now.budget.ranks) > 1:
        factor = 2 if share % 2 == 0 else share
        batch, accumulated, iters = batch // factor, accumulated * factor, iters * factor
        change = {"batch_size": batch, "grad_accumulation_steps": accumulated, "iters": iters}
        if (
            options.val_batches > 0
        ):  # batches too: as many rows as before, or the losses of two plans mean different things
            change["val_batches"] = options.val_batches * options.batch_size // batch
        yield change, f"batch_size {batch} with {accumulated} accumulated steps: the same update from smaller pieces"


def _window(now: Expectation, lengths: RowLengths) -> Iterator[Step]:
    for share, length in (("99", lengths.p99), ("90", lengths.p90)):
        window = memory.PAD * -(-length // memory.PAD) + 1
        if window < min(now.options.max_seq_length, lengths.longest):
            yield (
                {"max_seq_length": window},
                f"max_seq_length {window}: {100 - int(share)} % of the rows are cut at their end",
            )


def _layers(now: Expectation, _: RowLengths) -> Iterator[Step]:
    layers = memory.trained_layers(now.shape, now.options)
    while layers > 1:
        layers = max(layers // 2, 1)
        yield {"num_layers": layers}, f"num_layers {layers}: the last {layers} of {now.shape.layers} layers are trained"


def _rank(now: Expectation, _: RowLengths) -> Iterator[Step]:
    options = now.options
    if options.fine_tune_type == "full":
        yield (
            {"fine_tune_type": "lora", "learning_rate": 2 * options.learning_rate},  # halved for full (recipe.py)
            "fine_tune_type lora: full fine-tuning keeps gradients and two moments of all weights",
        )
    rank = options.lora_parameters.rank
    if rank > 8:
        smaller = options.lora_parameters.model_copy(update={"rank": 8})
        yield {"lora_parameters": smaller}, "rank 8"


def _short(now: Expectation, lengths: RowLengths) -> Iterator[Step]:
    """The last resort: windows that cut most rows are still better than no training at all."""
    window = now.options.max_seq_length
    while window > 257:
        window = max(257, memory.PAD * (window // 2 // memory.PAD) + 1)
        if window < lengths.longest:
            yield {"max_seq_length": window}, f"max_seq_length {window}: longer rows are cut at their end"


_RUNGS: tuple[Callable[[Expectation, RowLengths], Iterator[Step]], ...] = (
    _graphs,
    _checkpoint,
    _batch,
    _window,
    _rank,
    _layers,
    _short,
)
