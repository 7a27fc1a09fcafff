"""The training worker: mlx-lm's own ``trainer.train``, watched and saved through its own extension points."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import tempfile
import time
import traceback
import types
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import build_schedule, linear_to_lora_layers
from mlx_lm.utils import get_total_parameters

from mcp_server.datasets.hub import name_of
from mcp_server.errors import ModelError, PathError, UserError
from mcp_server.jobs import events, recovery
from mcp_server.jobs.files import read_json, replace_atomic, write_atomic, write_json
from mcp_server.platform import facts as machine
from mcp_server.training import artifacts, curve, measures, schedule
from mcp_server.training.config import as_yaml
from mcp_server.training.options import TrainingOptions
from mcp_server.workers import checkpoints, job
from mcp_server.workers.guard import guard
from mcp_server.workers.hub import load_rows
from mcp_server.workers.loading import begin_with, load_model
from mcp_server.workers.loop import TrainingLoop, cache_threshold
from mcp_server.workers.proof import choose_loss
from mcp_server.workers.ranks import Ranks
from mcp_server.workers.reporting import make_reporter
from mcp_server.workers.rows import check_rows, progress
from mcp_server.workers.tokens import TokenRows
from mcp_server.workers.validation import Validation

_OPTIMIZERS = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}


class TrainingFailed(UserError):
    """The run can't go on; the message names the step, the last good checkpoint and the remedy."""


def train(worker: job.WorkerJob) -> dict[str, Any]:
    """Train as the spec says and publish the adapter; the result for ``outcome.json``."""
    options = TrainingOptions.model_validate(worker.spec.options)
    if not worker.leads:
        # A file of rank 0's machine: see _same_start.
        options = options.model_copy(update={"resume_adapter_file": None})
    lowered = recovery.read(worker.folder)
    checkpoint = worker.folder.last_checkpoint()
    if checkpoint is None and worker.spec.resume_from is not None:
        raise PathError(f"the checkpoint {worker.spec.resume_from} to go on from is gone; resume from another")
    if worker.spec.resume_from is not None and not worker.folder.metrics.exists():
        _begin_log(worker, Path(worker.spec.resume_from), options.iters)
    write_atomic(worker.folder.path / "config.yaml", as_yaml(options).encode())
    ranks = Ranks.join(worker.spec.world)
    np.random.seed(options.seed)
    worker.phase("loading model", model=options.model)
    model, tokenizer = load_model(options.model)
    worker.phase("loading data", data=options.data)
    data_files = artifacts.hashes(Path(options.data))  # of what is trained on, whatever becomes of the files meanwhile
    train_set, valid_set, test_set = load_data(options, tokenizer, worker, lowered.max_seq_length)
    mx.random.seed(options.seed)
    make_trainable(model, options)
    _same_start(ranks, model)
    optimizer = guard(make_optimizer(options), options)
    reporter = make_reporter(options) if ranks.leads else None
    loop = TrainingLoop(worker, options, lowered, model, optimizer, train_set, valid_set, reporter, ranks)
    loop.data_files = data_files
    checkpoint = ranks.folder(checkpoint, worker.folder.checkpoints)
    if checkpoint is not None:
        loop.resume(checkpoint)
    else:
        _begin(worker, options, again=bool(lowered.rungs))
    worker.events.write("data", rows=loop.rows, digest=artifacts.data_digest(data_files))
    test = Validation(test_set, options, options.test_batches, loop.share) if test_set is not None else None
    _check_data(worker, options, loop, test)
    chosen = _measures(worker, options, model, loop, ranks)
    trainable = _count_trainable(model)
    worker.phase(
        "training",
        total=options.iters,
        trainable_parameters=trainable,
        parameters=get_total_parameters(model),
        device=_device(worker),
        effective_batch=options.batch_size * options.grad_accumulation_steps,
        ranks=ranks.size,
        rows_per_rank=options.batch_size // ranks.size,
    )
    started = time.time()
    loop.run()
    if loop.failure is not None:
        if not ranks.leads:
            raise job.Stopped(loop.failure)  # all ranks found the same; rank 0 has it to say
        if loop.last_checkpoint is not None:
            _load_weights(model, loop.last_checkpoint)
            _publish(worker, options, model, loop, weights_of_step=loop.last_checkpoint_step)
        raise TrainingFailed(loop.failure)
    if loop.stopped:
        _end_stopped(worker, options, model, loop)
    seconds = time.time() - started
    weights_of_step = _take_best(worker, options, model, loop, ranks)
    result = _losses(loop) | {
        "seconds": round(seconds, 1),
        "tokens_per_second": round((loop.trained_tokens - loop.tokens_before) / seconds, 1) or None,
        "stopped_early": loop.stopped_early or None,
        "weights_of_step": weights_of_step,
        "peak_memory_gb": round(ranks.largest(mx.get_peak_memory()) / 1e9, 3),
        "ranks": ranks.size if ranks.size > 1 else None,
        "trainable_parameters": trainable,
        "skipped_updates": loop.skipped or None,
        "measures": chosen,
        "recovered": lowered.rungs or None,
    }
    adapter = _publish(worker, options, model, loop, **result) if ranks.leads else None
    if test is not None:
        result |= _test(worker, model, test, loop, ranks, adapter)
    if adapter is not None:
        result["adapter_path"] = str(adapter)
    return {name: value for name, value in result.items() if value is not None}


