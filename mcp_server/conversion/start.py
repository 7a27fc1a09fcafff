"""Checks before a conversion or a fusion. What is wrong is said here, and nothing is left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mcp_server import settings
from mcp_server.conversion.gguf import check_gguf
from mcp_server.conversion.options import ConvertOptions, FuseOptions
from mcp_server.conversion.source import check_convertible, converted_bytes, fused_bytes
from mcp_server.conversion.text import find_text
from mcp_server.errors import ArgumentError, ModelError, PathError
from mcp_server.evaluation.start import check_adapter
from mcp_server.jobs import service, store
from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import JobFolder
from mcp_server.models import folder as models
from mcp_server.platform.check import require_platform
from mcp_server.training.options import short_name

_FILE_MARGIN_BYTES = 50 * 10**6  # tokenizer and configuration
TO_MEASURE = ("test", "valid", "train")
TO_LEARN = ("train",)


def start_conversion(options: ConvertOptions, *, if_busy: IfBusy = "queue") -> JobFolder:
    """Check model, data, target and disk, then start the job. Raises a UserError; nothing is left then."""
    require_platform()
    target = _new_folder(options.mlx_path or f"models/{short_name(options.model)}-{options.suffix()}", "mlx_path")
    data = _resolve_data(options)
    if options.revision is not None and settings.resolve(options.model).exists():
        raise ArgumentError(
            f"revision={options.revision!r} goes with a Hub id, and {options.model} is a folder; leave it out"
        )
    # Of another revision than the cached one only the job can say what it holds.
    source = models.locate(options.model) if options.revision is None else None
    if source is not None:
        check_convertible(source, options)
        check_disk(target, converted_bytes(source, options), "mlx_path")
    job_id = store.new_id("convert")
    resolved = options.model_copy(update={**data, "model": str(source or options.model), "mlx_path": str(target)})
    _make_parent(target, "mlx_path")
    return service.start("convert", resolved, job_id=job_id, if_busy=if_busy, scratch=scratch_of(target, job_id))


def start_fusion(options: FuseOptions, *, if_busy: IfBusy = "queue") -> JobFolder:
    """Check adapter, base, target and disk, then start the job. Raises a UserError; nothing is left then."""
    require_platform()
    adapter = settings.resolve(options.adapter_path)
    check_adapter(adapter)
    target = _new_folder(options.save_path or f"models/{adapter.name}-fused", "save_path")
    model = options.model or base_of(adapter)
    data = {"eval_data": str(find_text(options.eval_data, "eval_data", TO_MEASURE))} if options.eval_data else {}
    source = models.locate(model)
    if source is not None:
        models.check(source)
        if options.export_gguf:
            check_gguf(source, dequantize=options.dequantize)
        needed = fused_bytes(source, dequantize=options.dequantize, gguf=options.export_gguf)
        check_disk(target, needed, "save_path")
    job_id = store.new_id("fuse")
    resolved = options.model_copy(
        update={**data, "adapter_path": str(adapter), "model": str(source or model), "save_path": str(target)}
    )
    _make_parent(target, "save_path")
    return service.start("fuse", resolved, job_id=job_id, if_busy=if_busy, scratch=scratch_of(target, job_id))


def base_of(adapter: Path) -> str:
    """The model that an adapter was trained on, as its configuration says. Raises ModelError when it says none."""
    model = json.loads((adapter / "adapter_config.json").read_bytes()).get("model")
    if not isinstance(model, str) or not model:
        raise ModelError(f"{adapter / 'adapter_config.json'} names no model; give the base with model=")
    return model


def scratch_of(target: Path, job_id: str) -> Path:
    """Where the result grows until it is whole: beside the target, so that a rename puts it there."""
    return target.parent / f".{target.name}.{job_id}.partial"


def check_disk(target: Path, weights_bytes: int, argument: str) -> None:
    """Raise PathError unless a result of this size fits beside ``target``."""
    existing = next(parent for parent in target.parents if parent.is_dir())
    free, needed = shutil.disk_usage(existing).free, weights_bytes + _FILE_MARGIN_BYTES
    if free < needed:
        raise PathError(
            f"the result may need {needed / 1e9:.2f} GB but {free / 1e9:.2f} GB are free at {existing}; "
            f"free space or choose another {argument} on another disk"
        )


def _resolve_data(options: ConvertOptions) -> dict[str, str]:
    found: dict[str, str] = {}
    if options.eval_data is not None:
        found["eval_data"] = str(find_text(options.eval_data, "eval_data", TO_MEASURE))
    if options.calibration_data is not None:
        found["calibration_data"] = str(find_text(options.calibration_data, "calibration_data", TO_LEARN))
    return found


def _new_folder(given: str, argument: str) -> Path:
    target = settings.resolve(given)
    if target.exists() or target.is_symlink():
        raise PathError(f"{argument} {target} is already there and models are never overwritten; choose a new name")
    return target


def _make_parent(target: Path, argument: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PathError(f"{target.parent} can't be made: {error.strerror}; choose another {argument}") from error
