"""Checks before a benchmark: what is wrong is said in a second, and nothing is left."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from mcp_server import settings
from mcp_server.datasets import hub
from mcp_server.datasets.folder import check_split
from mcp_server.errors import ArgumentError, DataError, ModelError, PathError, PlatformError
from mcp_server.evaluation import metrics
from mcp_server.evaluation.adapters import Candidates, candidates, check_adapter
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.jobs import service, store
from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import JobFolder
from mcp_server.models import folder as models
from mcp_server.platform import interpreter
from mcp_server.platform.check import require_platform

__all__ = ["check_adapter", "start_benchmark"]
TEXT_SUFFIXES = (".txt", ".md", ".jsonl")
_LM_EVAL = "lm-eval>=0.4.9"


def start_benchmark(options: BenchmarkOptions, *, if_busy: IfBusy = "queue") -> JobFolder:
    """Check model, adapters and data, then start the job. Raises a UserError; nothing is left then.

    In the job's spec ``adapters`` lists every adapter, with ``adapter_path`` for a single one or a job's own.
    """
    require_platform()
    found = candidates(options)
    model = options.model or found.model
    if model is None:
        raise ModelError("model is missing and no adapter names one; give the folder or Hub id of the base")
    source = models.locate(model)
    if source is not None:
        models.check(source)
    data = _data(options, found)
    names = options.over(found.names)
    split = check_split(data, options.split, names.features)
    mask = found.mask_prompt if options.mask_prompt is None else options.mask_prompt
    single = options.job_id is not None or len(found.folders) == 1
    resolved = options.model_copy(
        update={
            "model": str(source or model),
            "adapter_path": str(found.folders[0]) if single else None,
            "adapters": [str(folder) for folder in found.folders] or None,
            "data": str(data),
            **names.model_dump(exclude_defaults=True),
            "batch_size": min(options.batch_size, split.rows),
            "mask_prompt": mask and split.format != "text",
            **_checked_files(options),
            "tasks": _checked_tasks(options),
        }
    )
    return service.start("benchmark", resolved, job_id=store.new_id("benchmark"), if_busy=if_busy)


def _data(options: BenchmarkOptions, found: Candidates) -> Path:
    named = options.data or found.data
    if named is None:
        raise DataError(f"data is missing and no adapter names its own; give the folder with {options.split}.jsonl")
    hf_dataset = None if options.data is not None else found.hf_dataset
    if hub.is_hub_data(named, hf_dataset):
        also = "" if hf_dataset is None else "hf_dataset=<that of its training>, "
        raise DataError(
            f"the data {hub.name_of(named, hf_dataset)} are on the Hub, and a benchmark reads {options.split}.jsonl of a folder; "
            f"write one with prepare_dataset(source={named!r}, {also}output=<new folder>) and give it as data"
        )
    return settings.resolve(named)


def _checked_files(options: BenchmarkOptions) -> dict[str, str | None]:
    """Absolute paths of the schema, the own metric and the general text, each checked."""
    schema = settings.resolve(options.json_schema) if options.json_schema else None
    if schema is not None:
        metrics.json_schema(schema)
    general = settings.resolve(options.forgetting_data) if options.forgetting_data else None
    if general is not None:
        _check_text(general)
    return {
        "json_schema": str(schema) if schema else None,
        "metric": _checked_metric(options) if options.metric else None,
        "forgetting_data": str(general) if general else None,
    }


def _checked_metric(options: BenchmarkOptions) -> str:
    named, function = metrics.split_metric(options.metric or "")
    file = settings.resolve(named)
    if not file.is_file():
        raise PathError(f"metric {file} does not exist; give 'file.py:function'")
    _require_code_allowed(options, f"metric={options.metric!r}")
    return f"{file}:{function}"


def _require_code_allowed(options: BenchmarkOptions, what: str) -> None:
    if not options.allow_metric_code:
        raise ArgumentError(
            f"{what} runs Python code from that file; read it, then call again with allow_metric_code=true"
        )


def _check_text(path: Path) -> None:
    if not path.exists():
        raise PathError(f"forgetting_data {path} does not exist; give a text file or a folder of them")
    if not text_files(path):
        raise DataError(f"forgetting_data {path} holds no {', '.join(TEXT_SUFFIXES)} file with text in it; add one")


def text_files(path: Path) -> list[Path]:
    """The files of general text that ``path`` is or holds, in the order of their names."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in files if file.suffix in TEXT_SUFFIXES and file.is_file() and file.stat().st_size]


def _checked_tasks(options: BenchmarkOptions) -> list[str] | None:
    """The tasks, those that are YAML files as absolute paths."""
    if not options.tasks:
        return None
    python = interpreter.require()
    if not _has_package(python, "lm_eval"):
        raise PlatformError(
            f"tasks need lm-evaluation-harness, which {python} does not have; install it: "
            f"{interpreter.install(_LM_EVAL, python)} (in this repository: `uv sync --extra mlx --extra lm-eval`)"
        )
    checked: list[str] = []
    for task in options.tasks:
        if not task.endswith((".yaml", ".yml")):
            checked.append(task)
            continue
        file = settings.resolve(task)
        if not file.is_file():
            raise PathError(f"tasks names {file}, which does not exist; give a task's name or its YAML file")
        _require_code_allowed(options, f"a task of its own may name functions: {task}")
        checked.append(str(file))
    return checked


def _has_package(python: Path, name: str) -> bool:
    if str(python) == sys.executable:
        return importlib.util.find_spec(name) is not None
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    return subprocess.run([str(python), "-c", code], capture_output=True, timeout=60).returncode == 0
