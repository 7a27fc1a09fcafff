"""Which adapters a benchmark measures, read from files alone."""

from __future__ import annotations

import filecmp
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp_server import settings
from mcp_server.datasets.features import FeatureNames
from mcp_server.errors import ArgumentError, JobError, PathError
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.jobs import service, store
from mcp_server.jobs.files import read_json
from mcp_server.jobs.store import JobFolder
from mcp_server.models import folder as models

WEIGHTS, CONFIG, PROVENANCE = "adapters.safetensors", "adapter_config.json", "provenance.json"


@dataclass(frozen=True)
class Candidates:
    """The adapters and what they were trained with, as far as it is known."""

    folders: list[Path]
    model: str | None = None
    data: str | None = None
    hf_dataset: Any = None
    names: FeatureNames = field(default_factory=FeatureNames)
    mask_prompt: bool = True


def candidates(options: BenchmarkOptions) -> Candidates:
    """The adapters asked for, checked. Raises a UserError naming the one that can't be used."""
    named = {
        "adapter_path": options.adapter_path,
        "adapters": options.adapters,
        "job_id": options.job_id,
    }
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} each name the adapters; give one of them")
    if options.job_id is not None:
        folders = of_job(options.job_id)
    else:
        if options.adapters == []:
            raise ArgumentError("adapters=[] names none; give adapter folders, or leave it out for the base alone")
        single = [options.adapter_path] if options.adapter_path else []
        folders = [settings.resolve(path) for path in options.adapters or single]
    twice = sorted({str(folder) for folder in folders if folders.count(folder) > 1})
    if twice:
        raise ArgumentError(f"adapters names {twice[0]} twice; name each once")
    for folder in folders:
        check_adapter(folder)
    if not folders:
        return Candidates([])
    configs = [read_json(folder / CONFIG) or {} for folder in folders]
    return Candidates(
        folders,
        model=_text(configs[0].get("model")),
        data=_data_of(folders[0], configs[0]),
        hf_dataset=configs[0].get("hf_dataset"),
        names=_names_of(configs[0]),
        mask_prompt=all(map(_learnt_answers_alone, folders, configs)),
    )


def of_job(job_id: str) -> list[Path]:
    """The adapter of a training job and its checkpoints; of those with equal weights the first alone.

    Raises JobError while that may still change, since the benchmark may wait in line, and when the adapter is another's.
    """
    job = store.get(job_id)
    spec = job.spec()
    if spec.kind != "train":
        raise JobError(f"job {job_id} is a {spec.kind} job; give the id of a training, list_jobs shows them")
    target = spec.options.get("adapter_path")
    _require_ended(job, target)
    final = _final(job, Path(target)) if target else None
    found = [final] if final else []
    found += sorted(job.checkpoints.glob("best-*")) + sorted(job.checkpoints.glob("[0-9]*"))
    kept: list[Path] = []
    for folder in found:
        weights = folder / WEIGHTS
        if weights.exists() and not any(filecmp.cmp(weights, other / WEIGHTS, shallow=False) for other in kept):
            kept.append(folder)
    if not kept:
        raise JobError(
            f"job {job_id} has ended ({job.state().status}) without adapter or checkpoint; "
            "start it again, or give another training, list_jobs shows them"
        )
    return kept


def _require_ended(job: JobFolder, target: str | None) -> None:
    """Raise JobError while the job, or another that trains into the same folder, has not ended."""
    for writer in [job, *(other for other in store.all_folders() if _trains_into(other, target))]:
        state = service.reconcile(writer)
        if not state.finished:
            raise JobError(
                f"training {writer.job_id} has not ended ({state.status}): its checkpoints and the adapter in {target} will "
                f"change; wait with read_training_log(job_id={writer.job_id!r}, wait_seconds=600, until='end') and ask "
                "again, or name finished ones with adapters=[...]"
            )


def _trains_into(job: JobFolder, target: str | None) -> bool:
    if target is None or not job.job_id.startswith("train-"):
        return False
    return ((read_json(job.path / "spec.json") or {}).get("options") or {}).get("adapter_path") == target


def _final(job: JobFolder, target: Path) -> Path | None:
    """Where the adapter that this job left lies; None when it left none.

    A later training into the same folder, such as one that resumed it, keeps what was there in ``previous/``.
    """
    owners = {
        place: _owner(place)
        for place in (target, *sorted(target.glob("previous/[!.]*")))
        if (place / WEIGHTS).is_file()
    }
    own = next((place for place, owner in owners.items() if owner == job.job_id), None)
    if own is None and target in owners:
        raise JobError(
            f"the adapter in {target} is not that of job {job.job_id}: its {PROVENANCE} names {owners[target] or 'no job'}; "
            f"give that job_id, or name what to rank with adapters=[...], checkpoints are in {job.checkpoints}"
        )
    return own


def _owner(folder: Path) -> str | None:
    """The training that left these weights, as their record says."""
    return _text((read_json(folder / PROVENANCE) or {}).get("job_id"))


def check_adapter(folder: Path) -> None:
    """Raise PathError unless ``folder`` holds an adapter that mlx-lm could load."""
    if not folder.is_dir():
        raise PathError(f"adapter_path {folder} is not a folder; list_jobs shows the adapters of past jobs")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise PathError(
                f"adapter_path {folder} has no {name}, so it is not an mlx-lm adapter; choose another folder"
            )
    file = folder / CONFIG
    try:
        config: Any = json.loads(file.read_bytes())
    except ValueError as error:
        raise PathError(f"{file} is damaged: {error}; train again or restore it") from error
    if not isinstance(config, dict) or "num_layers" not in config:
        raise PathError(f"{file} is not mlx-lm's (no num_layers); PEFT adapters must be converted")
    if config.get("fine_tune_type", "lora") != "full":
        parameters = config.get("lora_parameters")
        missing = {"rank", "scale", "dropout"} - set(parameters if isinstance(parameters, dict) else ())
        if missing:
            raise PathError(f"{file} has no lora_parameters.{sorted(missing)[0]}; restore it or train again")
    models.tensors(folder / WEIGHTS)


def _learnt_answers_alone(folder: Path, config: dict[str, Any]) -> bool:
    """Whether prompts were masked: by mask_prompt, or by assistant_only_loss, which our own records alone tell."""
    if config.get("mask_prompt"):
        return True
    files = [folder / PROVENANCE, folder / "checkpoint.json"]
    if folder.parent.name == "checkpoints":
        files.append(folder.parent.parent / "spec.json")  # of best-*, whose record holds no options
    options = [(read_json(file) or {}).get("options") for file in files]
    return any(isinstance(one, dict) and one.get("assistant_only_loss") for one in options)


def _data_of(folder: Path, config: dict[str, Any]) -> str | None:
    """The data set of the adapter's training: of its provenance, else of its configuration."""
    data = (read_json(folder / PROVENANCE) or {}).get("data")
    recorded = data.get("path") if isinstance(data, dict) else None
    return _text(recorded) or _text(config.get("data"))


def _names_of(config: dict[str, Any]) -> FeatureNames:
    """What the rows of the adapter's training call their fields."""
    named = {name: text for name in FeatureNames.model_fields if (text := _text(config.get(name))) is not None}
    return FeatureNames.model_validate(named)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
