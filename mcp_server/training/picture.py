"""Which picture of a training goes with its log. Reads only: what is drawn anew goes through a temporary file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mcp_server.errors import UserError
from mcp_server.jobs import store
from mcp_server.jobs.store import JobFolder
from mcp_server.platform import interpreter
from mcp_server.training import curve
from mcp_server.training.history import read_history


@dataclass(frozen=True)
class Picture:
    """A PNG, or why there is none with a line of text in its place."""

    png: bytes | None = None
    note: str | None = None
    sparkline: str | None = None


def picture(job_id: str, *, image: bool | None, compare_with: list[str], finished: bool) -> Picture:
    """The picture asked for. ``image`` None: the one drawn when the job ended, if it has; several runs are always drawn.

    Raises JobError for a job that does not exist.
    """
    folder = store.get(job_id)
    others = [store.get(name) for name in compare_with]
    if image is False or (image is None and not others and not finished):
        return Picture()
    if finished and not others and (ready := _ready(folder)) is not None:
        return Picture(png=ready)
    if image is None and not others:
        return Picture()  # nothing was drawn at the end: a conversion, or a job that was killed
    history = read_history(folder.metrics)
    if not (history.train or history.val or others):
        return Picture(note=f"no picture: {job_id} has reported no loss")
    return _drawn([folder, *others])


def _ready(folder: JobFolder) -> bytes | None:
    try:
        return (folder.path / curve.PICTURE).read_bytes()
    except OSError:
        return None


def _drawn(folders: list[JobFolder]) -> Picture:
    python = _python(folders[0])
    reason = "no Python with mlx-lm was found"
    if python is not None:
        with tempfile.TemporaryDirectory() as scratch:
            png = Path(scratch) / curve.PICTURE
            failed = curve.write_png({_name(folder): folder.metrics for folder in folders}, png, python)
            if failed is None:
                return Picture(png=png.read_bytes())
            reason = failed
    lines = [f"{_name(folder)}: {curve.sparkline(read_history(folder.metrics).train)}" for folder in folders]
    return Picture(note=f"no picture: {reason}", sparkline="\n".join(lines))


def _python(folder: JobFolder) -> str | None:
    """The interpreter that ran the job, while it is there, else the one that would run the next."""
    recorded = folder.spec().python
    if Path(recorded).exists():
        return recorded
    try:
        found = interpreter.find()
    except UserError:
        return None
    return str(found) if found else None


def _name(folder: JobFolder) -> str:
    """What people call a run: its adapter's folder, made unique by the job id's end."""
    adapter = folder.spec().options.get("adapter_path")
    return f"{Path(adapter).name} ({folder.job_id})" if adapter else folder.job_id
