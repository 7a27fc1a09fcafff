"""Waiting for a job to end, for calls that want its result and not only its id."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import anyio
import anyio.to_thread

from mcp_server.jobs import service, store
from mcp_server.jobs.service import JobView
from mcp_server.jobs.store import JobFolder

Progress = Callable[[float, float | None, str], Awaitable[None]]
_POLL_SECONDS = 0.25


async def wait_for_end(folder: JobFolder, seconds: float, progress: Progress | None = None) -> JobView:
    """The job when it has ended, or as it is after ``seconds``; about once a second ``progress`` is told."""
    deadline = time.monotonic() + seconds
    told = 0.0
    while True:
        view = await anyio.to_thread.run_sync(service.view, folder)
        now = time.monotonic()
        if view.status in store.TERMINAL or now >= deadline:
            return view
        if progress is not None and now - told >= 1.0:
            told = now
            await progress(float(view.step or 0), float(view.total) if view.total else None, view.status)
        await anyio.sleep(_POLL_SECONDS)
