"""The demo's model and data alone, for examples that anyone can repeat offline."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from pydantic import BaseModel

from mcp_server import settings
from mcp_server.demo import BASE, task
from mcp_server.errors import PathError


class DemoFiles(BaseModel):
    """What was written."""

    model: str
    data: str


def new_folder(output: Path | None) -> Path:
    """Where a demo goes, by default a new folder below ``demo-run``; refused when it exists."""
    folder = settings.resolve(output or f"demo-run/{time.strftime('%Y%m%d-%H%M%S')}")
    if folder.exists():
        raise PathError(f"{folder} is already there; choose another --output or leave it out")
    return folder


def write_files(output: Path | None) -> DemoFiles:
    """``model``, the demo's base, and ``data``, its rows in chat format, in a new folder."""
    folder = new_folder(output)
    try:
        task.write_dataset(folder / "data")
        shutil.copytree(BASE, folder / "model")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PathError(f"{folder} can't be written: {error.strerror or error}; choose another --output") from error
    return DemoFiles(model=str(folder / "model"), data=str(folder / "data"))
