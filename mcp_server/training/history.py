"""The whole course of one job, ready to be drawn: curves, memory, alerts. From the job's own log, at a bounded cost.

Needs pydantic at most: the server, the runner and the process that draws pictures all read it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp_server.jobs.events import Event, read_since, without_repeats

Points = list[tuple[float, float]]

READ_BYTES = 8 * 1024 * 1024  # some 40,000 events; of a longer log, evenly spaced samples
LIVE_BYTES = 1024 * 1024  # for what is read again every second or two beside a training
# Curves: field of an event, by the event's type.
_CURVES: dict[str, dict[str, str]] = {
    "train": {"loss": "train", "learning_rate": "learning_rate", "tokens_per_second": "speed"},
    "val": {"loss": "val"},
    "memory": {"active_bytes": "active", "peak_bytes": "peak", "cache_bytes": "cache", "available_bytes": "available"},
}


@dataclass(frozen=True)
class AlertMark:
    """An alert and where it was raised. ``step`` is None for one that belongs to no step."""

    kind: str
    message: str
    level: str
    step: int | None
    time: float | None


@dataclass
class History:
    """Curves are lists of (step, value) with rising steps and finite values; memory in bytes, speed in tokens a second."""

    train: Points = field(default_factory=list)
    val: Points = field(default_factory=list)
    learning_rate: Points = field(default_factory=list)
    speed: Points = field(default_factory=list)
    active: Points = field(default_factory=list)
    peak: Points = field(default_factory=list)
    cache: Points = field(default_factory=list)
    available: Points = field(default_factory=list)
    alerts: list[AlertMark] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # of the newest "training" phase and "data" event
    not_finite: list[int] = field(default_factory=list)  # steps whose loss was NaN or infinite
    total: int | None = None
    sampled: bool = False

    @property
    def best(self) -> tuple[float, float] | None:
        """Step and loss of the lowest validation after a step was made, as ``best-*`` checkpoints count it."""
        return min((point for point in self.val if point[0] > 0), key=lambda point: point[1], default=None)


def read_history(metrics: Path, limit: int = READ_BYTES) -> History:
    """The history in ``metrics`` (a job's ``metrics.jsonl``) from at most ``limit`` bytes of it; empty when there is none."""
    found = read_since(metrics, 0, limit)
    history = History(sampled=found.skipped_bytes > 0)
    for event in without_repeats(found.events):
        _take(history, event)
    for names in _CURVES.values():
        for name in names.values():
            setattr(history, name, _rising(getattr(history, name)))
    return history


def _take(history: History, event: Event) -> None:
    kind, step = event["type"], event.get("step")
    if isinstance(event.get("total"), int):
        history.total = event["total"]
    if kind == "alert":
        history.alerts.append(
            AlertMark(
                kind=str(event.get("kind") or "alert"),
                message=str(event.get("message") or event.get("kind") or "alert"),
                level=str(event.get("level") or "warning"),
                step=step if isinstance(step, int) else None,
                time=event.get("time"),
            )
        )
    elif kind == "phase":
        history.phases.append(str(event.get("name")))
    if kind == "data" or (kind == "phase" and event.get("name") == "training"):
        history.facts |= {key: value for key, value in event.items() if key not in ("type", "time", "name", "total")}
    if not isinstance(step, int):
        return
    for key, name in _CURVES.get(kind, {}).items():
        value = event.get(key)
        if isinstance(value, float | int) and math.isfinite(value):
            getattr(history, name).append((step, value))
        elif key == "loss" and value is not None:
            history.not_finite.append(step)


def _rising(points: Points) -> Points:
    """Without the points that later ones went back over: a sampled log may lack the resume that says so."""
    kept: Points = []
    for point in points:
        while kept and kept[-1][0] >= point[0]:
            kept.pop()
        kept.append(point)
    return kept


def smooth(points: Points, share: float = 0.03) -> Points:
    """The running mean of the values; a window of ``share`` of them counts for about two thirds."""
    weight = 1 / max(share * len(points), 1)
    mean = points[0][1] if points else 0.0
    found: Points = []
    for x, y in points:
        mean += weight * (y - mean)
        found.append((x, mean))
    return found


def thin(points: Points, most: int) -> Points:
    """At most about ``most`` points: of each stretch of steps the lowest and the highest, so that no spike is lost; both
    ends stay."""
    if len(points) <= most:
        return points
    stretches, first, last = max(most // 2 - 1, 1), points[0][0], points[-1][0]

    def stretch(point: tuple[float, float]) -> int:
        return int((point[0] - first) / ((last - first) or 1) * stretches)

    kept = [points[0]]
    for _, group in itertools.groupby(points[1:-1], key=stretch):
        part = list(group)
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return [*kept, points[-1]]
