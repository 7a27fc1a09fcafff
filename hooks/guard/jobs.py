"""Trainings that run now: ours, which hold the GPU lock, and those started by hand, which only the process list shows."""

from __future__ import annotations

from . import paths, processes, shared

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any


class Training:
    """One running job: the ids that stop it when signalled, and what its command lines look like."""

    __slots__ = ("groups", "kind", "lines", "names", "pids", "title")

    def __init__(self, title: str, kind: str) -> None:
        self.title = title
        self.kind = kind
        self.pids: set[int] = set()
        self.groups: set[int] = set()
        self.names: set[str] = set()
        self.lines: list[str] = []


def running() -> list[Training]:
    """Every job that runs on this machine."""
    holder = shared.lock_holder()
    listed = processes.everything()
    found = []
    if holder is not None:
        found.append(ours(holder, listed))
    for process in listed:
        if is_training(process.argv) and not any(process.pid in training.pids for training in found):
            training = Training("a training started by hand (pid " + str(process.pid) + ")", "train")
            training.pids.add(process.pid)
            training.groups.add(process.group)
            training.names.add(process.name)
            training.lines.append(process.line)
            found.append(training)
    return found


def ours(holder: dict[str, Any], listed: list[processes.Process]) -> Training:
    training = Training("job " + str(holder.get("job_id", "?")), str(holder.get("kind") or "train"))
    training.pids = {value for key in ("pid", "runner_pid") if isinstance(value := holder.get(key), int)}
    training.groups = {value for key in ("pgid", "pid") if isinstance(value := holder.get(key), int)}
    for process in listed:
        if process.pid in training.pids or process.group in training.groups or process.parent in training.pids:
            training.pids.add(process.pid)
            training.names.add(process.name)
            training.lines.append(process.line)
    # What such a job is called on any machine, should the list not show it (another user, a sandbox).
    training.names |= {"python", "python3", "Python"}
    training.lines.append(
        "python3 -m mcp_server.workers.train mlx-training mlx_lm.lora mlx_lm lora --train "
        + str(holder.get("job_id", ""))
    )
    return training


def is_training(argv: list[str]) -> bool:
    """Whether a command line is `mlx_lm.lora --train` in one of its spellings."""
    for number, word in enumerate(argv[:8]):
        name = paths.base(word)
        rest = argv[number + 1 :]
        if (
            number
            and argv[number - 1] != "-m"
            and "/" not in word
            and not paths.base(argv[number - 1]).startswith(("python", "Python", "uv", "run", "env"))
        ):
            continue
        if name in ("mlx_lm.lora", "mlx_lm.dora", "mlx_lm_lora.train", "mlx_vlm.lora") or (
            name in ("mlx_lm", "mlx_vlm", "mlx_lm.__main__") and rest[:1] in (["lora"], ["dora"])
        ):
            return "--train" in rest or "-c" in rest or "--config" in rest
    return False
