"""Between two steps of mlx-lm's training loop.

``trainer.train`` asks ``iterate_batches`` for batch n+1 when step n is complete; everything of ours happens there:
report, save, stop, validate. The trainer itself reports after every step, so that each loss is seen once.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer
from mlx_lm import cli_ui
from mlx_lm.tuner import trainer
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import CacheDataset

from mcp_server.errors import UserError
from mcp_server.training.options import TrainingOptions
from mcp_server.workers import checkpoints
from mcp_server.workers.batches import BatchOrder
from mcp_server.workers.job import WorkerJob

KEPT_CHECKPOINTS = 3


class TrainingFailed(UserError):
    """The run can't go on; the message names the step and the last good checkpoint."""


class TrainingLoop(TrainingCallback):
    """One run of ``trainer.train``."""

    def __init__(
        self,
        worker: WorkerJob,
        options: TrainingOptions,
        model: nn.Module,
        optimizer: Optimizer,
        train_set: CacheDataset,
        valid_set: CacheDataset | None,
    ) -> None:
        self._worker = worker
        self._events = worker.events
        self._options = options
        self._model = model
        self._optimizer = optimizer
        self._train_set = train_set
        self._valid_set = valid_set
        self._order = BatchOrder(train_set, options.batch_size, options.max_seq_length)
        self._window = _Window()
        self._counted_tokens = 0
        self._learning_rate = float("nan")
        self.step = 0
        self.stopped = False
        self.trained_tokens = 0
        self.last_train_loss: float | None = None
        self.last_val_loss: float | None = None
        self.best_val_loss: float | None = None
        self.best_val_step: int | None = None
        self.last_checkpoint: Path | None = None

    def run(self) -> None:
        """Train to the end, or to a stop request."""
        options = self._options
        cli_ui.make_console().quiet = True  # its per-step table is for a terminal; our events say the same
        # The trainer ends by writing the adapter in place, not atomically. We write it ourselves: let it write to nowhere.
        nowhere = self._worker.folder.path / "nowhere.safetensors"
        nowhere.unlink(missing_ok=True)
        nowhere.symlink_to(os.devnull)
        trainer.train(
            model=self._model,
            optimizer=self._optimizer,
            train_dataset=self._train_set,
            args=trainer.TrainingArgs(
                batch_size=options.batch_size,
                iters=options.iters,
                steps_per_report=1,
                steps_per_save=options.iters + 1,
                max_seq_length=options.max_seq_length,
                adapter_file=str(nowhere),
                grad_checkpoint=options.grad_checkpoint,
                grad_accumulation_steps=options.grad_accumulation_steps,
                clear_cache_threshold=options.clear_cache_threshold,
            ),
            iterate_batches=self._batches,
            training_callback=self,
        )
        nowhere.unlink()
        if not self.stopped:
            self._finish_step(last=True)

    def _batches(self, **_: Any) -> Iterator[tuple[Any, Any]]:
        """The trainer's ``iterate_batches``: asked for batch n+1 when step n is complete."""
        batches = iter(self._order)
        while True:
            if self.step and self._finish_step(last=False):
                self.stopped = True
                return
            # In stock's order, since both draw random numbers: first the batch, then validation.
            batch = next(batches)
            self._validate_if_due(self.step + 1)
            self._window.resume_clock()
            yield batch

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """The trainer's callback, after each step."""
        self.step += 1
        loss = float(train_info["train_loss"])
        counted = int(train_info["trained_tokens"])  # since this process began
        tokens, self._counted_tokens = counted - self._counted_tokens, counted
        self.trained_tokens += tokens
        self._window.add(loss, tokens)
        self._learning_rate = float(train_info["learning_rate"])
        if not math.isfinite(loss):
            self._events.write("alert", level="error", kind="not-finite", step=self.step, loss=loss)
            kept = (
                f"the last good checkpoint is {self.last_checkpoint}" if self.last_checkpoint else "no checkpoint yet"
            )
            raise TrainingFailed(
                f"the loss became {loss} at step {self.step}; {kept}; lower learning_rate (now {self._options.learning_rate}) "
                "and make sure that no prompt is longer than max_seq_length"
            )

    def _finish_step(self, *, last: bool) -> bool:
        """After each complete step: report and save as due; True when the run is to stop here."""
        options, step = self._options, self.step
        if last or step % options.steps_per_report == 0:
            self._report()
        # Half-accumulated gradients live inside the trainer: only whole updates can be saved.
        whole_update = step % options.grad_accumulation_steps == 0
        stop = self._worker.stop_requested and whole_update and not last
        if last or stop or (whole_update and self._save_due()):
            self._save()
        return stop

    def _save_due(self) -> bool:
        """Whether a multiple of ``save_every`` was passed with this update."""
        every, accumulated = self._options.save_every, self._options.grad_accumulation_steps
        return self.step // every > (self.step - accumulated) // every

    def _report(self) -> None:
        window = self._window
        seconds = window.seconds()
        self.last_train_loss = window.loss()
        self._events.write(
            "train",
            step=self.step,
            total=self._options.iters,
            loss=self.last_train_loss,
            learning_rate=self._learning_rate,
            iterations_per_second=round(window.steps / seconds, 4) if seconds > 0 else None,
            tokens_per_second=round(window.tokens / seconds, 2) if seconds > 0 else None,
            trained_tokens=self.trained_tokens,
        )
        self._events.write(
            "memory",
            step=self.step,
            active_bytes=mx.get_active_memory(),
            peak_bytes=mx.get_peak_memory(),
            cache_bytes=mx.get_cache_memory(),
        )
        self._window = _Window()

    def _validate_if_due(self, upcoming: int) -> None:
        """Validate before step ``upcoming``, when stock does: at the first step, every steps_per_eval and at the last."""
        options = self._options
        if self._valid_set is None or not (
            upcoming == 1 or upcoming % options.steps_per_eval == 0 or upcoming == options.iters
        ):
            return
        self._window.pause_clock()
        started = time.perf_counter()
        loss = cast(
            float,
            trainer.evaluate(
                model=self._model,
                dataset=self._valid_set,
                batch_size=options.batch_size,
                num_batches=options.val_batches,
                max_seq_length=options.max_seq_length,
                iterate_batches=trainer.iterate_batches,
            ),
        )
        self._model.train()
        self.last_val_loss = loss
        if self.best_val_loss is None or loss < self.best_val_loss:
            self.best_val_loss, self.best_val_step = loss, self.step
        seconds = round(time.perf_counter() - started, 3)
        self._events.write("val", step=self.step, total=options.iters, loss=loss, seconds=seconds)

    def _save(self) -> None:
        self._window.pause_clock()
        position = {
            "order": self._order.position(),
            "random_key": checkpoints.random_key(),
            "window": self._window.as_json(),
            "trained_tokens": self.trained_tokens,
            "last_val_loss": self.last_val_loss,
            "best_val_loss": self.best_val_loss,
            "best_val_step": self.best_val_step,
        }
        parent = self._worker.folder.checkpoints
        try:
            folder = checkpoints.save(
                parent, self.step, self._model, self._optimizer, position, self._options.as_mlx_lm()
            )
        except OSError as error:
            # The run goes on: the last checkpoint is intact and the disk may have room again at the next.
            self._events.write("alert", level="error", kind="checkpoint-failed", step=self.step, message=str(error))
            print(f"checkpoint of step {self.step} could not be written: {error}", flush=True)
            return
        self.last_checkpoint = folder
        self._events.write("checkpoint", step=self.step, path=str(folder))
        checkpoints.prune(parent, KEPT_CHECKPOINTS, also=set())


class _Window:
    """Losses and time since the last report. Summed in 32 bits, as the trainer does, so that the mean is stock's."""

    def __init__(self) -> None:
        self._sum = np.float32(0)
        self.tokens = 0
        self.steps = 0
        self._elapsed = 0.0
        self._since: float | None = time.perf_counter()

    def add(self, loss: float, tokens: int) -> None:
        self._sum = np.float32(self._sum + np.float32(loss))
        self.tokens += tokens
        self.steps += 1

    def loss(self) -> float:
        return float(self._sum) / self.steps

    def pause_clock(self) -> None:
        if self._since is not None:
            self._elapsed += time.perf_counter() - self._since
            self._since = None

    def resume_clock(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def seconds(self) -> float:
        """Training time, without validation and saving."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return self._elapsed + running

    def as_json(self) -> dict[str, Any]:
        return {"sum": float(self._sum), "tokens": self.tokens, "steps": self.steps}