def _begin(worker: job.WorkerJob, options: TrainingOptions, *, again: bool) -> None:
    """``again``: after an attempt that got no checkpoint; what it reported in the log is done once more."""
    if again:
        worker.events.write("resume", step=0, total=options.iters)


def _begin_log(worker: job.WorkerJob, checkpoint: Path, total: int) -> None:
    """The curves up to ``checkpoint``, so that from the first moment on the log says where the run stands."""
    step = (read_json(checkpoint / checkpoints.POSITION) or {}).get("step", 0)
    events.copy_history(checkpoint.parent.parent / "metrics.jsonl", worker.folder.metrics, step)
    worker.events.write("resume", step=step, total=total, checkpoint=str(checkpoint))


def _take_best(
    worker: job.WorkerJob, options: TrainingOptions, model: nn.Module, loop: TrainingLoop, ranks: Ranks
) -> int:
    """Put the best weights that were kept into ``model``, where the result is to be the best; the step of what it holds."""
    kept = checkpoints.best(worker.folder.checkpoints) if options.keeps_best else None
    best = ranks.folder(kept, worker.folder.checkpoints)
    if best is not None:
        _load_weights(model, best)
    step = checkpoints.best_step_of(best) if best is not None else loop.step
    if options.keeps_best and loop.best_val_step not in (None, step):
        lost = f"the best weights, of step {loop.best_val_step}, could not be kept: published are those of step {step}"
        worker.events.write("alert", kind="best-lost", level="warning", step=loop.step, message=lost)
    return step


def _losses(loop: TrainingLoop) -> dict[str, Any]:
    """How far the run came, for its result and for an adapter that is published before the end."""
    return {
        "steps": loop.step,
        "final_train_loss": loop.last_train_loss,
        "final_val_loss": loop.last_val_loss,
        "best_val_loss": loop.best_val_loss,
        "best_val_step": loop.best_val_step,
        "peak_memory_gb": round(mx.get_peak_memory() / 1e9, 3),
        "trained_tokens": loop.trained_tokens,
    }


def load_data(
    options: TrainingOptions, tokenizer: Any, worker: job.WorkerJob, max_seq_length: int | None = None
) -> tuple[TokenRows, TokenRows | None, TokenRows | None]:
    """The data sets through mlx-lm's own loader, local or from the Hub; without validation or test when not asked for.

    ``max_seq_length``: in place of the options', after an out-of-memory.
    """
    train_rows, valid_rows, test_rows = load_rows(types.SimpleNamespace(**options.as_mlx_lm()), tokenizer)
    named = name_of(options.data, options.hf_dataset)

    def rows(data: Any, name: str) -> TokenRows:
        found = TokenRows(data, f"{named}/{name}.jsonl", options, tokenizer, max_seq_length)
        found.on_row = progress(worker, found, name)
        return found

    validate = options.val_batches != 0 and len(valid_rows) > 0
    return (
        rows(train_rows, "train"),
        rows(valid_rows, "valid") if validate else None,
        rows(test_rows, "test") if options.test else None,
    )


def _check_data(worker: job.WorkerJob, options: TrainingOptions, loop: TrainingLoop, test: Validation | None) -> None:
    worker.phase("checking rows")
    coming = loop.order.coming(max(1, options.iters - loop.step))  # a run killed at its end still has its rows checked
    alerts = check_rows(worker, loop.order.rows, coming, "train", stock=options.stock)
    for name, other in (("valid", loop.validation), ("test", test)):
        if other is not None:
            alerts += check_rows(worker, other.rows, other.batches(), name, stock=options.stock)
    for alert in alerts:
        worker.events.write("alert", kind=alert.kind, level=alert.level, step=loop.step, message=alert.message)


