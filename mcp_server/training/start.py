"""Everything that is checked before a training may start. What is wrong is said here, in a second, and nothing is left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import BaseModel, Field

from mcp_server import settings
from mcp_server.datasets import hub
from mcp_server.datasets.folder import DataReport, check_for_training
from mcp_server.errors import DataError, ModelError, PathError, brief
from mcp_server.jobs import hosts, service, store
from mcp_server.jobs.files import read_json
from mcp_server.jobs.hosts import Ready
from mcp_server.jobs.store import JobFolder, Status
from mcp_server.jobs.world import World
from mcp_server.models import folder as models
from mcp_server.planning.before_start import before_start
from mcp_server.platform import interpreter
from mcp_server.platform.check import require_platform
from mcp_server.training import artifacts
from mcp_server.training.options import TrainingOptions, short_name
from mcp_server.training.ranks import check_batch, world_of
from mcp_server.training.request import TrainingRequest, resolve, resolve_length
from mcp_server.training.resume import Earlier

_DISK_MARGIN_BYTES = 200 * 10**6


class TrainingStarted(BaseModel):
    """A training that was set going."""

    job_id: str
    status: Status
    why: str | None = Field(default=None, description="What a queued job waits for")
    backend: str
    adapter_path: str = Field(description="Where the adapter will be")
    iters: int
    resumed_at: int | None = Field(default=None, description="The step it goes on from")
    train_rows: int | None = None
    epochs: float | None = Field(default=None, description="How often each training row is seen")
    effective_batch: int = Field(description="Rows that make one update")
    ranks: int | None = Field(default=None, description="Processes that train together, when more than one")
    rows_per_rank: int | None = None
    warnings: list[str]
    next_step: str


def start_training(request: TrainingRequest) -> TrainingStarted:
    """Check everything, then start the job. Raises a UserError naming the value and the remedy; nothing is left then."""
    backend = require_platform()
    interpreter.require()  # before anything is made
    resolved = resolve(request)
    earlier = resolved.earlier
    options = _check_model(resolved.options)
    options, report = _check_data(options)
    rows = report.splits["train"].rows if report else None
    options = _check_start_weights(resolve_length(options, rows))
    if earlier is not None:
        earlier.check_length(options.iters)
    world = world_of(options, backend)
    if world is not None:
        check_batch(options.batch_size, world.size)
    ready = _check_hosts(world, options)
    recovered, remembered = earlier.recovery_for(options) if earlier else (None, [])
    warnings = [*resolved.warnings, *_changes(earlier, options), *remembered]
    job_id = store.new_id("train")
    adapter = _adapter_folder(options, job_id, earlier, overwrite=request.overwrite)
    options = options.model_copy(update={"adapter_path": str(adapter)})
    memory = before_start(options, backend, world, resumed=earlier is not None)
    memory.check_others(ready)
    warnings += memory.warnings
    _check_disk(settings.home())
    _check_disk(adapter)
    reserved = None if adapter.exists() else adapter
    if reserved is not None:
        _reserve(adapter, job_id)
    folder = service.start(
        "train",
        options,
        job_id=job_id,
        if_busy=request.if_busy,
        reserved=reserved,
        resume_from=earlier.checkpoint if earlier else None,
        needs_bytes=memory.needs_bytes,
        world=world,
        recovered=recovered,
    )
    memory.remember(folder)
    return _started(folder, backend, options, earlier, report, warnings)


def _started(
    folder: JobFolder,
    backend: str,
    options: TrainingOptions,
    earlier: Earlier | None,
    report: DataReport | None,
    warnings: list[str],
) -> TrainingStarted:
    view = service.view(folder)
    rows = report.splits["train"].rows if report else None
    return TrainingStarted(
        job_id=folder.job_id,
        status=view.status,
        why=view.why,
        backend=backend,
        adapter_path=str(options.adapter_path),
        iters=options.iters,
        resumed_at=earlier.step if earlier else None,
        train_rows=rows,
        epochs=round(options.iters / options.steps_per_epoch(rows), 2) if rows else None,
        effective_batch=options.batch_size * options.grad_accumulation_steps,
        ranks=view.ranks,
        rows_per_rank=options.batch_size // view.ranks if view.ranks else None,
        warnings=[*warnings, *(report.warnings if report else []), *_advice(options, report)],
        next_step=f"follow it with read_training_log(job_id={folder.job_id!r}, wait_seconds=60); it goes on without you",
    )


def _check_model(options: TrainingOptions) -> TrainingOptions:
    """The options with the model's absolute path, where it is on this machine."""
    path = models.locate(options.model)
    if path is None:
        return options  # a Hub id that the job downloads
    config = models.check(path)
    layers = models.layer_count(config)
    if layers is not None and options.num_layers > layers:
        raise ModelError(
            f"num_layers={options.num_layers} but {options.model} has {layers} layers; "
            f"use at most {layers}, or -1 for all"
        )
    return options.model_copy(update={"model": str(path)})


