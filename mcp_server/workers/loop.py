"""Between two steps of mlx-lm's training loop.

``trainer.train`` asks ``iterate_batches`` for batch n+1 when step n is complete; everything of ours happens there: report,
save, stop, validate. The trainer itself reports after every step, so that each loss is seen once.

A *step* is one batch of ``batch_size`` rows. After an out-of-memory the batch goes through the model in several parts; to
the trainer each part is an iteration and their gradients accumulate, so steps, schedule, effective batch and losses stay what
they were.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import psutil
from mlx.optimizers import Optimizer
from mlx_lm import cli_ui
from mlx_lm.tuner import trainer
from mlx_lm.tuner.callbacks import TrainingCallback

from mcp_server.jobs.recovery import Recovery
from mcp_server.training.artifacts import data_digest
from mcp_server.training.diagnose import remedy
from mcp_server.training.options import TrainingOptions
from mcp_server.workers import checkpoints
from mcp_server.workers.batches import Share, make_order
from mcp_server.workers.guard import skipped_updates
from mcp_server.workers.job import Stopped, WorkerJob
from mcp_server.workers.losses import Loss, masked_loss, weighed
from mcp_server.workers.ranks import Ranks
from mcp_server.workers.tokens import TokenRows
from mcp_server.workers.validation import Validation
from mcp_server.workers.watch import Alert, Watch
from mcp_server.workers.window import Window

_SKIPS_IN_A_ROW = 5  # updates that may be skipped one after the other before the run is taken for lost


class NotFiniteError(Exception):
    """The loss or the weights are no longer finite numbers."""


def cache_threshold(options: TrainingOptions) -> int:
    """Bytes the allocator may keep between steps.

    Stock clears its cache at every step. On MLX's CUDA back end all buffers of a step are kept, if they fit: alone it gained
    0.92 to 1.05 times stock's speed, and the default as a whole was measured with it (benchmarks/RESULTS.md). For Metal
    MLX's authors advise to keep some; on the CPU there is nothing to gain.
    """
    if options.clear_cache_threshold is not None:
        return options.clear_cache_threshold
    if options.stock or mx.default_device().type == mx.DeviceType.cpu:
        return 0
    own = mx.device_info().get("total_memory")  # CUDA alone: Metal shares the machine's memory with everything else
    return int(own) * 2 // 5 if own else psutil.virtual_memory().total // 20


class TrainingLoop(TrainingCallback):
    """One run of ``trainer.train``, from the start or from a checkpoint."""

    def __init__(
        self,
        worker: WorkerJob,
        options: TrainingOptions,
        recovery: Recovery,
        model: nn.Module,
        optimizer: Optimizer,
        train_set: TokenRows,
        valid_set: TokenRows | None,
        reporter: TrainingCallback | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._worker = worker
        self._events = worker.events
        self._options = options
        self._parts = recovery.splits
        self._grad_checkpoint = options.grad_checkpoint or bool(recovery.grad_checkpoint)
        self._model = model
        self._optimizer = optimizer
        self._train_set = train_set
        self._reporter = reporter
        self._ranks = ranks or Ranks()
        self.share = Share(self._parts, self._ranks.number, self._ranks.size, plain=options.stock)
        self.order = make_order(train_set, options, self.share)
        self.validation = None
        if valid_set is not None:
            self.validation = Validation(valid_set, options, options.val_batches, self.share)
            self.validation.on_batch = self._amid_validation
        self.rows = {"train": len(train_set)} | ({} if valid_set is None else {"valid": len(valid_set)})
        self._watch = Watch()
        self._window = Window()
        self._parts_done = 0
        self._begun_at = 0  # the step that this process goes on from
        self._step_loss = 0.0
        self._weight = 1.0  # of the batch that is trained on
        self._counted_tokens = 0
        self._learning_rate = float("nan")
        self._swap_at_start = psutil.swap_memory().used
        self._validations_without_gain = 0
        self.data_files: dict[str, str] = {}  # hashes of the files as they were loaded
        self.data_before: dict[str, str] = {}  # of those that were others in the run that this one goes on from
        self._skips_in_a_row = 0
        self._odd_losses = 0  # that are not finite, since the last update
        self._skipped = 0
        self.loss: Loss = masked_loss
        self.step = 0
        self.stopped = False
        self.stopped_early = False
        self.failure: str | None = None
        self.trained_tokens = 0
        self.tokens_before = 0  # of them, by the processes that this one goes on from
        self.last_train_loss: float | None = None
        self.last_val_loss: float | None = None
        self.best_val_loss: float | None = None
        self.best_val_step: int | None = None
        self.last_checkpoint: Path | None = None
        self.last_checkpoint_step = 0  # its folder may have been renamed

    def resume(self, checkpoint: Path) -> None:
        """Put model, optimizer, data order, random numbers and counters back to where ``checkpoint`` was taken."""
        position = checkpoints.load(checkpoint, self._model, self._optimizer)
        self.order.restore(position["order"])
        checkpoints.set_random_key(position["random_key"])
        self._window = Window.from_json(position["window"])
        self.step = self._begun_at = position["step"]
        self.last_checkpoint, self.last_checkpoint_step = checkpoint, self.step
        for name in ("trained_tokens", "last_train_loss", "last_val_loss", "best_val_loss", "best_val_step"):
            setattr(self, name, position[name])
        self.tokens_before = self.trained_tokens
        self._validations_without_gain = position["validations_without_gain"]
        self._skipped = skipped_updates(self._optimizer)
        trained_on = {name: position.get("data_files", {}).get(name) for name in ("train.jsonl", "valid.jsonl")}
        others = {
            name: digest for name, digest in trained_on.items() if digest not in (None, self.data_files.get(name))
        }
        self.data_before = others | position.get("data_before", {})
        if self._ranks.leads:
            source, own = checkpoint.parent, self._parent
            self._guard(lambda: checkpoints.carry_best(source, own, self.best_val_step, self.step))
        self._events.write("resume", step=self.step, total=self._options.iters, checkpoint=str(checkpoint))
        lost = position.get("steps_in_no_update", 0)
        if lost:
            text = f"the gradients of the {lost} steps before step {self.step + 1} were in no update"
            self._alert([Alert("half-update", f"{text}: an uninterrupted run of these options differs")])

    def run(self) -> None:
        """Train to the end, to a stop request, to an early stop, or to a loss that is not finite (``failure`` says so)."""
        options = self._options
        cli_ui.make_console().quiet = True  # its per-step table is for a terminal; our events say the same
        # The trainer ends by writing the adapter in place, not atomically. We write it ourselves: let it write to nowhere.
        nowhere = self._worker.folder.path / "nowhere.safetensors"
        nowhere.unlink(missing_ok=True)
        nowhere.symlink_to(os.devnull)
        iterations = (options.iters - self.step) * self._parts
        try:
            trainer.train(
                model=self._model,
                optimizer=self._optimizer,
                train_dataset=self._train_set,
                args=trainer.TrainingArgs(
                    batch_size=options.batch_size,
                    iters=iterations,
                    steps_per_report=1,
                    steps_per_save=iterations + 1,
                    max_seq_length=self._train_set.max_seq_length,
                    adapter_file=str(nowhere),
                    grad_checkpoint=self._grad_checkpoint,
                    grad_accumulation_steps=options.grad_accumulation_steps * self._parts,
                    clear_cache_threshold=cache_threshold(options),
                ),
                loss=weighed(self.loss) if self.order.weighs else self.loss,
                iterate_batches=self._batches,
                training_callback=self,
            )
            if self.stopped_early:
                self._report()  # the steps since the last report: nothing comes that would say them
            elif not self.stopped:
                self._finish_step(last=True)
        except NotFiniteError as error:
            self._fail(str(error))
        finally:
            nowhere.unlink(missing_ok=True)

    def _batches(self, **_: Any) -> Iterator[tuple[mx.array, ...]]:
        """The trainer's ``iterate_batches``: asked for batch n+1 when step n is complete."""
        steps = iter(self.order)
        while True:
            if self._parts_done and self._finish_step(last=False):
                self.stopped = True
                return
            before = self._position() if self._validation_due(self.step + 1) else {}
            # In stock's order, since both draw random numbers: first the batch, then validation.
            self._weight, parts = next(steps)
            try:
                self._validate_if_due(self.step + 1)
            except Stopped:
                self._save(before)  # a resume validates here anew, from the very position
                self.stopped = True
            if self.stopped or self.stopped_early:
                return
            self._window.resume_clock()
            yield from parts

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """The trainer's callback, after each iteration."""
        self._worker.beat()
        loss = float(train_info["train_loss"]) / self._weight  # what is reported is the batch's own mean
        counted = int(train_info["trained_tokens"])  # since this process began
        tokens, self._counted_tokens = counted - self._counted_tokens, counted
        self.trained_tokens += tokens
        self._parts_done += 1
        self._learning_rate = float(train_info["learning_rate"])
        finite = math.isfinite(loss)
        if finite:
            self._window.add(loss, tokens)
        elif not self._options.skips:
            raise NotFiniteError(f"the loss became {loss} at step {self.step + 1}")
        self._odd_losses += not finite
        self._step_loss += loss / self._parts
        if self._parts_done % self._parts == 0:
            self.step += 1
            loss, self._step_loss = self._step_loss, 0.0
            if math.isfinite(loss):
                self._alert(self._watch.step(self.step, loss))
            if self._whole_update():
                self._see_skipped(loss)

    def _steps_in_no_update(self) -> int:
        """Steps since the last update: the trainer counts from where it began, which may be any step, since a run's last is
        saved whatever it is."""
        return (self.step - self._begun_at) % self._options.grad_accumulation_steps

    def _whole_update(self) -> bool:
        return self._steps_in_no_update() == 0

    def _see_skipped(self, loss: float) -> None:
        """Say when the guard skipped this update; give up when it does so again and again."""
        skipped = skipped_updates(self._optimizer)
        if skipped == self._skipped and not self._odd_losses:
            self._skips_in_a_row = 0
            return
        what = "skipped: its gradients are" if skipped > self._skipped else "made, though its loss is"
        self._skipped, self._odd_losses = skipped, 0
        self._skips_in_a_row += 1
        if self._skips_in_a_row >= _SKIPS_IN_A_ROW:
            raise NotFiniteError(f"{_SKIPS_IN_A_ROW} updates in a row were not finite, the last at step {self.step}")
        self._alert([Alert("skipped-step", f"the update of step {self.step} was {what} not finite (loss {loss:.4g})")])

    @property
    def skipped(self) -> int:
        """Updates that were left out because they were not finite."""
        return self._skipped

    def _finish_step(self, *, last: bool) -> bool:
        """After each complete step: report and save as due; True when the run is to stop here."""
        options, step = self._options, self.step
        if last or step % options.steps_per_report == 0:
            self._report()
        # Half-accumulated gradients live inside the trainer: only whole updates can be saved.
        whole_update = self._whole_update()
        stop = whole_update and not last and self._ranks.any(self._worker.stop_requested)
        if last or stop or (whole_update and self._save_due()):
            self._save()
        return stop

    def _save_due(self) -> bool:
        """Whether a multiple of ``save_every`` was passed with this update."""
        every, accumulated = self._options.save_every, self._options.grad_accumulation_steps
        return self.step // every > (self.step - accumulated) // every

    def _report(self) -> None:
        window = self._window
        if not window.iterations:
            return
        self.last_train_loss = window.loss()
        speeds = window.speeds(self._parts)
        report = {"loss": self.last_train_loss, "learning_rate": self._learning_rate, **speeds}
        self._events.write(
            "train", step=self.step, total=self._options.iters, **report, trained_tokens=self.trained_tokens
        )
        peak = self._ranks.largest(mx.get_peak_memory())
        memory, swap = psutil.virtual_memory(), psutil.swap_memory().used
        self._events.write(
            "memory",
            step=self.step,
            active_bytes=mx.get_active_memory(),
            peak_bytes=peak,
            cache_bytes=mx.get_cache_memory(),
            available_bytes=memory.available,
        )
        self._alert(self._watch.memory(self.step, memory.available, memory.total, max(0, swap - self._swap_at_start)))
        if speeds["tokens_per_second"]:
            self._alert(self._watch.speed(self.step, speeds["tokens_per_second"]))
        if self._reporter is not None:
            self._reporter.on_train_loss_report(
                {
                    "iteration": self.step,
                    "train_loss": self.last_train_loss,
                    "learning_rate": self._learning_rate,
                    **speeds,
                    "trained_tokens": self.trained_tokens,
                    "peak_memory": peak / 1e9,
                }
            )
        self._window = Window()

    def _validation_due(self, upcoming: int) -> bool:
        """Whether stock validates before step ``upcoming``: at the first step, every steps_per_eval and at the last."""
        options = self._options
        due = upcoming == 1 or upcoming % options.steps_per_eval == 0 or upcoming == options.iters
        return due and self.validation is not None

    def _amid_validation(self) -> None:
        """Before each batch of a validation. Raises Stopped where the run can be saved as it was before: not between two
        halves of an update, where a continuation without this validation would not be exact."""
        self._worker.beat()
        if self._whole_update() and self._ranks.any(self._worker.stop_requested):
            raise Stopped("in validation")

    def _validate_if_due(self, upcoming: int) -> None:
        """Validate before step ``upcoming``. Raises Stopped when a stop is asked for meanwhile; nothing is recorded then."""
        if self.validation is None or not self._validation_due(upcoming):
            return
        self._window.pause_clock()
        loss = self._ranks.first(self.validation.loss(self._model, self.loss))
        self._model.train()
        self._events.write("val", step=self.step, total=self._options.iters, loss=loss)
        if not math.isfinite(loss):
            raise NotFiniteError(f"the validation loss became {loss} at step {self.step}")
        if self._reporter is not None:
            self._reporter.on_val_loss_report({"iteration": self.step, "val_loss": loss})
        self.last_val_loss = loss
        self._alert(self._watch.validation(self.step, loss, self.last_train_loss))
        if self.step:
            self._judge_validation(loss)

    def _judge_validation(self, loss: float) -> None:
        """Keep the best weights; stop early when there was no gain for long."""
        options = self._options
        if self.best_val_loss is None or loss < self.best_val_loss - options.early_stopping_threshold:
            self._validations_without_gain = 0
        else:
            self._validations_without_gain += 1
        if self.best_val_loss is None or loss < self.best_val_loss:
            self.best_val_loss, self.best_val_step = loss, self.step
        if self._ranks.leads and checkpoints.beats_best(self._parent, loss):
            self._guard(lambda: checkpoints.save_best(self._parent, self.step, loss, self._model, options.as_mlx_lm()))
        patience = options.early_stopping_patience
        if patience is not None and self._validations_without_gain >= patience:
            self.stopped_early = True
            self._events.write(
                "phase",
                name=f"stopped early at step {self.step}: no gain in {patience} validations; "
                f"best {self.best_val_loss:.4g} at step {self.best_val_step}",
            )

    @property
    def _parent(self) -> Path:
        return self._worker.folder.checkpoints

    def _position(self) -> dict[str, Any]:
        """All that an exact continuation needs besides weights and optimizer state."""
        return {
            "order": self.order.position(),
            "steps_in_no_update": self._steps_in_no_update(),
            "random_key": checkpoints.random_key(),
            "window": self._window.as_json(),
            "trained_tokens": self.trained_tokens,
            "last_train_loss": self.last_train_loss,
            "last_val_loss": self.last_val_loss,
            "best_val_loss": self.best_val_loss,
            "best_val_step": self.best_val_step,
            "validations_without_gain": self._validations_without_gain,
            "options": self._options.model_dump(mode="json"),
            "data_digest": data_digest(self.data_files),
            "data_files": self.data_files,
            "data_before": self.data_before,
        }

    def _save(self, position: dict[str, Any] | None = None) -> None:
        """Save where the run stands; ``position``: as it stood at this step, where more has happened since."""
        self._window.pause_clock()
        position = position or self._position()
        if not checkpoints.finite(self._model):
            raise NotFiniteError(f"the weights hold NaN or infinity at step {self.step}")
        if not self._ranks.leads:
            return

        def write() -> None:
            self.last_checkpoint = checkpoints.save(
                self._parent, self.step, self._model, self._optimizer, position, self._options.as_mlx_lm()
            )
            self.last_checkpoint_step = self.step
            self._events.write("checkpoint", step=self.step, path=str(self.last_checkpoint))
            checkpoints.prune(self._parent, self._options.save_total_limit)

        self._guard(write)

    def _guard(self, write: Any) -> None:
        """Write; on a full disk say so and go on, since the last checkpoint is intact and room may come."""
        try:
            write()
        except OSError as error:
            self._alert([Alert("checkpoint-failed", f"step {self.step} could not be saved: {error}", "error")])
            print(f"step {self.step} could not be saved: {error}", flush=True)

    def _alert(self, alerts: list[Alert]) -> None:
        for alert in alerts:
            self._events.write("alert", kind=alert.kind, level=alert.level, step=self.step, message=alert.message)

    def _fail(self, what: str) -> None:
        kept = (
            f"back at the last good checkpoint, {self.last_checkpoint}"
            if self.last_checkpoint
            else "no checkpoint was saved"
        )
        self._alert([Alert("not-finite", what, "error")])
        self.failure = f"{what}; {kept}; {remedy('not-finite')}"
