"""What lies beside an adapter's weights: where it came from and how to make it again."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import mcp_server
from mcp_server.datasets.secrets import redact_value
from mcp_server.jobs.cleanup import RESERVATION
from mcp_server.jobs.files import read_json, sync_folder, write_json
from mcp_server.jobs.store import JobSpec
from mcp_server.training.options import TrainingOptions

PROVENANCE = RESERVATION
_WEIGHTS, _CONFIG = "adapters.safetensors", "adapter_config.json"


def write_provenance(folder: Path, spec: JobSpec, data: dict[str, Any], **results: Any) -> None:
    """``provenance.json``: job, model, data (hashes of its files as they were trained on, rows of each split), options,
    versions, results, and the command that repeats it."""
    options = TrainingOptions.model_validate(spec.options)
    write_json(
        folder / PROVENANCE,
        {
            "job_id": spec.job_id,
            "created": spec.created,
            "model": options.model,
            "data": {"path": options.data} | data,
            "options": options.model_dump(mode="json"),
            "versions": versions(),
            "results": results,
            "command": command(repeated(options)),
        },
    )


def add_results(folder: Path, results: dict[str, Any]) -> None:
    """Add to the results in ``provenance.json`` of an adapter that is published."""
    record = read_json(folder / PROVENANCE) or {}
    write_json(folder / PROVENANCE, record | {"results": record.get("results", {}) | results})


def reserve(folder: Path, job_id: str) -> None:
    """Take the name of a new adapter folder, so that no other start can. Raises FileExistsError when it is taken."""
    folder.mkdir(parents=True)
    write_json(folder / PROVENANCE, {"job_id": job_id})


def keep_aside(folder: Path) -> Path | None:
    """Move nothing, lose nothing: what an adapter takes the place of in ``folder`` stays as a copy in ``previous/<time>/``, also
    where it is no adapter of ours: one of PEFT has settings of the same name, a converted model a provenance.

    Hard links, so that the weights in place stay loadable until new ones take their place. All of it is on the disk when this
    returns, since the caller goes on to remove the originals.
    """
    there = [folder / name for name in (_CONFIG, PROVENANCE, _WEIGHTS) if (folder / name).exists()]
    if not there or (there == [folder / PROVENANCE] and (read_json(there[0]) or {}).keys() == {"job_id"}):
        return None  # nothing, or what ``reserve`` left
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(there[-1].stat().st_mtime))
    aside, number = folder / "previous" / stamp, 1
    while aside.exists():
        if all((aside / file.name).is_file() and filecmp.cmp(aside / file.name, file, shallow=False) for file in there):
            return aside
        number += 1  # another adapter of the same second
        aside = aside.with_name(f"{stamp}-{number}")
    temporary = aside.with_name(f".{aside.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # half a copy, of a job that was killed here
    temporary.mkdir(parents=True)
    for file in there:
        kept = temporary / file.name
        try:
            os.link(file, kept)
        except OSError:
            shutil.copy2(file, kept)  # a file system without hard links
        with kept.open("rb") as handle:
            os.fsync(handle.fileno())
    sync_folder(temporary)
    temporary.rename(aside)
    sync_folder(aside.parent)
    sync_folder(folder)
    return aside


def put_in_place(new: Path, folder: Path) -> None:
    """Move the files of a whole adapter from ``new`` into ``folder``, on the same disk.

    From the first move to the last the folder has no weights and does not load: whatever happens between, new settings never
    lie beside old weights.
    """
    weights = folder / _WEIGHTS
    weights.unlink(missing_ok=True)
    sync_folder(folder)  # so that no power cut brings them back beside what comes now
    for name in (_CONFIG, PROVENANCE):
        (new / name).replace(folder / name)
    sync_folder(folder)
    (new / _WEIGHTS).replace(weights)
    sync_folder(folder)


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    found = {"python": platform.python_version(), "mlx-training": mcp_server.__version__}
    for name in ("mlx", "mlx-lm", "transformers", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hashes(folder: Path) -> dict[str, str]:
    """Of every .jsonl file in ``folder`` that can be read."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.jsonl")):
        with contextlib.suppress(OSError), file.open("rb") as handle:
            found[file.name] = "sha256:" + hashlib.file_digest(handle, "sha256").hexdigest()
    return found


def data_digest(files: dict[str, str]) -> str:
    """Of train.jsonl and valid.jsonl by their ``hashes``: one figure, to see whether data changed between two runs."""
    digest = hashlib.sha256()
    for name in ("train.jsonl", "valid.jsonl"):
        digest.update(bytes.fromhex(files[name].removeprefix("sha256:")) if name in files else b"-")
    return digest.hexdigest()


def command(options: BaseModel, name: str = "train") -> str:
    """The ``mlx-training`` command of this name with these options; those at their defaults are left out."""
    words = ["mlx-training", name]
    for option, value in changed(options).items():
        flag = "--" + option.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)


def changed(options: BaseModel) -> dict[str, Any]:
    """The options that differ from their defaults, as plain data without secrets."""
    found: dict[str, Any] = {}
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if value != field.get_default(call_default_factory=True):
            found[name] = value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value
    return redact_value(found)


def repeated(options: TrainingOptions) -> TrainingOptions:
    """The same run for a new adapter, since an existing one is never overwritten."""
    return options.model_copy(update={"adapter_path": None})
