"""Which Python runs the jobs. It needs mlx-lm; the server's own need not have it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from pathlib import Path

from mcp_server import settings
from mcp_server.errors import PlatformError

INSTALL = (
    "call prepare_environment (`mlx-training prepare-environment`), which installs MLX with locked versions, "
    "or set MLX_TRAINING_PYTHON to a Python 3.11+ that has mlx-lm, pydantic and psutil"
)

_BUILDS = {"linux-cpu": "mlx[cpu]", "linux-cuda": "mlx[cuda13]"}


def find() -> Path | None:
    """First found wins: ``$MLX_TRAINING_PYTHON``; this interpreter, if mlx-lm is installed in it (not imported);
    the environment that ``prepare_environment`` made. None when there is none."""
    named = os.environ.get("MLX_TRAINING_PYTHON")
    if named:
        # Absolute, since a job works elsewhere; links stay, since that of an environment's python is what makes it one.
        path = Path(named).expanduser().absolute()
        if not os.access(path, os.X_OK) or path.is_dir():
            raise PlatformError(f"MLX_TRAINING_PYTHON={named} is not an executable Python; correct it or unset it")
        return path
    if importlib.util.find_spec("mlx_lm") is not None and importlib.util.find_spec("mlx") is not None:
        return Path(sys.executable)
    # The folder behind the link: a job keeps the environment it was started with when a newer one takes its place.
    python = prepared().resolve() / "bin" / "python"
    return python if python.exists() else None


def is_ours(python: Path) -> bool:
    """Whether ``python``, which ``find`` gave, is of the environment that ``prepare_environment`` makes and may replace."""
    return not os.environ.get("MLX_TRAINING_PYTHON") and python.parent.parent == prepared().resolve()


def renewal(backend: str | None) -> str:
    """What to do for whole and new mlx and mlx-lm where the jobs run."""
    python = find()
    if python is None or is_ours(python):
        return "call prepare_environment with reinstall=true"
    mlx = shlex.quote(_BUILDS.get(backend or "", "mlx"))
    command = f"`uv pip install --python {shlex.quote(str(python))} --upgrade --reinstall {mlx} mlx-lm`"
    advice = f"renew them where jobs run: {command}"
    named = os.environ.get("MLX_TRAINING_PYTHON")
    return f"{advice}, or unset MLX_TRAINING_PYTHON, which names it, and call prepare_environment" if named else advice


def install(requirement: str, python: Path | str = sys.executable) -> str:
    """The command that adds a package to the environment of ``python``. Of a plugin `uv sync` reaches none that it uses."""
    return f"`uv pip install --python {shlex.quote(str(python))} {shlex.quote(requirement)}`"


def prepared() -> Path:
    """Where ``prepare_environment`` puts the environment: ``mlx`` in the plugin's data folder, else in the state folder."""
    data = os.environ.get("CLAUDE_PLUGIN_DATA")
    return (Path(data) if data else settings.home()) / "mlx"


def require() -> Path:
    """``find``, or ``PlatformError`` saying how to install MLX."""
    python = find()
    if python is None:
        raise PlatformError(f"no Python with mlx-lm was found; {INSTALL}")
    return python
