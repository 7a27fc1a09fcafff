"""Which Python runs the jobs. It needs mlx-lm; the server's own need not have it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from mcp_server.errors import PlatformError

INSTALL = (
    "install MLX: `uv sync --extra mlx` in the plugin's folder, or `pip install 'mlx-training[mlx]'`, "
    "or set MLX_TRAINING_PYTHON to a Python 3.11+ that has mlx-lm, pydantic and psutil"
)


def find() -> Path | None:
    """First found wins: ``$MLX_TRAINING_PYTHON``; this interpreter, if mlx-lm is installed in it (not imported);
    the environment in ``$CLAUDE_PLUGIN_DATA/mlx``. None when there is none."""
    named = os.environ.get("MLX_TRAINING_PYTHON")
    if named:
        path = Path(named).expanduser()
        if not os.access(path, os.X_OK) or path.is_dir():
            raise PlatformError(f"MLX_TRAINING_PYTHON={named} is not an executable Python; correct it or unset it")
        return path
    if importlib.util.find_spec("mlx_lm") is not None and importlib.util.find_spec("mlx") is not None:
        return Path(sys.executable)
    data = os.environ.get("CLAUDE_PLUGIN_DATA")
    if data:
        prepared = Path(data) / "mlx" / "bin" / "python"
        if prepared.exists():
            return prepared
    return None


def require() -> Path:
    """``find``, or ``PlatformError`` saying how to install MLX."""
    python = find()
    if python is None:
        raise PlatformError(f"no Python with mlx-lm was found; {INSTALL}")
    return python
