"""From what was asked to what is run: the call's own arguments, over a resumed run's, over a config file's, over the defaults."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from mcp_server import settings
from mcp_server.errors import ArgumentError, JobError, PathError, explain
from mcp_server.jobs import service, store
from mcp_server.jobs.files import read_json
from mcp_server.jobs.service import IfBusy
from mcp_server.training import schedule
from mcp_server.training.config import read_config
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
)


class TrainingRequest(TrainingOptions):
    """TrainingOptions, of which a config file or an earlier run may give the rest."""

    model: str | None = Field(  # type: ignore[assignment] # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
        default=None, description="Model folder or Hub id; a 4-bit model gives QLoRA"
    )
    data: str | None = Field(  # type: ignore[assignment] # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
        default=None,
        description="Folder with train.jsonl, valid.jsonl and, for benchmarks, test.jsonl; or a Hub data set",
    )
    resume: str | None = Field(
        default=None,
        description="Job id or checkpoint folder to go on from, exactly; other arguments default to that run's",
    )
    config: str | None = Field(default=None, description="mlx-lm YAML file with options; arguments of this call win")
    overwrite: bool = Field(default=False, description="Replace an existing adapter; the old one is kept in previous/")
    if_busy: IfBusy = Field(default="queue", description="When another job runs: wait in line, or refuse")


class Resolved(BaseModel):
    """What will run."""

    options: TrainingOptions
    checkpoint: Path | None = None
    step: int = 0
    data_digest: str | None = None
    warnings: list[str] = Field(default_factory=list)


def resolve(request: TrainingRequest) -> Resolved:
    """The options with everything filled in but paths and ``epochs``. Raises a UserError."""
    own = {"resume", "config", "overwrite", "if_busy"}
    given = request.model_dump(mode="json", include=request.model_fields_set - own)
    given = {name: value for name, value in given.items() if not (name in ("model", "data") and value is None)}
    warnings: list[str] = []
    base: dict[str, Any] = {}
    checkpoint: Path | None = None
    record: dict[str, Any] | None = None
    step = 0
    if request.config is not None:
        base, warnings = read_config(request.config)
    if request.resume is not None:
        checkpoint, record = find_checkpoint(request.resume)
        step = record["step"]
        known = {name: value for name, value in record["options"].items() if name in TrainingOptions.model_fields}
        base = {**base, **known}
        if gone := record["options"].keys() - known.keys():
            warnings.append(f"the checkpoint, of another version, has options unknown here: {', '.join(sorted(gone))}")
    if given.get("epochs") is not None and "iters" not in given:
        base.pop("iters", None)
    options = _validate({**base, **given})
    if checkpoint is not None:
        warnings += _check_resume(options, base)
        if step > options.iters or (step == options.iters and _completed(request.resume)):
            raise ArgumentError(
                f"the checkpoint is at step {step} and iters={options.iters}; give a larger iters to train on"
            )
    digest = record.get("data_digest") if record else None
    return Resolved(options=options, checkpoint=checkpoint, step=step, data_digest=digest, warnings=warnings)


def _validate(values: dict[str, Any]) -> TrainingOptions:
    try:
        options = TrainingOptions.model_validate(values)
    except ValidationError as error:
        raise explain(error, TrainingOptions) from error
    if options.epochs is not None and "iters" in values:
        raise ArgumentError(f"epochs={options.epochs:g} and iters={options.iters} both say how long; give one of them")
    return options


def resolve_length(options: TrainingOptions, rows: int | None) -> TrainingOptions:
    """Turn ``epochs`` and the phases or name of ``lr_schedule`` into ``iters`` and mlx-lm's form. ``rows``: of train.jsonl."""
    phases = schedule.parse_phases(options.lr_schedule) if isinstance(options.lr_schedule, str) else None
    if options.epochs is not None:
        if rows is None:
            raise ArgumentError("epochs needs local data, whose rows can be counted; give iters instead")
        steps = max(1, math.ceil(options.epochs * options.steps_per_epoch(rows)))
        options = options.model_copy(update={"iters": steps, "epochs": None})
    elif phases is not None and "iters" not in options.model_fields_set:
        options = options.model_copy(update={"iters": sum(iterations for iterations, _ in phases)})
    if phases is not None:
        total = sum(iterations for iterations, _ in phases)
        if total != options.iters:
            raise ArgumentError(
                f"lr_schedule={options.lr_schedule!r} covers {total} iterations but the run has {options.iters}; "
                "make them equal, or leave iters out"
            )
        return options.model_copy(update={"learning_rate": phases[0][1]})
    if isinstance(options.lr_schedule, str):
        form = schedule.named(
            options.lr_schedule,
            rate=options.learning_rate,
            iters=options.iters,
            warmup=options.warmup,
            accumulation=options.grad_accumulation_steps,
        )
        return options.model_copy(update={"lr_schedule": form, "warmup": 0})
    if options.lr_schedule is not None:
        schedule.check_form(options.lr_schedule)
    return options


def find_checkpoint(name: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint folder that ``name`` means (a job id: its newest) and its record. Raises JobError, PathError."""
    folder = settings.resolve(name)
    if not (folder / "checkpoint.json").exists():
        if "/" in name or folder.is_dir():
            raise PathError(
                f"resume={name!r} is not a checkpoint (no checkpoint.json); give a job id or a folder checkpoints/<step>"
            )
        job = store.get(name)
        if not service.reconcile(job).finished:
            raise JobError(
                f"job {name} still runs or waits; stop it first with stop_job, or follow it with read_training_log"
            )
        newest = job.last_checkpoint()
        if newest is None:
            raise JobError(f"job {name} has no checkpoint to resume from; start it again with the same arguments")
        folder = newest
    record = read_json(folder / "checkpoint.json")
    if record is None or "options" not in record:
        raise PathError(
            f"{folder} holds weights but not all that an exact continuation needs; resume from a numbered checkpoint"
        )
    return folder, record


def _completed(name: str | None) -> bool:
    """Whether ``name`` is a job that has nothing left to do. One killed after its last step has still to publish."""
    folder = store.jobs_folder() / str(name)
    return folder.is_dir() and service.reconcile(store.get(str(name))).status == "completed"


def _check_resume(options: TrainingOptions, before: dict[str, Any]) -> list[str]:
    """Warnings about what makes the continuation another run. Raises ArgumentError for what makes it impossible."""
    now = options.model_dump(mode="json")
    old = TrainingOptions.model_validate(before).model_dump(mode="json")
    for name in _STRUCTURE:
        if now[name] != old[name]:
            raise ArgumentError(
                f"{name}={now[name]!r} but the checkpoint was made with {old[name]!r}; its state does not fit. "
                "Leave it out, or start a new run"
            )
    return [
        f"{name} changed from {json.dumps(old[name])} to {json.dumps(now[name])}: "
        "the run goes on, but not exactly as it would have"
        for name in _EXACT
        if now[name] != old[name]
    ]


def data_digest(folder: Path) -> str:
    """A digest of train.jsonl and valid.jsonl, to see whether data changed between two runs."""
    digest = hashlib.sha256()
    for name in ("train.jsonl", "valid.jsonl"):
        try:
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            digest.update(b"-")
    return digest.hexdigest()
