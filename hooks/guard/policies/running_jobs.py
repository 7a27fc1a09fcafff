"""A running job is not killed by signals: it would lose everything since its last checkpoint."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN
from guard.verdict import ASK, DENY, Finding, said

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.effects.scene import Kill
    from guard.jobs import Training
    from guard.world import World

RULE = "running-jobs"
HARMLESS = ("0", "CONT", "WINCH", "URG", "INFO", "CHLD")
PAUSING = ("STOP", "TSTP", "TTIN", "TTOU")
HINTS = ("mlx", "lora", "train", "python", "gpu.lock", "adapter")


def judge(world: World) -> list[Finding]:
    findings = []
    for kill in world.scene.kills:
        if kill.signal in HARMLESS:
            continue
        for job in world.trainings():
            if hits(kill, job, world):
                decision = ASK if kill.signal in PAUSING else DENY
                findings.append(Finding(
                    decision, RULE, f"{said(kill.by)} {'pauses' if decision == ASK else 'kills'} {job.title}",
                    "a signal from outside loses the work since the last checkpoint" if decision == DENY
                    else "a paused job keeps the GPU's memory and the lock",
                    "use the tool stop_job, which saves a checkpoint first; `mlx-training jobs` lists the jobs",
                ))  # fmt: skip
                break
    return findings


def hits(kill: Kill, job: Training, world: World) -> bool:
    """Whether a signal reaches a job."""
    target = kill.target
    if kill.how == "pid":
        return pid_hits(target, job, world)
    if kill.how == "name":
        return any(paths.base(target) == name for name in job.names) or any(
            paths.base(line.split(" ", 1)[0]) == target for line in job.lines
        )
    if kill.how in ("full", "full-exact", "pattern-name", "pattern"):
        return pattern_hits(target, job.lines if kill.how[:4] == "full" or kill.how == "pattern" else sorted(job.names))
    if kill.how == "children":
        return target.isdigit() and int(target) in job.pids
    if kill.how == "user":
        return target in (paths.env("USER"), paths.env("LOGNAME"), "root", UNKNOWN)
    if kill.how == "files":
        return any(hint in target for hint in ("adapter", "gpu.lock", "train", "mlx", "model", ".mlx-training"))
    return False


def pid_hits(target: str, job: Training, world: World) -> bool:
    if UNKNOWN in target or not target:
        return hinted(world.text)
    numbers = target.split()
    for number in numbers:
        if number == "-1":
            return True
        if number.lstrip("-").isdigit():
            pid = int(number)
            if (pid > 1 and pid in job.pids) or (pid < -1 and -pid in job.groups | job.pids):
                return True
    return False


def hinted(text: str) -> bool:
    """An id that can't be known before the command runs, in a command that speaks of training."""
    lowered = text.lower().replace("[", "").replace("]", "")  # `grep [m]lx` is a habit, not another word
    return any(hint in lowered for hint in HINTS)


def pattern_hits(pattern: str, lines: list[str]) -> bool:
    import re

    if UNKNOWN in pattern:
        return False
    try:
        matcher = re.compile(pattern)
    except (re.error, RecursionError):
        return any(pattern in line for line in lines)
    return any(matcher.search(line[:2000]) for line in lines)