def _measures(
    worker: job.WorkerJob, options: TrainingOptions, model: nn.Module, loop: TrainingLoop, ranks: Ranks
) -> dict[str, str]:
    """Choose what makes the run faster or smaller than stock, and say it; by name, each with its reason."""
    order, saving = loop.order, bool(recovery.read(worker.folder).rungs)
    backend, _ = machine.backend(machine.collect())
    quantized = measures.quantized_base(options.model)
    coarse = measures.coarse_chunks(backend, quantized=quantized)
    loop.loss, fused = choose_loss(model, options, order.rows.batch(next(order.coming(1))), ranks, coarse=coarse)
    kept = cache_threshold(options)
    bucketed = "on: rows of like length share a batch, each token counts the same"
    chosen = {
        "length_bucketing": bucketed if options.buckets else "off: stock's batches",
        "fused_loss": fused,
        "allocator_cache": f"on: up to {kept / 1e9:.3g} GB kept" if kept else "off: cleared at every step",
        "command_buffer_limits": measures.describe_buffer_limits(
            measures.as_started(options, saving=saving), backend, os.environ
        ),
    }
    if backend == "linux-cuda":
        chosen["cuda_graphs"] = measures.describe_graphs(
            measures.as_started(options, saving=saving), os.environ, quantized=quantized
        )
    shown = ", ".join(f"{name} {text.partition(':')[0]}" for name, text in chosen.items())
    worker.phase(f"measures: {shown}", measures=chosen)
    return chosen


def make_trainable(model: nn.Module, options: TrainingOptions) -> None:
    """Freeze the model and open what is to be trained, as ``mlx_lm.lora.train_model`` does."""
    model.freeze()
    layers = cast(list[nn.Module], model.layers)
    count = len(layers)
    if options.num_layers > count:
        raise ModelError(f"num_layers={options.num_layers}: the model has {count} layers; use at most {count}, or -1")
    if options.fine_tune_type == "full":
        for layer in layers[-max(options.num_layers, 0) :]:
            layer.unfreeze()
    else:
        linear_to_lora_layers(
            model,
            options.num_layers,
            options.lora_parameters.model_dump(exclude_none=True),
            use_dora=options.fine_tune_type == "dora",
        )
    if not _count_trainable(model):
        raise ModelError(
            f"nothing would be trained: lora_parameters.keys={options.lora_parameters.keys} match no layer of this "
            "model; leave keys out to train all linear layers"
        )
    if options.resume_adapter_file is not None:
        begin_with(model, options.resume_adapter_file)


def _same_start(ranks: Ranks, model: nn.Module) -> None:
    """Let every rank begin with rank 0's weights: they may have been read from a file that only rank 0 has."""
    if ranks.size == 1:
        return
    with tempfile.TemporaryDirectory(prefix="mlx-training-start-") as scratch:
        own = Path(scratch) / "own"
        if ranks.leads:
            own.mkdir()
            checkpoints.save_weights(own / checkpoints.WEIGHTS, model)
        start = ranks.folder(own if ranks.leads else None, Path(scratch) / "given")
        assert start is not None
        if not ranks.leads:
            _load_weights(model, start)


def _count_trainable(model: nn.Module) -> int:
    weights = cast(list[tuple[str, mx.array]], tree_flatten(model.trainable_parameters()))
    return sum(weight.size for _, weight in weights)


def make_optimizer(options: TrainingOptions) -> optim.Optimizer:
    form = options.lr_schedule
    rate: Any = options.learning_rate
    if isinstance(form, str):
        phases = schedule.parse_phases(form)
        rate = rate if phases is None else _phases(phases, options.grad_accumulation_steps)
    elif form is not None:
        rate = build_schedule(form)
    settings = options.optimizer_config.get(options.optimizer, {})
    try:
        return _OPTIMIZERS[options.optimizer](learning_rate=rate, **settings)
    except TypeError as error:
        raise ModelError(
            f"optimizer_config={settings!r} does not fit {options.optimizer}: {error}; correct it"
        ) from error


