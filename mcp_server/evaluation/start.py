"""Checks before a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

from mcp_server import settings
from mcp_server.datasets.folder import check_split
from mcp_server.errors import PathError
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.jobs import service, store
from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import JobFolder
from mcp_server.models import folder as models
from mcp_server.platform.check import require_platform


def start_benchmark(options: BenchmarkOptions, *, if_busy: IfBusy = "queue") -> JobFolder:
    """Check model, adapter and test set, then start the job. Raises a UserError; nothing is left then."""
    require_platform()
    source = models.locate(options.model)
    if source is not None:
        models.check(source)
    adapter = settings.resolve(options.adapter_path) if options.adapter_path else None
    if adapter is not None:
        check_adapter(adapter)
    data = settings.resolve(options.data)
    split = check_split(data, "test")
    resolved = options.model_copy(
        update={
            "model": str(source or options.model),
            "adapter_path": str(adapter) if adapter else None,
            "data": str(data),
            "batch_size": min(options.batch_size, split.rows),
            "mask_prompt": options.mask_prompt and split.format != "text",
        }
    )
    return service.start("benchmark", resolved, job_id=store.new_id("benchmark"), if_busy=if_busy)


def check_adapter(folder: Path) -> None:
    """Raise PathError unless ``folder`` holds an adapter that mlx-lm could load."""
    if not folder.is_dir():
        raise PathError(f"adapter_path {folder} is not a folder; list_jobs shows the adapters of past jobs")
    for name in ("adapter_config.json", "adapters.safetensors"):
        if not (folder / name).exists():
            raise PathError(
                f"adapter_path {folder} has no {name}, so it is not an mlx-lm adapter; choose another folder"
            )
    try:
        config = json.loads((folder / "adapter_config.json").read_bytes())
    except ValueError as error:
        raise PathError(f"{folder / 'adapter_config.json'} is damaged: {error}; train again or restore it") from error
    if not isinstance(config, dict) or "num_layers" not in config:
        raise PathError(
            f"{folder / 'adapter_config.json'} is not mlx-lm's (no num_layers); PEFT adapters must be converted"
        )
    models.tensors(folder / "adapters.safetensors")
