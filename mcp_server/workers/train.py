"""The training worker: mlx-lm's own ``trainer.train``, watched and saved through its own extension points."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.datasets import CacheDataset, load_local_dataset
from mlx_lm.tuner.utils import build_schedule, linear_to_lora_layers
from mlx_lm.utils import get_total_parameters

from mcp_server.errors import DataError, ModelError
from mcp_server.jobs.files import replace_atomic, write_json
from mcp_server.training import artifacts, curve
from mcp_server.training.options import TrainingOptions
from mcp_server.workers import checkpoints, job
from mcp_server.workers.loading import load_model
from mcp_server.workers.loop import TrainingLoop

_OPTIMIZERS = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}


def train(worker: job.WorkerJob) -> dict[str, Any]:
    """Train as the spec says and publish the adapter; the result for ``outcome.json``."""
    options = TrainingOptions.model_validate(worker.spec.options)
    np.random.seed(options.seed)
    worker.phase("loading model", model=options.model)
    model, tokenizer = load_model(options.model)
    worker.phase("loading data", data=options.data)
    train_set, valid_set = _load_data(options, tokenizer)
    mx.random.seed(options.seed)
    _make_trainable(model, options)
    optimizer = _make_optimizer(options)
    trainable = _count_trainable(model)
    worker.phase(
        "training",
        total=options.iters,
        trainable_parameters=trainable,
        parameters=get_total_parameters(model),
        device=str(mx.default_device().type).removeprefix("DeviceType."),
    )
    started = time.time()
    loop = TrainingLoop(worker, options, model, optimizer, train_set, valid_set)
    loop.run()
    adapter = _publish(worker, options, model, loop)
    if loop.stopped:
        raise job.Stopped(
            f"stopped as asked at step {loop.step} of {options.iters}; "
            f"the adapter of that step is in {adapter}, the checkpoint in {loop.last_checkpoint}"
        )
    return {
        "adapter_path": str(adapter),
        "steps": loop.step,
        "seconds": round(time.time() - started, 1),
        "final_train_loss": loop.last_train_loss,
        "final_val_loss": loop.last_val_loss,
        "best_val_loss": loop.best_val_loss,
        "best_val_step": loop.best_val_step,
        "peak_memory_gb": round(mx.get_peak_memory() / 1e9, 3),
        "trained_tokens": loop.trained_tokens,
        "trainable_parameters": trainable,
    }


def _load_data(options: TrainingOptions, tokenizer: Any) -> tuple[CacheDataset, CacheDataset | None]:
    config = types.SimpleNamespace(mask_prompt=options.mask_prompt)
    try:
        train_rows, valid_rows, _ = load_local_dataset(Path(options.data), tokenizer, config)
    except ValueError as error:
        raise DataError(f"the data in {options.data} can't be used: {error}") from error
    validate = options.val_batches != 0 and len(valid_rows) > 0
    return CacheDataset(train_rows), CacheDataset(valid_rows) if validate else None


def _make_trainable(model: nn.Module, options: TrainingOptions) -> None:
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
            f"nothing would be trained: lora_parameters.keys={options.lora_parameters.keys} match no layer of this model; "
            "leave keys out to train all linear layers"
        )


def _count_trainable(model: nn.Module) -> int:
    weights = cast(list[tuple[str, mx.array]], tree_flatten(model.trainable_parameters()))
    return sum(weight.size for _, weight in weights)


def _make_optimizer(options: TrainingOptions) -> optim.Optimizer:
    rate = build_schedule(options.lr_schedule) if options.lr_schedule else options.learning_rate
    return _OPTIMIZERS[options.optimizer](learning_rate=rate, **options.optimizer_config.get(options.optimizer, {}))


def _publish(worker: job.WorkerJob, options: TrainingOptions, model: nn.Module, loop: TrainingLoop) -> Path:
    """Put the adapter where the user asked for it, weights last, so that it is whole whenever it can be loaded."""
    assert options.adapter_path is not None
    folder = Path(options.adapter_path)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / checkpoints.CONFIG, options.as_mlx_lm())
    artifacts.write_provenance(folder, worker.spec, steps=loop.step, best_val_loss=loop.best_val_loss)
    replace_atomic(folder / checkpoints.WEIGHTS, lambda file: checkpoints.save_weights(file, model))
    curve.write_png(worker.folder.metrics, folder / "loss.png", sys.executable)
    worker.events.write("phase", name="adapter saved", path=str(folder))
    return folder


if __name__ == "__main__":
    job.run(train)
