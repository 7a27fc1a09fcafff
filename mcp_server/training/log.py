"""What happened in a job since it was last looked at: small, and enough to decide what to do next."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from mcp_server.errors import brief
from mcp_server.jobs import service, store
from mcp_server.jobs.events import Event, EventSlice, read_since, without_repeats
from mcp_server.jobs.pace import duration
from mcp_server.jobs.service import JobView
from mcp_server.jobs.store import JobFolder, Status
from mcp_server.training.diagnose import Finding, diagnose

MAX_POINTS = 40
MAX_ALERTS = 8
MOST_TEXT = 200  # characters of one alert or symptom
MOST_WHY = 800
_POLL_SECONDS = 0.25
Until = Literal["any", "val", "checkpoint", "alert", "end"]
Progress = Callable[[float, float | None, str], Awaitable[None]]


class LogRequest(BaseModel):
    """Which part of which log."""

    model_config = ConfigDict(extra="forbid")

    job_id: str = Field(description="As start_lora_training or list_jobs gave it")
    since: int = Field(default=0, ge=0, description="The cursor of the last read; 0 reads from the start")
    wait_seconds: float = Field(
        default=0, ge=0, le=1800, allow_inf_nan=False, description="Wait up to this long for news; 0 answers at once"
    )
    until: Until = Field(default="any", description="What to wait for; the end of the job always ends the wait")
    image: bool | None = Field(
        default=None,
        description="The curves as a picture; default once the job has ended, since a picture costs tokens",
    )
    compare_with: list[str] = Field(
        default_factory=list, max_length=7, description="Job ids to draw over it in one picture"
    )


class LogDelta(BaseModel):
    """The news since ``since``."""

    job_id: str
    status: Status
    finished: bool
    summary: str
    cursor: int = Field(description="Pass as since in the next read")
    step: int | None = None
    total: int | None = None
    seconds_left: float | None = None
    train: list[tuple[int, float | str]] = Field(default_factory=list, description="[step, training loss]")
    val: list[tuple[int, float | str]] = Field(default_factory=list, description="[step, validation loss]")
    showing: str | None = Field(default=None, description="Set when points were left out")
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    memory_gb: dict[str, float] | None = Field(default=None, description="The job's own: active, peak, cache")
    phases: list[str] = Field(default_factory=list)
    alerts: list[str] = Field(default_factory=list)
    checkpoint: str | None = Field(default=None, description="The newest checkpoint")
    diagnosis: list[Finding] = Field(default_factory=list, description="What the alerts mean and what to do")
    result: dict[str, Any] | None = Field(default=None, description="What the finished job reports")
    why: str | None = None
    picture: str | None = Field(default=None, description="Why there is no picture though one was asked for")
    sparkline: str | None = Field(default=None, description="The training loss in a line, in a picture's place")
    report: str | None = Field(default=None, description="A page with everything about the job, for people")
    next_step: str | None = None


async def read_log(request: LogRequest, progress: Progress | None = None) -> LogDelta:
    """The news; waits for it when asked, telling ``progress`` about once a second."""
    folder = store.get(request.job_id)
    deadline = time.monotonic() + request.wait_seconds
    told = 0.0
    while True:
        view = await anyio.to_thread.run_sync(service.view, folder)
        finished = view.status in store.TERMINAL
        # Read after the state: what a finished job wrote is all there.
        news = await anyio.to_thread.run_sync(read_since, folder.metrics, request.since)
        now = time.monotonic()
        if finished or now >= deadline or _satisfied(request.until, news.events):
            return _delta(folder, view, news)
        if progress is not None and now - told >= 1.0:
            told = now
            await progress(float(view.step or 0), float(view.total) if view.total else None, _line(view, news.events))
        await anyio.sleep(_POLL_SECONDS)


def _satisfied(until: Until, events: list[Event]) -> bool:
    events = [event for event in events if not event.get("copied")]  # of the run that this one goes on from
    if until == "any":
        return any(event["type"] in ("train", "val", "checkpoint", "alert") for event in events)
    return until != "end" and any(event["type"] == until for event in events)


def _delta(folder: JobFolder, view: JobView, news: EventSlice) -> LogDelta:
    by_type: dict[str, list[Event]] = {}
    for event in without_repeats(news.events):
        by_type.setdefault(event["type"], []).append(event)
    train, val = by_type.get("train", []), by_type.get("val", [])
    shown_train, shown_val = _thin(train), _thin(val)
    newest = train[-1] if train else {}
    memory = by_type.get("memory", [])
    checkpoints = by_type.get("checkpoint", [])
    outcome = folder.outcome() if view.status in store.TERMINAL else None
    return LogDelta(
        job_id=view.job_id,
        status=view.status,
        finished=view.status in store.TERMINAL,
        summary=_line(view, news.events),
        cursor=news.cursor,
        step=view.step,
        total=view.total,
        seconds_left=view.seconds_left,
        train=[(event["step"], _rounded(event["loss"])) for event in shown_train],
        val=[(event["step"], _rounded(event["loss"])) for event in shown_val],
        showing=_showing(len(shown_train) + len(shown_val), len(train) + len(val), news.skipped_bytes),
        learning_rate=newest.get("learning_rate"),
        tokens_per_second=newest.get("tokens_per_second"),
        memory_gb=memory_gb(memory[-1]) if memory else None,
        phases=[brief(event["name"], MOST_TEXT) for event in by_type.get("phase", [])][-MAX_ALERTS:],
        alerts=_alerts(by_type.get("alert", [])),
        checkpoint=checkpoints[-1]["path"] if checkpoints else None,
        diagnosis=diagnose(news.events, view.why),
        result=outcome.result if outcome else None,
        why=brief(view.why, MOST_WHY) if view.why else None,
        report=str(folder.report) if folder.report.exists() else None,
        next_step=_next_step(view, news.cursor),
    )


def _alerts(events: list[Event]) -> list[str]:
    """The newest alert of each kind, with how many there were."""
    kinds: dict[str, list[str]] = {}
    for event in events:
        kinds.setdefault(str(event.get("kind")), []).append(str(event.get("message") or event.get("kind")))
    shown = [
        brief(texts[-1], MOST_TEXT) + (f" ({len(texts)} of this kind)" if len(texts) > 1 else "")
        for texts in kinds.values()
    ]
    return shown[-MAX_ALERTS:]


def memory_gb(event: Event) -> dict[str, float]:
    """A memory event's figures in GB (1e9 bytes)."""
    return {name: round(event[f"{name}_bytes"] / 1e9, 3) for name in ("active", "peak", "cache")}


