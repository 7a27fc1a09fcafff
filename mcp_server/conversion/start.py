"""Checks before a conversion, and what it reports."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel, Field

from mcp_server import settings
from mcp_server.conversion.options import ConvertOptions
from mcp_server.errors import PathError
from mcp_server.jobs import service, store
from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import JobFolder
from mcp_server.models import folder as models
from mcp_server.platform.check import require_platform
from mcp_server.training.options import short_name

_FILE_MARGIN_BYTES = 50 * 10**6  # tokenizer and configuration


class ConversionResult(BaseModel):
    """A converted model that was loaded again and generated text."""

    mlx_path: str
    source_bytes: int = Field(description="Weights before, bytes on disk")
    bytes: int = Field(description="Weights after, bytes on disk")
    bits_per_weight: float
    sample: str = Field(description="What it generates for a short prompt, to show that it loads")
    seconds: float


def start_conversion(options: ConvertOptions, *, if_busy: IfBusy = "queue") -> JobFolder:
    """Check model, target and disk, then start the job. Raises a UserError; nothing is left then."""
    require_platform()
    target = settings.resolve(options.mlx_path or f"models/{short_name(options.model)}-{options.suffix()}")
    if target.exists() or target.is_symlink():
        raise PathError(f"mlx_path {target} is already there and models are never overwritten; choose a new name")
    source = models.locate(options.model)
    if source is not None:
        models.check(source)
        _check_disk(target, models.size_bytes(source) + _FILE_MARGIN_BYTES)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PathError(f"{target.parent} can't be made: {error.strerror}; choose another mlx_path") from error
    job_id = store.new_id("convert")
    resolved = options.model_copy(update={"model": str(source or options.model), "mlx_path": str(target)})
    return service.start("convert", resolved, job_id=job_id, if_busy=if_busy, scratch=scratch_of(target, job_id))


def scratch_of(target: Path, job_id: str) -> Path:
    """Where the result grows until it is whole: beside the target, so that a rename puts it there."""
    return target.parent / f".{target.name}.{job_id}.partial"


def _check_disk(target: Path, needed: int) -> None:
    existing = next(parent for parent in target.parents if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise PathError(
            f"the result may need {needed / 1e9:.2f} GB but {free / 1e9:.2f} GB are free at {existing}; "
            "free space or choose an mlx_path on another disk"
        )
