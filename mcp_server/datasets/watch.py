"""Progress out of, and cancellation into, a service that runs in a thread of the server."""

from __future__ import annotations

import time
from collections.abc import Callable

Report = Callable[[float, float | None, str], None]
_REPORT_SECONDS = 0.5


class Cancelled(Exception):
    """The caller went away. Nothing half made is left."""


class Watch:
    """What a long service calls now and then."""

    def __init__(self, report: Report | None = None) -> None:
        self._report = report
        self._told = 0.0
        self._cancelled = False

    def cancel(self) -> None:
        """Make the service end at its next ``tick``; may be called from any thread."""
        self._cancelled = True

    def tick(self, done: float, total: float | None, what: str) -> None:
        """Say how far ``what`` is, about twice a second. Raises Cancelled after ``cancel``."""
        now = time.monotonic()
        if self._report is not None and not self._cancelled and now - self._told >= _REPORT_SECONDS:
            self._told = now
            self._report(done, total, what)
        if self._cancelled:
            raise Cancelled(what)
