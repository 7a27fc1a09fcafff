"""Where things are and what is allowed, from the environment. Standard library alone; the hooks read it too."""

from __future__ import annotations

import os
from pathlib import Path

_LONGEST_NAME = 255  # bytes, on APFS as on Linux
PLATFORMS = ("apple-silicon", "linux-cpu", "linux-cuda")


def home() -> Path:
    """The state folder: ``$MLX_TRAINING_HOME``, else ``~/.mlx-training``. Never inside the plugin, which updates replace.

    Absolute: a job's processes work in another folder than the one that started them.
    """
    return Path(os.path.abspath(Path(os.environ.get("MLX_TRAINING_HOME") or "~/.mlx-training").expanduser()))


def project() -> Path:
    """The user's project, against which relative paths are read: Claude Code's project folder, else the current one."""
    return Path(os.environ.get("CLAUDE_PROJECT_DIR") or os.getcwd())


def resolve(path: str | Path) -> Path:
    """``path`` as an absolute path of the project, ``~`` expanded. Links are kept as the user wrote them.

    Raises PathError for text that no file system takes for a path; looking it up would be an error of its own.
    """
    try:
        found = Path(os.path.abspath(project() / Path(path).expanduser()))
    except RuntimeError:
        why = "there is no such user's home"
    else:
        if "\0" not in str(path) and all(len(part.encode(errors="replace")) <= _LONGEST_NAME for part in found.parts):
            return found
        why = f"it has a NUL character, or a name of more than {_LONGEST_NAME} bytes"
    from mcp_server.errors import PathError  # the hooks read this module without pydantic

    raise PathError(f"{str(path)[:80]!r} can't be a path: {why}; give a file or folder")


def allowed_platforms() -> tuple[str, ...]:
    """Where MLX jobs may run: ``$MLX_TRAINING_PLATFORMS`` (comma separated), by default Apple Silicon alone."""
    named = os.environ.get("MLX_TRAINING_PLATFORMS", "")
    chosen = tuple(name.strip() for name in named.split(",") if name.strip() in PLATFORMS)
    return chosen or ("apple-silicon",)
