"""Small things that several test modules say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from mcp.client import Client

from mcp_server.jobs import service, store
from mcp_server.jobs.store import JobFolder


def training(**changes: Any) -> dict[str, Any]:
    """Arguments of a short training in the fixture ``project``."""
    return {
        "model": "model",
        "data": "data",
        "adapter_path": "adapters/test",
        "num_layers": 1,
        "iters": 6,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "max_seq_length": 64,
        "steps_per_report": 2,
        "steps_per_eval": 3,
        "save_every": 2,
        "val_batches": 1,
    } | changes


def in_short(cases: Iterable[Any], *short: Any) -> list[Any]:
    """The cases of a test, all but ``short`` marked slow: `make test` runs those alone, `make e2e` the others."""
    return [case if case in short else pytest.param(*_values(case), marks=pytest.mark.slow) for case in cases]


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured result of a call that must succeed."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """The error text of a call that must fail as anticipated: one sentence, no traceback, no crash."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    text = " ".join(getattr(block, "text", "") for block in result.content)
    assert "Traceback" not in text
    assert "which nobody foresaw" not in text, "the tool crashed"
    return text


async def end_of(client: Client, job_id: str, seconds: float = 90) -> dict[str, Any]:
    """The log of a job that has ended."""
    news = await call(client, "read_training_log", job_id=job_id, wait_seconds=seconds, until="end")
    assert news["finished"], news
    return news


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The first true value of ``condition``; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    pytest.fail(f"waited {seconds} s for {what}")


def folder(job_id: str) -> JobFolder:
    return store.get(job_id)


def status(job_id: str) -> str:
    return service.reconcile(store.get(job_id)).status


def steps_done(job_id: str) -> int:
    return service.view(store.get(job_id)).step or 0
