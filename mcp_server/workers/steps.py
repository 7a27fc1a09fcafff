"""Real training steps on made-up tokens: what a step of a given shape takes, in memory and in time."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx_lm import cli_ui
from mlx_lm.tuner import trainer
from mlx_lm.tuner.callbacks import TrainingCallback

from mcp_server.training.options import TrainingOptions
from mcp_server.workers.loop import cache_threshold
from mcp_server.workers.losses import Loss, masked_loss


class _Clock(TrainingCallback):
    """When each step was complete."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self.ends.append(time.perf_counter())


def run_steps(
    model: nn.Module,
    optimizer: Optimizer,
    options: TrainingOptions,
    lengths: list[int],
    vocabulary: int,
    scratch: Path,
    loss: Loss = masked_loss,
) -> list[float]:
    """Train one step for each of ``lengths`` (tokens a row) through ``trainer.train`` with the batch size of ``options``.

    The tokens are random: neither memory nor time depends on them. Returns the seconds of each step. The weights change,
    so the model is good for nothing afterwards; ``mx.get_peak_memory`` then holds the peak of all steps.
    """
    clock = _Clock()
    starts: list[float] = []

    def batches(**_: Any) -> Iterator[tuple[mx.array, mx.array]]:
        for length in lengths:
            # One token more than the model sees: inputs and targets are shifted by one.
            tokens = mx.random.randint(0, vocabulary, (options.batch_size, length + 1))
            spans = mx.array([[0, length]] * options.batch_size)
            mx.eval(tokens, spans)
            starts.append(time.perf_counter())
            yield tokens, spans

    cli_ui.make_console().quiet = True
    nowhere = scratch / "nowhere.safetensors"  # the trainer ends by saving an adapter that nobody wants
    nowhere.unlink(missing_ok=True)
    nowhere.symlink_to(os.devnull)
    gc.collect()
    mx.clear_cache()
    mx.reset_peak_memory()
    try:
        trainer.train(
            model=model,
            optimizer=optimizer,
            train_dataset=[],
            args=trainer.TrainingArgs(
                batch_size=options.batch_size,
                iters=len(lengths),
                steps_per_report=1,
                steps_per_save=len(lengths) + 1,
                max_seq_length=options.max_seq_length,
                adapter_file=str(nowhere),
                grad_checkpoint=options.grad_checkpoint,
                grad_accumulation_steps=options.grad_accumulation_steps,
                clear_cache_threshold=cache_threshold(options),
            ),
            loss=loss,
            iterate_batches=batches,
            training_callback=clock,
        )
    finally:
        nowhere.unlink(missing_ok=True)
    return [end - start for start, end in zip(starts, clock.ends, strict=True)]