def _check_data(options: TrainingOptions) -> tuple[TrainingOptions, DataReport | None]:
    """The options with the data's absolute path and what was found in it; None for data on the Hub, which the job loads."""
    if hub.is_hub_data(options.data, options.hf_dataset):
        return options.model_copy(update={"hf_dataset": hub.located(options.hf_dataset)}), None
    data = settings.resolve(options.data)
    report = check_for_training(
        data,
        batch_size=options.batch_size,
        validate=options.val_batches != 0,
        test=options.test,
        mask_prompt=options.mask_prompt,
        assistant_only_loss=options.assistant_only_loss,
        stock=options.stock,
        names=options.features,
    )
    return options.model_copy(update={"data": str(data)}), report


def _check_hosts(world: World | None, options: TrainingOptions) -> Ready | None:
    """See that every machine of ``world`` has what its ranks need. Raises HostError, ModelError, DataError."""
    if world is None:
        return None
    if world.local < world.size:
        if not Path(options.model).is_dir():
            raise ModelError(f"model {options.model!r} is not on this machine; over several it is read from a folder")
        if not Path(options.data).is_dir():
            raise DataError(f"data {options.data!r} is no folder here; over several machines each reads its own copy")
    return hosts.check(world, str(interpreter.require()), options.model, options.data)


def _check_start_weights(options: TrainingOptions) -> TrainingOptions:
    if options.resume_adapter_file is None:
        return options
    file = settings.resolve(options.resume_adapter_file)
    if file.is_dir():
        file = file / "adapters.safetensors"
    if not file.is_file():
        raise PathError(f"resume_adapter_file {file} does not exist; give the adapters.safetensors to begin with")
    lora = {name: one["shape"] for name, one in models.tensors(file).items() if name.endswith(".lora_a")}
    if options.fine_tune_type != "full" and not lora:
        raise PathError(
            f"resume_adapter_file {file} holds no weights that mlx-lm's LoRA has (named ….lora_a); "
            "give the adapters.safetensors of an adapter that mlx-lm trained"
        )
    rank = options.lora_parameters.rank
    # A layer of experts has three dimensions: the job itself compares all names and shapes.
    other = [shape[-1] for shape in lora.values() if len(shape) == 2 and shape[-1] != rank]
    if options.fine_tune_type != "full" and other:
        raise PathError(
            f"resume_adapter_file {file} is of rank {other[0]} but this run's is {rank}; "
            f"give lora_parameters with rank {other[0]}, or another file"
        )
    return options.model_copy(update={"resume_adapter_file": str(file)})


def _changes(earlier: Earlier | None, options: TrainingOptions) -> list[str]:
    if earlier is None:
        return []
    found = earlier.changes(options)
    if earlier.data_digest is not None and earlier.data_digest != artifacts.data_digest(
        artifacts.hashes(Path(options.data))
    ):
        found.append(
            f"the data in {options.data} changed since the checkpoint: the run goes on, but not exactly as it would have"
        )
    return found


