"""Going on from a checkpoint: which one is meant, what carries over from its run, and whether what is asked fits it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from mcp_server import settings
from mcp_server.datasets import hub
from mcp_server.errors import ArgumentError, JobError, ModelError, PathError, explain
from mcp_server.jobs import recovery, service, store
from mcp_server.jobs.files import read_json
from mcp_server.jobs.recovery import Recovery
from mcp_server.jobs.store import JobFolder
from mcp_server.models import folder as models
from mcp_server.training import schedule
from mcp_server.training.options import TrainingOptions

# Changing one of these makes the checkpoint unusable; changing one of the others makes the continuation another run.
_STRUCTURE = ("model", "fine_tune_type", "num_layers", "lora_parameters", "optimizer")
_EXACT = (
    "data",
    "batch_size",
    "grad_accumulation_steps",
    "learning_rate",
    "lr_schedule",
    "optimizer_config",
    "max_grad_norm",
    "skip_nonfinite",
    "fused_loss",
    "max_seq_length",
    "excess_length_strategy",
    "mask_prompt",
    "assistant_only_loss",
    "length_bucketing",
    "stock",
    "grad_checkpoint",
    "val_batches",
    "steps_per_eval",
    "seed",
    "hosts",
    "hostfile",
    "num_processes",
)
# Changing one of these changes the memory that a step needs: what an out-of-memory of the earlier run led to holds no more.
_MEMORY = ("batch_size", "grad_checkpoint", "max_seq_length", "hosts", "hostfile", "num_processes")


class Earlier(BaseModel):
    """The run that goes on, as it was at its checkpoint. ``options`` are resolved; ``completed``: nothing was left to do."""

    checkpoint: Path
    step: int
    completed: bool
    options: TrainingOptions
    unknown: list[str]
    data_digest: str | None = None
    recovered: Recovery = Field(default_factory=Recovery)

    def carried(self, given: dict[str, Any]) -> dict[str, Any]:
        """The options that hold where the call, whose arguments are ``given``, says nothing.

        A named schedule comes back as its name, so that it is made anew for another rate, warm-up or length.
        Raises ArgumentError for a rate, or for weights to begin with, that would change nothing.
        """
        kept = self.options.model_dump(mode="json", exclude_unset=True)
        kept["resume_adapter_file"] = None  # the checkpoint has what became of these weights
        if given.get("resume_adapter_file") is not None:
            raise ArgumentError(
                f"resume_adapter_file={given['resume_adapter_file']!r} would change nothing: a resumed run goes on with the "
                "checkpoint's weights; leave it out, or leave resume out to begin a new run with that file"
            )
        if (found := self._named_schedule()) is not None:
            kept["lr_schedule"], kept["warmup"] = found
        asked = given.get("lr_schedule")
        if "lr_schedule" not in given:
            self._check_rate(kept.get("lr_schedule"), given)
        elif asked not in schedule.NAMES:
            kept.pop("warmup", None)  # it was the named schedule's
            if isinstance(asked, str) and schedule.parse_phases(asked) is not None:
                kept.pop("iters", None)  # the phases say how long
        if given.get("epochs") is not None:
            kept.pop("iters", None)
        return kept

    def check_fit(self, options: TrainingOptions) -> None:
        """Raise ArgumentError for what the checkpoint's state does not fit."""
        now, old = (one.model_dump(mode="json") for one in (options, self.options))
        for name in _STRUCTURE:
            if now[name] != old[name] and not (name == "model" and _same_model(now[name], old[name])):
                raise ArgumentError(
                    f"{name}={now[name]!r} but the checkpoint was made with {old[name]!r}; its state does not fit. "
                    "Leave it out, or start a new run"
                )

    def check_length(self, iters: int) -> None:
        """Raise ArgumentError when a run of ``iters`` has nothing left to do."""
        if self.step > iters or (self.step == iters and self.completed):
            raise ArgumentError(
                f"the checkpoint is at step {self.step} and iters={iters}; give a larger iters to train on"
            )

    def changes(self, options: TrainingOptions) -> list[str]:
        """Warnings about what makes a continuation with ``options``, resolved, another run."""
        now, old = (one.model_dump(mode="json") for one in (options, self.options))
        found = [
            f"{name} changed from {json.dumps(old[name])} to {json.dumps(now[name])}: "
            "the run goes on, but not exactly as it would have"
            for name in _EXACT
            if now[name] != old[name] and not (name == "data" and _same_data(options, self.options))
        ]
        form = options.lr_schedule
        own = isinstance(form, dict) and form == self.options.lr_schedule and self._named_schedule() is None
        if own and options.iters != self.options.iters:
            found.append(
                f"iters changed from {self.options.iters} to {options.iters}, but lr_schedule={json.dumps(form)} counts its "
                "own updates and stays as it is; give lr_schedule too if it is to span the new length"
            )
        return found

    def recovery_for(self, options: TrainingOptions) -> tuple[Recovery | None, list[str]]:
        """What a continuation with ``options`` starts with, after an out-of-memory of the run that goes on; and its warning."""
        if not self.recovered.rungs:
            return None, []
        rungs = "; ".join(self.recovered.rungs)
        changed = [name for name in _MEMORY if getattr(options, name) != getattr(self.options, name)]
        if changed:
            text = f"what the earlier run did when it ran out of memory ({rungs}) does not hold here"
            return None, [f"{text}, since {', '.join(changed)} changed; with auto_recover=true it is found anew"]
        text = f"the earlier run ran out of memory, and this one goes on as that one did: {rungs}"
        return self.recovered, [f"{text}; give another batch_size, grad_checkpoint or max_seq_length to end that"]

    def _named_schedule(self) -> tuple[str, int] | None:
        options = self.options
        if isinstance(options.lr_schedule, str):
            return None
        return schedule.asked(
            options.lr_schedule,
            rate=options.learning_rate,
            iters=options.iters,
            accumulation=options.grad_accumulation_steps,
        )

    def _check_rate(self, form: Any, given: dict[str, Any]) -> None:
        """``form``: the run's schedule, kept as the call gives none."""
        if form in schedule.NAMES:
            return
        for name in ("learning_rate", "warmup"):
            if given.get(name) not in (None, getattr(self.options, name)):
                raise ArgumentError(
                    f"{name}={given[name]:g} would change nothing: the run follows lr_schedule={json.dumps(form)}, "
                    "which holds its own rates; give lr_schedule too"
                )


