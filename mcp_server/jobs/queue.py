"""Who is next for the machine. Each waiting runner holds a locked ticket file; a ticket that can be locked is dead."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from mcp_server import settings


def folder() -> Path:
    return settings.home() / "queue"


class Ticket:
    """One place in the line, first come first served, from creation until ``leave`` or the end of the process."""

    def __init__(self, job_id: str) -> None:
        folder().mkdir(parents=True, exist_ok=True)
        self.path = folder() / f"{time.time_ns():020d}.{job_id}"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def ahead(self) -> list[str]:
        """The ids of the jobs before this one, oldest first."""
        return [name.partition(".")[2] for name in _waiting() if name < self.path.name]

    def leave(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def waiting() -> list[str]:
    """The ids of all jobs in line, oldest first."""
    return [name.partition(".")[2] for name in _waiting()]


def _waiting() -> list[str]:
    try:
        names = sorted(path.name for path in folder().iterdir())
    except OSError:
        return []
    # Nothing but tickets: a look with Finder leaves a .DS_Store.
    return [name for name in names if name.partition(".")[0].isdecimal() and _held(folder() / name)]


def _held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        # Created a moment ago and about to be locked by its owner, or left behind by a runner that was killed.
        if time.time_ns() - int(path.name.partition(".")[0]) > 60_000_000_000:
            path.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)
