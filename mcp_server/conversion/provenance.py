"""``provenance.json`` of a converted or fused model: what it was made from, how, and how it came out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mcp_server.conversion.options import ConvertOptions, FuseOptions
from mcp_server.jobs.files import read_json, write_json
from mcp_server.jobs.store import JobSpec
from mcp_server.training.artifacts import PROVENANCE, command, versions

_COMMANDS: dict[str, tuple[str, type[BaseModel]]] = {
    "convert": ("convert", ConvertOptions),
    "fuse": ("fuse", FuseOptions),
}


def write_provenance(folder: Path, spec: JobSpec, result: BaseModel, *, made_from: dict[str, Any]) -> None:
    """Write it into ``folder``. ``made_from``: the models and adapters that went in."""
    name, kind = _COMMANDS[spec.kind]
    write_json(
        folder / PROVENANCE,
        {
            "job_id": spec.job_id,
            "created": spec.created,
            "kind": spec.kind,
            "made_from": {key: value for key, value in made_from.items() if value is not None},
            "options": spec.options,
            "versions": versions(),
            "results": result.model_dump(mode="json", exclude_none=True),
            "command": command(kind.model_validate(spec.options), name),
        },
    )


def adapter_origin(adapter: Path) -> dict[str, Any]:
    """Which adapter: its folder, the hash of its weights, and the job that trained it, where that is known."""
    with (adapter / "adapters.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    trained = (read_json(adapter / PROVENANCE) or {}).get("job_id")
    return {"adapter_path": str(adapter), "adapter_weights": f"sha256:{digest}", "adapter_job_id": trained}
