"""The machine's own limits: the wired memory limit of the GPU, memory limits, the disk cache."""

from __future__ import annotations

from guard.verdict import ASK, Finding, said

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.world import World

RULE = "machine"
PROGRAMS = ("sysctl", "purge", "ulimit", "launchctl", "nvram", "prlimit")
SETTINGS = ("iogpu", "vm.", "kern.maxvnodes", "debug.iogpu", "hw.memsize", "kern.memorystatus")


def judge(world: World) -> list[Finding]:
    findings = []
    for run in world.scene.runs:
        name = run.argv[0].rpartition("/")[2]
        if name not in PROGRAMS or run.place:
            continue
        words = run.argv[1:]
        if name == "sysctl" and changes(words):
            findings.append(Finding(
                ASK, RULE, f"{said(' '.join(run.argv))} changes a limit of the machine",
                "a wired limit that is too high freezes macOS, and it lasts until the next restart",
                "let the user decide; smaller memory needs come from batch_size 1 and grad_checkpoint. Reading is free: `sysctl iogpu.wired_limit_mb`",
            ))  # fmt: skip
        elif name == "purge":
            findings.append(Finding(
                ASK, RULE, "`purge` empties the disk cache of the whole machine",
                "it slows down everything that runs and frees nothing that MLX could not take anyway", "close other applications",
            ))  # fmt: skip
        elif (name == "ulimit" and sets_limit(words)) or (name == "launchctl" and words[:1] == ["limit"] and len(words) > 2) or (
            name == "prlimit" and any("=" in word for word in words)
        ) or (name == "nvram" and any("=" in word for word in words)):  # fmt: skip
            findings.append(Finding(
                ASK, RULE, f"{said(' '.join(run.argv))} changes a limit of the machine",
                "a training may be killed by it, or the machine freeze", "let the user decide",
            ))  # fmt: skip
    for touch in world.scene.touches:
        if touch.path in ("/etc/sysctl.conf", "/private/etc/sysctl.conf") or touch.path.startswith("/etc/sysctl.d/"):
            findings.append(Finding(
                ASK, RULE, f"{said(touch.by)} changes the limits that the machine starts with", "they last over restarts",
                "let the user decide",
            ))  # fmt: skip
    return findings


def changes(words: list[str]) -> bool:
    """Whether sysctl sets something about memory."""
    named = [word for word in words if word.startswith(SETTINGS)]
    return (
        any("=" in word for word in named)
        or ("-w" in words and bool(named))
        or any(word in ("-p", "--load", "-f") for word in words)
    )


def sets_limit(words: list[str]) -> bool:
    """`ulimit -v 8000000`: memory limits alone; open files and core dumps are nobody's harm."""
    flags = "".join(word[1:] for word in words if word[:1] == "-")
    return any(letter in flags for letter in "vmdl") and any(word[:1] != "-" for word in words)
