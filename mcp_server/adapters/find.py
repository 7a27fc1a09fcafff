"""Where adapters lie: in the project, and where past jobs put theirs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mcp_server import settings
from mcp_server.jobs import store
from mcp_server.jobs.files import read_json

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
_SKIPPED = {"node_modules", "__pycache__", "checkpoints", "site-packages"}  # and every hidden folder
_MOST_FOLDERS = 20_000
_DEEPEST = 8


@dataclass(frozen=True)
class Found:
    """Adapter folders as absolute paths, and whether the search was cut short."""

    folders: list[Path]
    cut: bool


def find_adapters(root: Path) -> Found:
    """The adapters below ``root`` and those of all past trainings that are still there. Links are not followed."""
    below, cut = _walk(root)
    folders = {os.path.realpath(folder): folder for folder in below}
    for job in store.all_folders():
        if not job.job_id.startswith("train-"):
            continue
        path = ((read_json(job.path / "spec.json") or {}).get("options") or {}).get("adapter_path")
        if isinstance(path, str) and is_adapter(Path(path)):
            folders.setdefault(os.path.realpath(path), Path(path))
    return Found(sorted(folders.values()), cut)


def is_adapter(folder: Path) -> bool:
    """Whether mlx-lm could be given this folder as ``adapter_path``."""
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def _walk(root: Path) -> tuple[list[Path], bool]:
    """Breadth first, so that a cut search has seen what lies near."""
    home = os.path.realpath(settings.home())
    found: list[Path] = []
    seen, cut, level = 0, False, [root]
    for _ in range(_DEEPEST):
        below: list[Path] = []
        for folder in level:
            seen += 1
            if seen > _MOST_FOLDERS:
                return found, True
            names, children = _look(folder)
            if {WEIGHTS, CONFIG} <= names:
                found.append(folder)
            below += [child for child in children if os.path.realpath(child) != home]
        level = below
    return found, cut or bool(level)


def _look(folder: Path) -> tuple[set[str], list[Path]]:
    """Names of the files, and the folders to go on with."""
    names: set[str] = set()
    children: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _SKIPPED and not entry.name.startswith("."):
                        children.append(folder / entry.name)
                elif entry.is_file():
                    names.add(entry.name)
    except OSError:
        pass  # a folder that may not be read
    return names, sorted(children)