def find(name: str) -> Earlier:
    """What ``name`` means: a checkpoint folder, or a job id (its newest). Raises JobError, PathError, ArgumentError."""
    folder, job = _meant(name)
    record = read_json(folder / "checkpoint.json")
    if record is None or "options" not in record:
        raise PathError(
            f"{folder} holds weights but not all that an exact continuation needs; resume from a numbered checkpoint"
        )
    options: dict[str, Any] = record["options"]
    if job is not None and folder.resolve().parent != job.checkpoints.resolve():
        # It ended before a checkpoint of its own: the one that it began at has the options of the run before.
        options = job.spec().options
    known = {option: value for option, value in options.items() if option in TrainingOptions.model_fields}
    try:
        validated = TrainingOptions.model_validate(known)
    except ValidationError as error:
        raise explain(error, TrainingOptions) from error
    return Earlier(
        checkpoint=folder,
        step=record["step"],
        completed=job is not None and service.reconcile(job).status == "completed",
        options=validated,
        unknown=sorted(options.keys() - known.keys()),
        data_digest=record.get("data_digest"),
        recovered=recovery.read(job) if job is not None else Recovery(),
    )


def _meant(name: str) -> tuple[Path, JobFolder | None]:
    """The checkpoint, and the job that it is of, where that is known."""
    folder = settings.resolve(name)
    if (folder / "checkpoint.json").exists():
        job = _owner(folder)
        if job is not None:
            _check_ended(job)
        return folder, job
    if "/" in name or folder.is_dir():
        raise PathError(
            f"resume={name!r} is not a checkpoint (no checkpoint.json); give a job id or a folder checkpoints/<step>"
        )
    job = store.get(name)
    _check_ended(job)
    newest = job.last_checkpoint()
    if newest is None:
        raise JobError(f"job {name} has no checkpoint to resume from; start it again with the same arguments")
    return newest, job


def _owner(checkpoint: Path) -> JobFolder | None:
    """The job in whose folder ``checkpoint`` lies; None for one that was taken elsewhere."""
    folder = checkpoint.resolve().parent.parent
    return store.get(folder.name) if folder.parent == store.jobs_folder().resolve() else None


def _check_ended(job: JobFolder) -> None:
    if not service.reconcile(job).finished:
        raise JobError(
            f"job {job.job_id} still runs or waits; stop it first with stop_job, or follow it with read_training_log"
        )


def _same_model(now: str, old: str) -> bool:
    """Whether both name one folder: as a path from the project or an absolute one, or as the Hub id of a cached snapshot."""
    here = models.locate(now)
    try:
        there = models.locate(old)
    except ModelError:
        return False  # gone since
    return here is not None and there is not None and os.path.realpath(here) == os.path.realpath(there)


def _same_data(now: TrainingOptions, old: TrainingOptions) -> bool:
    if any(hub.is_hub_data(one.data, one.hf_dataset) for one in (now, old)):
        return False
    return os.path.realpath(settings.resolve(now.data)) == os.path.realpath(settings.resolve(old.data))