def _adapter_folder(options: TrainingOptions, job_id: str, earlier: Earlier | None, *, overwrite: bool) -> Path:
    chosen = options.adapter_path or f"adapters/{short_name(options.model)}-{job_id.removeprefix('train-')}"
    folder = settings.resolve(chosen)
    goes_on = _is_path_of(folder, earlier)
    may_exist = overwrite or (goes_on and _is_own(folder, earlier))
    try:
        empty = folder.is_dir() and not any(folder.iterdir())
        if empty and not folder.is_symlink():
            folder.rmdir()  # made beforehand: nothing to lose
    except OSError as error:
        raise PathError(
            f"adapter_path {folder} can't be looked into or replaced: {error.strerror or error}; "
            "choose a folder you may write to"
        ) from error
    if (folder.exists() or folder.is_symlink()) and not (may_exist and folder.is_dir()):
        if folder.is_file():
            kind = "a file"
        elif empty:
            kind = f"a link to {os.path.realpath(folder)}, an empty folder; give that one itself, or overwrite=true"
        elif goes_on:
            maker = brief(str((read_json(folder / artifacts.PROVENANCE) or {}).get("job_id", "another run")), 80)
            raise PathError(
                f"adapter_path {folder} holds the adapter of {maker} by now, not of the run that goes on; "
                f"resume it with another adapter_path such as {folder.name}-2, or with overwrite=true"
            )
        else:
            kind = "already there, and adapters are never overwritten unless overwrite=true"
        raise PathError(f"adapter_path {folder} is {kind}; choose a new name such as {folder.name}-2")
    return folder


def _is_path_of(folder: Path, earlier: Earlier | None) -> bool:
    """Whether the run that goes on publishes into ``folder``."""
    own = earlier.options.adapter_path if earlier else None
    return own is not None and os.path.realpath(folder) == os.path.realpath(own)


def _is_own(folder: Path, earlier: Earlier | None) -> bool:
    """Whether what ``folder`` holds, if it holds weights, is of the run that goes on: it is kept in ``previous/``.

    The path alone does not tell: while a run is paused its folder is free, and another may have published there.
    """
    if not any(folder.glob("*.safetensors")):
        return True
    maker = (read_json(folder / artifacts.PROVENANCE) or {}).get("job_id")
    # The checkpoint's job may be one that the run went on from; all of them began with the same job.
    owner = store.owner_of(earlier.checkpoint) if earlier else None
    return isinstance(maker, str) and owner is not None and store.first_of(maker) == store.first_of(owner)


def _reserve(adapter: Path, job_id: str) -> None:
    try:
        artifacts.reserve(adapter, job_id)
    except FileExistsError as error:
        raise PathError(
            f"adapter_path {adapter} was taken by another start a moment ago; choose another name"
        ) from error
    except NotADirectoryError as error:
        raise PathError(f"adapter_path {adapter} lies below a file; choose a path below a folder") from error
    except OSError as error:
        shutil.rmtree(adapter, ignore_errors=True)
        raise PathError(
            f"adapter_path {adapter} can't be written: {error.strerror or error}; choose a folder you may write to"
        ) from error


def _check_disk(path: Path) -> None:
    existing = next(parent for parent in (path, *path.parents) if parent.is_dir())
    if not os.access(existing, os.W_OK):
        raise PathError(
            f"{existing} can't be written (no permission); choose a folder you may write to or change its permissions"
        )
    free = shutil.disk_usage(existing).free
    if free < _DISK_MARGIN_BYTES:
        raise PathError(
            f"only {free / 1e6:.0f} MB are free at {existing}, and checkpoints need room; "
            f"free at least {_DISK_MARGIN_BYTES / 1e6:.0f} MB or choose another disk"
        )


def _advice(options: TrainingOptions, report: DataReport | None) -> list[str]:
    """What is allowed but seldom meant."""
    if report is None:
        return []
    found: list[str] = []
    epochs = options.iters / options.steps_per_epoch(report.splits["train"].rows)
    if epochs > 20:
        found.append(f"each row is seen {epochs:.0f} times: overfitting is likely; lower iters or add rows")
    if "test" not in report.splits:
        found.append(
            "no test.jsonl: run_benchmark will need one to show that the adapter is better than the base model"
        )
    return found
