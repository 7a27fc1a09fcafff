"""Processes that stay the same process: a pid alone is reused, a pid with its start is not."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
from pydantic import BaseModel


class ProcessIdentity(BaseModel, frozen=True):
    """One process. ``start`` tells it from every other that had or will have its ``pid``, on this boot or another."""

    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The identity of a living process. Raises ProcessLookupError when there is none."""
        start = _start(pid)
        if start is None:
            raise ProcessLookupError(pid)
        return cls(pid=pid, start=start)

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        if _start(self.pid) != self.start:
            return False
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; False when it has gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def _start(pid: int) -> str | None:
    if sys.platform == "linux":
        # In ticks since boot. psutil's create_time adds the wall clock, which a clock step moves.
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return f"{_boot_id()}/{fields[19]}"
    try:
        return f"{psutil.Process(pid).create_time():.3f}"
    except psutil.Error:
        return None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