def _phases(phases: schedule.Phases, accumulation: int) -> Any:
    """Constant rates one after the other; boundaries in updates. One optimizer state goes through all of them."""
    steps = [optim.linear_schedule(rate, rate, 1) for _, rate in phases]
    if len(steps) == 1:
        return steps[0]
    ends = np.cumsum([iterations for iterations, _ in phases])[:-1]
    return optim.join_schedules(steps, [max(1, int(end) // accumulation) for end in ends])


def _device(worker: job.WorkerJob) -> str:
    device = str(mx.default_device().type).removeprefix("DeviceType.")
    backend, _ = machine.backend(machine.collect())
    if device == "cpu" and backend in ("apple-silicon", "linux-cuda"):
        worker.events.write(
            "alert", kind="on-cpu", level="error", message=f"training on the CPU of a {backend} machine"
        )
    return device


def _load_weights(model: nn.Module, folder: Path) -> None:
    model.load_weights(str(folder / checkpoints.WEIGHTS), strict=False)
    mx.eval(model.parameters())


def _test(
    worker: job.WorkerJob, model: nn.Module, test: Validation, loop: TrainingLoop, ranks: Ranks, adapter: Path | None
) -> dict[str, float]:
    """The losses on test.jsonl, into the records of ``adapter`` too, which is published: what ends the test leaves it."""
    kept = f"the training is over, at step {loop.step}, and its adapter is in {adapter}: run_benchmark measures it"

    def between_batches() -> None:
        worker.beat()
        if ranks.any(worker.stop_requested):
            raise job.Stopped(f"stopped as asked before the test was over; {kept}")

    worker.events.write("phase", name="testing")  # a stop asked for by now is heard by all ranks together
    test.on_batch = between_batches
    try:
        loss = test.loss(model, loop.loss)
    except (UserError, job.Stopped):
        raise
    except Exception as error:
        # No cause is given: nothing of a training that is over is to be done again.
        traceback.print_exc()
        raise TrainingFailed(f"the test failed: {job.failure(error).why}; {kept}") from error
    worker.events.write("test", loss=loss)
    if not math.isfinite(loss):
        # Of these rows alone: the weights are finite and what was validated too. The adapter is not lost for that.
        said = f"the test loss is {loss}: some row of test.jsonl overflows; the adapter is kept"
        worker.events.write("alert", kind="not-finite", level="error", step=loop.step, message=said)
        return {}
    found = {"test_loss": loss, "test_perplexity": math.exp(min(loss, 700))}
    if adapter is not None:
        with contextlib.suppress(OSError):  # the job's own result has them
            artifacts.add_results(adapter, found)
    return found


def _end_stopped(worker: job.WorkerJob, options: TrainingOptions, model: nn.Module, loop: TrainingLoop) -> None:
    last = loop.last_checkpoint
    kept = f"the checkpoint is {last}" if last is not None else "no checkpoint could be saved (job.log says why)"
    where = f"at step {loop.step} of {options.iters}; {kept}"
    if not worker.leads:
        raise job.Stopped(f"stopped with rank 0 at step {loop.step}")
    if worker.pause_requested and last is not None:  # else the adapter is all that can be kept
        raise job.Stopped(f"paused {where}; go on with {worker.onward}", status="paused")
    if loop.step == 0:
        raise job.Stopped(f"stopped as asked before its first step; there is no adapter, {kept}")
    adapter = _publish(worker, options, model, loop, **_losses(loop), weights_of_step=loop.step)
    raise job.Stopped(f"stopped as asked {where}; the adapter of that step is in {adapter}")


def _publish(
    worker: job.WorkerJob, options: TrainingOptions, model: nn.Module, loop: TrainingLoop, **results: Any
) -> Path:
    """Put the adapter where the user asked for it, so that it is whole whenever it can be loaded."""
    assert options.adapter_path is not None
    folder = Path(options.adapter_path)
    data: dict[str, Any] = {"files": loop.data_files, "rows": loop.rows}
    if loop.data_before:
        data["files_before_resume"] = loop.data_before
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".new-*"):  # of a job that was killed here
            shutil.rmtree(leftover, ignore_errors=True)
        # All of it is written before anything is touched: a full disk leaves an adapter that was there as it was.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder, ignore_cleanup_errors=True) as scratch:
            new = Path(scratch)
            write_json(new / checkpoints.CONFIG, options.as_mlx_lm())
            artifacts.write_provenance(new, worker.spec, data, **{"steps": loop.step, **results})
            replace_atomic(new / checkpoints.WEIGHTS, lambda file: checkpoints.save_weights(file, model))
            artifacts.keep_aside(folder)
            artifacts.put_in_place(new, folder)
    except OSError as error:
        gone = (folder / "previous").is_dir() and not (folder / checkpoints.WEIGHTS).exists()
        before = f"; the adapter that was there is in {folder / 'previous'}" if gone else ""
        raise PathError(
            f"the adapter could not be written to {folder}: {error}; free space there, then resume: "
            f"the last checkpoint, {loop.last_checkpoint}, is intact{before}"
        ) from error
    worker.events.write("phase", name=events.PUBLISHED, path=str(folder))
    picture = worker.folder.path / curve.PICTURE
    if curve.write_png({worker.folder.job_id: worker.folder.metrics}, picture, sys.executable) is None:
        with contextlib.suppress(OSError):  # the adapter is whole without it
            shutil.copyfile(picture, folder / curve.PICTURE)
    return folder


if __name__ == "__main__":
    job.run(train)
