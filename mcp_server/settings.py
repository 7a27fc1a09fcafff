"""Where things are and what is allowed, from the environment. Standard library alone; the hooks read it too."""

from __future__ import annotations

import os
from pathlib import Path

PLATFORMS = ("apple-silicon", "linux-cpu", "linux-cuda")


def home() -> Path:
    """The state folder: ``$MLX_TRAINING_HOME``, else ``~/.mlx-training``. Never inside the plugin, which updates replace."""
    return Path(os.environ.get("MLX_TRAINING_HOME") or "~/.mlx-training").expanduser()


def project() -> Path:
    """The user's project, against which relative paths are read: Claude Code's project folder, else the current one."""
    return Path(os.environ.get("CLAUDE_PROJECT_DIR") or os.getcwd())


def resolve(path: str | Path) -> Path:
    """``path`` as an absolute path of the project, ``~`` expanded. Links are kept as the user wrote them."""
    return Path(os.path.abspath(project() / Path(path).expanduser()))


def allowed_platforms() -> tuple[str, ...]:
    """Where MLX jobs may run: ``$MLX_TRAINING_PLATFORMS`` (comma separated), by default Apple Silicon alone."""
    named = os.environ.get("MLX_TRAINING_PLATFORMS", "")
    chosen = tuple(name.strip() for name in named.split(",") if name.strip() in PLATFORMS)
    return chosen or ("apple-silicon",)
