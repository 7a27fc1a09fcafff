"""How long a job will take yet, and times in words. Standard library alone; the hooks read it too."""

from __future__ import annotations

from typing import Any


def seconds_left(recent: list[dict[str, Any]]) -> float | None:
    """Time to the last step at the pace of the newest reports; the first report holds compilation and does not count."""
    # Before a resume lie another process's reports, and the time that the run lay still.
    begun = max((at for at, event in enumerate(recent) if event["type"] == "resume"), default=0)
    reports = [event for event in recent[begun:] if event["type"] in ("train", "progress") and "total" in event]
    # Rows that are tokenized and answers that are generated are not the steps to come: like is reckoned with like alone.
    reports = [event for event in reports if _counts(event) == _counts(reports[-1])]
    reports = reports[-20:] if len(reports) > 2 else []
    if not reports:
        return None
    first, last = reports[0], reports[-1]
    done = last["step"] - first["step"]
    return round((last["time"] - first["time"]) / done * (last["total"] - last["step"]), 1) if done > 0 else None


def _counts(event: dict[str, Any]) -> tuple[Any, Any]:
    """What the steps of a report are."""
    return event["type"], event.get("name")


def duration(seconds: float) -> str:
    """Seconds in words, two units at most."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
