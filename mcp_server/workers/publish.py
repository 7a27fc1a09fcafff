"""From a finished scratch folder to the place the user named, and a clear word when the disk is full on the way."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Generator
from pathlib import Path

from mcp_server.errors import PathError
from mcp_server.jobs.files import sync_folder

# What mlx's own writers say when a file can't grow; they pass on no errno.
_WRITE_FAILED = ("Unable to write", "[save_gguf]")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def room_for(scratch: Path) -> Generator[None]:
    """Turns a full disk in the body into a PathError. The scratch folder goes when the job ends."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in _NO_ROOM
        if not full and not any(text in str(error) for text in _WRITE_FAILED):
            raise
        free = shutil.disk_usage(scratch.parent).free
        raise PathError(
            f"the disk of {scratch.parent} would not take the model ({error}; {free / 1e9:.2f} GB are free); nothing was "
            "kept: free space or choose a path on another disk, and start again"
        ) from error


def check_free(target: Path, argument: str) -> None:
    """Raise PathError when something came into being at ``target`` since the job was asked for, perhaps while it waited."""
    if target.exists() or target.is_symlink():
        raise _taken(target, argument)


def _taken(target: Path, argument: str) -> PathError:
    return PathError(f"{argument} {target} came into being while the job waited or ran; start again with a new name")


def publish(scratch: Path, target: Path, argument: str) -> None:
    """Rename the finished ``scratch`` to ``target``, which must not exist. Raises PathError when it came into being."""
    for path in scratch.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(scratch)
    check_free(target, argument)
    try:
        scratch.rename(target)
    except OSError as error:
        raise _taken(target, argument) from error
    sync_folder(target.parent)
