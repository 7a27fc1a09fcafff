"""The probe worker: steps of the very training that is planned, at its worst batch and at a usual one."""

from __future__ import annotations

import statistics
import time
from typing import Any

import mlx.core as mx
import numpy as np
import psutil

from mcp_server.errors import DataError
from mcp_server.planning import memory
from mcp_server.planning.probe import ProbeOptions, ProbeResult, total_seconds
from mcp_server.platform import facts as machine
from mcp_server.training import measures
from mcp_server.training.options import TrainingOptions
from mcp_server.workers import job, train
from mcp_server.workers.batches import Batch, make_order
from mcp_server.workers.guard import guard
from mcp_server.workers.loading import load_model
from mcp_server.workers.losses import Loss
from mcp_server.workers.proof import choose_loss
from mcp_server.workers.steps import run_steps
from mcp_server.workers.tokens import TokenRows
from mcp_server.workers.validation import Validation

_LOOKED_AT = 100  # batches whose padded length is worked out
_TIMED_SECONDS, _MOST_TIMED = 4.0, 12  # how long, and how often at most, steps of one length are timed


def probe(worker: job.WorkerJob) -> dict[str, Any]:
    """Measure as the spec says; the result for ``outcome.json``."""
    asked = ProbeOptions.model_validate(worker.spec.options)
    options = asked.training
    np.random.seed(options.seed)
    worker.phase("loading model", model=options.model)
    model, tokenizer = load_model(options.model)
    train_set, valid_set, _ = train.load_data(options, tokenizer, worker)
    mx.random.seed(options.seed)
    train.make_trainable(model, options)
    optimizer = guard(train.make_optimizer(options), options)
    mx.eval(model.parameters())
    load_seconds = time.time() - psutil.Process().create_time()  # importing mlx-lm is most of it for a small model
    worker.phase("looking at batches")
    lengths = _batch_lengths(train_set, options)
    backend, _ = machine.backend(machine.collect())
    coarse = measures.coarse_chunks(backend, quantized=measures.quantized_base(options.model))
    first = train_set.batch(next(make_order(train_set, options).coming(1)))
    loss, _ = choose_loss(model, options, first, coarse=coarse)
    usual = sorted(lengths)[len(lengths) // 2]
    vocabulary = len(tokenizer.get_vocab())

    def steps(tokens: int, count: int, *, again: bool = True) -> list[float]:
        # mlx-lm patches the layer class for checkpointing, and twice would be twice: only the first round asks for it.
        asked_for = options.model_copy(update={"grad_checkpoint": False}) if again else options
        worker.check_stop()
        return run_steps(model, optimizer, asked_for, [tokens] * count, vocabulary, worker.folder.path, loss)

    worker.phase("two steps at the worst batch", total=4, tokens=asked.tokens)
    _, second = steps(asked.tokens, 2, again=False)
    peak = mx.get_peak_memory()
    worker.events.write("progress", name="worst batch", step=2, total=4)
    # Short steps are timed more often, since machines are busy.
    count = max(1, min(_MOST_TIMED, int(_TIMED_SECONDS / max(second, 1e-3))))
    worst = statistics.median([second, *steps(asked.tokens, count + 1)[1:]])
    near = usual if usual != asked.tokens else max(memory.PAD, asked.tokens // 2 // memory.PAD * memory.PAD)
    first_near, *timed = steps(near, count + 1)
    usual_seconds = statistics.median(timed)
    worker.events.write("progress", name="usual batch", step=4, total=4)
    pace = _line((near, usual_seconds), (asked.tokens, worst))
    step = sum(max(pace(length), 0.0) for length in lengths) / len(lengths)
    validation = _validation_seconds(model, valid_set, options, loss)
    # Each shape's first step traces it. The very first one compiles kernels too, which back ends keep: the run finds them.
    tracing = len(set(lengths)) * max(first_near - usual_seconds, 0.0)
    return ProbeResult(
        peak_memory_gb=round(peak / 1e9, 4),
        peak_bytes=peak,
        worst_tokens=asked.tokens,
        worst_step_seconds=round(worst, 4),
        usual_tokens=usual,
        usual_step_seconds=round(max(pace(usual), 0.0), 4),
        seconds_per_step=round(step, 4),
        load_seconds=round(load_seconds + tracing, 2),
        validation_seconds=round(validation, 3),
        total_seconds=round(total_seconds(options, step, load_seconds + tracing, validation), 1),
        batches_looked_at=len(lengths),
    ).model_dump()


def _line(one: tuple[int, float], other: tuple[int, float]) -> Any:
    """Seconds of a step as a straight line through two measured lengths."""
    (a, s), (b, t) = one, other
    slope = (t - s) / (b - a) if b != a else 0.0
    return lambda length: s + slope * (length - a)


def _batch_lengths(rows: TokenRows, options: TrainingOptions) -> list[int]:
    """Tokens a row of the run's own first batches, padded."""
    batches = make_order(rows, options).coming(_LOOKED_AT)
    found = [memory.padded(max(map(rows.length, batch)), options.max_seq_length) for batch in batches]
    if not found:
        raise DataError(f"no row of train.jsonl can be learnt within max_seq_length={options.max_seq_length}; raise it")
    return found


def _validation_seconds(model: Any, rows: TokenRows | None, options: TrainingOptions, loss: Loss) -> float:
    """One validation, reckoned from some of its batches after a warm-up: rows differ in length."""
    if rows is None:
        return 0.0
    whole = Validation(rows, options, options.val_batches)
    batches = whole.batches()
    model.eval()

    def evaluate(chosen: list[Batch]) -> float:
        began = time.perf_counter()
        for batch in chosen:
            mx.eval(loss(model, *rows.batch(batch)))
        return time.perf_counter() - began

    middle = [batches[len(batches) // 2]]
    evaluate(middle)
    count = max(1, min(len(whole), int(_TIMED_SECONDS / max(evaluate(middle), 1e-3))))
    chosen = batches[:: -(-len(batches) // count)]
    return evaluate(chosen) / len(chosen) * len(whole)


if __name__ == "__main__":
    job.run(probe)
