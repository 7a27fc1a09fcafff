"""Everything that is checked before a training may start. Whatever is wrong is said here, in a second, and nothing is left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import BaseModel, Field

from mcp_server import settings
from mcp_server.datasets.folder import DataReport, check_for_training
from mcp_server.errors import ModelError, PathError
from mcp_server.jobs import service, store
from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import Status
from mcp_server.models import folder as models
from mcp_server.platform.check import require_platform
from mcp_server.training import artifacts
from mcp_server.training.options import TrainingOptions, short_name

_DISK_MARGIN_BYTES = 200 * 10**6


class TrainingStarted(BaseModel):
    """A training that was set going."""

    job_id: str
    status: Status
    why: str | None = Field(default=None, description="What a queued job waits for")
    backend: str
    adapter_path: str = Field(description="Where the adapter will be")
    iters: int
    train_rows: int
    epochs: float = Field(description="How often each training row is seen")
    warnings: list[str]
    next_step: str


def start_training(options: TrainingOptions, *, if_busy: IfBusy = "queue") -> TrainingStarted:
    """Check everything, then start the job. Raises a UserError naming the value and the remedy; nothing is left then."""
    backend = require_platform()
    options = _check_model(options)
    data = settings.resolve(options.data)
    report = check_for_training(data, batch_size=options.batch_size, validate=options.val_batches != 0, test=False)
    job_id = store.new_id("train")
    adapter = _adapter_folder(options, job_id)
    options = options.model_copy(update={"data": str(data), "adapter_path": str(adapter)})
    _check_disk(settings.home())
    _check_disk(adapter)
    _reserve(adapter, job_id)
    folder = service.start("train", options, job_id=job_id, if_busy=if_busy, reserved=adapter)
    view = service.view(folder)
    return TrainingStarted(
        job_id=job_id,
        status=view.status,
        why=view.why,
        backend=backend,
        adapter_path=str(adapter),
        iters=options.iters,
        train_rows=report.splits["train"].rows,
        epochs=round(options.iters * options.batch_size / report.splits["train"].rows, 2),
        warnings=[*report.warnings, *_advice(options, report)],
        next_step=f"follow it with read_training_log(job_id={job_id!r}, wait_seconds=60); it goes on without you",
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
            f"num_layers={options.num_layers} but {options.model} has {layers} layers; use at most {layers}, or -1 for all"
        )
    return options.model_copy(update={"model": str(path)})


def _adapter_folder(options: TrainingOptions, job_id: str) -> Path:
    chosen = options.adapter_path or f"adapters/{short_name(options.model)}-{job_id.removeprefix('train-')}"
    folder = settings.resolve(chosen)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()  # an empty folder made beforehand: nothing to lose
    if folder.exists() or folder.is_symlink():
        kind = "a file" if folder.is_file() else "already there, and adapters are never overwritten"
        raise PathError(f"adapter_path {folder} is {kind}; choose a new name such as {folder.name}-2")
    return folder


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
        raise PathError(f"{existing} can't be written (no permission); choose another path or change its permissions")
    free = shutil.disk_usage(existing).free
    if free < _DISK_MARGIN_BYTES:
        raise PathError(
            f"only {free / 1e6:.0f} MB are free at {existing}, and checkpoints need room; "
            f"free at least {_DISK_MARGIN_BYTES / 1e6:.0f} MB or choose another disk"
        )


def _advice(options: TrainingOptions, report: DataReport) -> list[str]:
    """What is allowed but seldom meant."""
    found: list[str] = []
    epochs = options.iters * options.batch_size / report.splits["train"].rows
    if epochs > 20:
        found.append(f"each row is seen {epochs:.0f} times: overfitting is likely; lower iters or add rows")
    if "test" not in report.splits:
        found.append(
            "no test.jsonl: run_benchmark will need one to show that the adapter is better than the base model"
        )
    return found