def _thin(points: list[Event]) -> list[Event]:
    """At most MAX_POINTS, evenly spread, always with the first and the last."""
    if len(points) <= MAX_POINTS:
        return points
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(index * step)] for index in range(MAX_POINTS)]


def _rounded(loss: float | str) -> float | str:
    return round(loss, 4) if isinstance(loss, float | int) else loss


def _showing(shown: int, total: int, skipped_bytes: int) -> str | None:
    if skipped_bytes:
        return f"{shown} points of a long log; {skipped_bytes:,} bytes between were sampled"
    return f"{shown} of {total} points" if shown < total else None


def _line(view: JobView, events: list[Event]) -> str:
    parts = [view.status]
    if view.step is not None and view.total:
        parts.append(f"step {view.step} of {view.total}")
    for name, type in (("loss", "train"), ("validation loss", "val")):
        losses = [event["loss"] for event in events if event["type"] == type]
        if losses:
            parts.append(f"{name} {_rounded(losses[-1])}")
    if view.seconds_left is not None:
        parts.append(f"about {duration(view.seconds_left)} left")
    if view.status == "working" and view.step is None:
        phases = [event["name"] for event in events if event["type"] == "phase"]
        parts += phases[-1:]
    if view.why:
        parts.append(brief(view.why, MOST_TEXT))
    return ", ".join(parts)


def _next_step(view: JobView, cursor: int) -> str | None:
    if view.status in ("working", "queued"):
        return f"read_training_log(job_id={view.job_id!r}, since={cursor}, wait_seconds=60)"
    if view.status in ("failed", "lost", "paused", "cancelled") and view.kind == "train" and view.last_checkpoint:
        return f"start_lora_training(resume={view.job_id!r}) goes on from {view.last_checkpoint}"
    if view.status == "completed" and view.kind == "train":
        return f"compare it with the base model: run_benchmark(model=..., adapter_path={view.adapter_path!r}, data=...)"
    return None
