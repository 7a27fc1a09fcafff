"""What a model folder holds, read from config.json and file headers alone: no weights, no mlx."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

from mcp_server import settings
from mcp_server.errors import ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


def locate(model: str) -> Path | None:
    """The local folder of ``model``: a path, or a Hub id whose snapshot is in the Hugging Face cache.

    None for a Hub id that has yet to be downloaded (the job does that). Raises ModelError when ``model`` is neither.
    """
    path = settings.resolve(model)
    if path.exists():
        return path
    looks_local = model.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(model)
    if not looks_local:
        cached = _cached_snapshot(model)
        # A download that was cut short goes on in the job; offline it is given to ``check``, which says what is missing.
        if cached is not None and (offline_by() or not missing_files(cached)):
            return cached
        # "models/my-model" has the form of a Hub id; a folder of that first name in the project says it was meant as a path.
        looks_local = (settings.project() / model.split("/")[0]).is_dir()
    if looks_local:
        raise ModelError(
            f"model {model!r} does not exist ({path}); give a folder with config.json and *.safetensors, "
            "or a Hub id such as 'mlx-community/Qwen2.5-3B-Instruct-4bit'"
        )
    if variable := offline_by():
        raise ModelError(
            f"model {model!r} is neither a folder nor in the Hugging Face cache, and {variable} is set; "
            f"give a model's folder, or unset {variable} to download it"
        )
    return None


def offline_by() -> str | None:
    """The variable by which huggingface_hub asks nothing of the Hub, by its own rules; it is not imported for that."""
    name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return name if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") else None


def hub_home() -> Path:
    """The folder of huggingface_hub, by its own rules; it is not imported for that."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser()


def hub_cache() -> Path:
    """Where downloaded models lie."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named).expanduser() if named else hub_home() / "hub"


def _cached_snapshot(model: str) -> Path | None:
    """The snapshot of the branch ``main`` in the Hub cache, as ``huggingface_hub`` lays it out."""
    repository = hub_cache() / f"models--{model.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = repository / "snapshots" / revision
    return snapshot if (snapshot / "config.json").exists() and weight_files(snapshot) else None


def check(path: Path) -> dict[str, Any]:
    """The model's config. Raises ModelError when ``path`` is not a model folder mlx-lm can load, saying what is missing."""
    if not path.is_dir():
        raise ModelError(f"model {path} is a file; give the folder that holds config.json and *.safetensors")
    config = read_config(path)
    if not weight_files(path):
        found = ", ".join(sorted(entry.suffix or entry.name for entry in path.iterdir())[:6]) or "nothing"
        hint = (
            "; *.gguf and *.bin can't be trained, get the safetensors version"
            if any(path.glob("*.gguf")) or any(path.glob("*.bin"))
            else ""
        )
        raise ModelError(f"model {path} has no *.safetensors weights (found {found}){hint}")
    if not any((path / name).exists() for name in _TOKENIZER_FILES):
        raise ModelError(f"model {path} has no tokenizer files (tokenizer.json); copy them from the original model")
    missing = missing_files(path)
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelError(
            f"model {path} is incomplete: its index names weights in {shown}, which are not there; "
            "go online and download it again"
        )
    for file in weight_files(path):
        tensors(file)
    return config


def missing_files(path: Path) -> list[str]:
    """The files that the index of a model in several files names and that are not there (a download that was cut short).

    An index left over from before the files were merged names tensors that are found elsewhere; that is no loss.
    """
    try:
        index: dict[str, str] = json.loads((path / "model.safetensors.index.json").read_bytes())["weight_map"]
        absent = {name for name in set(index.values()) if not (path / name).exists()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    if not absent:
        return []
    present = {name for file in weight_files(path) if file.exists() for name in tensors(file)}
    return sorted({file for name, file in index.items() if file in absent and name not in present})


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` of a model folder. Raises ModelError when it is missing or not a model's."""
    file = path / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path} is not a model: it has no config.json; give the folder of a model") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} can't be read: {error}; download or convert the model again") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(f"{path} is not a language model: config.json names no model_type")
    return config


def layer_count(config: dict[str, Any]) -> int | None:
    """Transformer blocks, by the names the architectures use; None where none is known."""
    for level in (config, config.get("text_config") or {}):
        for name in ("num_hidden_layers", "n_layers", "n_layer", "num_layers"):
            if isinstance(level.get(name), int):
                return level[name]
    return None


def size_bytes(path: Path) -> int:
    """Bytes of weights on disk."""
    return sum(file.stat().st_size for file in weight_files(path))


def tensors(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: name → {dtype, shape, data_offsets}. Raises ModelError when damaged or cut short.

    Format: 8 bytes little-endian header length, JSON header, data (huggingface.co/docs/safetensors).
    """
    try:
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            size = os.fstat(handle.fileno()).st_size
            header = json.loads(handle.read(length)) if 0 < length <= size else None
    except (OSError, ValueError, struct.error) as error:
        raise ModelError(f"{file} is not a safetensors file ({error}); download or convert the model again") from error
    if not isinstance(header, dict):
        raise ModelError(f"{file} is not a safetensors file; download or convert the model again")
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < 8 + length + end:
        raise ModelError(
            f"{file} is cut short ({size} of {8 + length + end} bytes); download or convert the model again"
        )
    return header


def weight_files(path: Path) -> list[Path]:
    """The files mlx-lm loads weights from."""
    return sorted(path.glob("model*.safetensors"))
