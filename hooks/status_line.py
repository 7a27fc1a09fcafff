"""One line on the running job for Claude Code's status line; nothing when none runs. Standard library alone, and quick.

`statusLine` in a person's settings names the command `status-line` in the plugin's data folder, which runs this file.
"""

from __future__ import annotations

import sys

sys.path.append(__file__.rpartition("/hooks/")[0])
from mcp_server import settings
from mcp_server.jobs.events import tail
from mcp_server.jobs.lock import read_holder
from mcp_server.jobs.pace import duration, seconds_left

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any


def status() -> str:
    """What runs on this machine now, whichever session started it."""
    home = settings.home()
    holder = read_holder(str(home / "gpu.lock"))
    if not holder or not holder.get("job_id"):
        return ""
    recent = tail(home / "jobs" / str(holder["job_id"]) / "metrics.jsonl")
    return " · ".join(["MLX " + str(holder.get("kind") or "job"), *numbers(recent)])


def numbers(recent: list[dict[str, Any]]) -> list[str]:
    """Step, loss, time left, as far as they are known."""
    found: list[str] = []
    steps = [event for event in recent if "step" in event and "total" in event]
    if steps:
        found.append(f"step {steps[-1]['step']}/{steps[-1]['total']}")
    losses = [event["loss"] for event in recent if event["type"] == "train" and "loss" in event]
    if losses:
        found.append("loss " + (f"{losses[-1]:.3f}" if isinstance(losses[-1], float) else str(losses[-1])))
    left = seconds_left(recent)
    if left is not None:
        found.append(f"{duration(left)} left")
    return found


if __name__ == "__main__":
    # What the client says of its session on stdin is not needed: there is one GPU and one job.
    line = status()
    if line:
        print(line)
