"""A folder that appears whole or not at all: it grows beside its place under a hidden name and is renamed at the end.

The hidden folder holds a lock for as long as its process lives, so what a killed process left is known and removed by the
next one that works in the same parent.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path
from types import TracebackType

from mcp_server.errors import PathError
from mcp_server.jobs import lock
from mcp_server.jobs.files import sync_folder

_SUFFIX = ".preparing"
_YOUNG_SECONDS = 60.0  # a folder without a lock may be between two steps of its owner


class Staging:
    """``with Staging(output) as folder: ...; staging.publish()``. Without ``publish`` nothing is left."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self.folder = output.parent / f".{output.name}.{secrets.token_hex(4)}{_SUFFIX}"
        self._made: list[Path] = []
        self._lock: int | None = None
        self._published = False

    def __enter__(self) -> Staging:
        require_new(self._output)
        parent = self._output.parent
        try:
            for missing in reversed([path for path in (parent, *parent.parents) if not path.exists()]):
                missing.mkdir()
                self._made.append(missing)
            remove_abandoned(parent)
            self.folder.mkdir()
            self._lock = lock.acquire(str(self.folder / "lock"))
        except OSError as error:
            self._remove()
            raise PathError(
                f"output {self._output} can't be made: {error.strerror or error}; choose a folder you may write to"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._published:
            self._remove()
        if self._lock is not None:
            os.close(self._lock)
        if isinstance(error, OSError):
            raise PathError(
                f"output {self._output} could not be written: {error.strerror or error}; nothing was left, free disk space"
            ) from error

    def publish(self) -> None:
        """Put the folder in its place. Raises PathError when something came into being there meanwhile."""
        (self.folder / "lock").unlink()
        for file in self.folder.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        sync_folder(self.folder)
        require_new(self._output)
        self.folder.rename(self._output)
        self._published = True
        sync_folder(self._output.parent)

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:
                return  # somebody else uses it by now


def require_new(output: Path) -> None:
    """Raises PathError when there is anything at ``output``."""
    if output.exists() or output.is_symlink():
        raise PathError(
            f"output {output} is already there and nothing is overwritten; choose a new folder such as {output.name}-2"
        )


def remove_abandoned(parent: Path) -> None:
    """Remove the hidden folders of processes that were killed."""
    for folder in parent.glob(f".*{_SUFFIX}"):
        file = folder / "lock"
        try:
            if not file.exists():
                if time.time() - folder.stat().st_mtime > _YOUNG_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            descriptor = lock.acquire(str(file))
        except OSError:
            continue  # its owner has just finished, or it is another user's
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)
