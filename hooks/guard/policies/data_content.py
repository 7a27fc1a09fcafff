"""Rows that mlx-lm would refuse, or take and silently mistrain: wherever their text is known before it is written."""

from __future__ import annotations

from guard import paths, shared
from guard.protected import DATA_FILES
from guard.shell.marks import UNKNOWN
from guard.verdict import DENY, Finding, short

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.world import World

RULE = "data-content"
MAX_ROWS = 20_000
MAX_SHOWN = 5


def judge(world: World) -> list[Finding]:
    if world.file:
        return check(world, world.file, world.new, world.old) if named(world.file) else []
    findings = []
    for touch in world.scene.touches:
        if touch.op in ("overwrite", "append") and touch.text and UNKNOWN not in touch.text and named(touch.path):
            path = touch.path
            old = (paths.read_text(path, 4_000_000) or "") if touch.op == "append" else ""
            if old and not old.endswith("\n"):
                old += "\n"
            findings += check(world, path, old + touch.text, old)
    return findings


def named(path: str) -> bool:
    return paths.base(path).lower() in DATA_FILES


def check(world: World, path: str, new: str, old: str) -> list[Finding]:
    """Problems in rows that the old text did not have; the format is that of the first row, as mlx-lm decides it."""
    known = set(old.split("\n")) if old else set()
    lines = new.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    expect = None
    bad: list[str] = []
    for number, line in enumerate(lines[:MAX_ROWS], 1):
        if number > 1 and line in known and line.strip():
            continue
        found, problems = shared.check_line(line, expect)
        if number == 1:
            expect = found
        errors = [problem for problem in problems if problem.severity == "error"]
        if errors and (line not in known or not line.strip()):
            bad.append(f"line {number} {errors[0].message}")
            if len(bad) > MAX_SHOWN:
                break
    if not bad:
        return []
    name = short(path, world.cwd)
    shown = "; ".join(bad[:MAX_SHOWN]) + (" ..." if len(bad) > MAX_SHOWN else "")
    return [Finding(
        DENY, RULE, f"{name}: {shown}", "mlx-lm would stop at such rows in mid-training, or learn the wrong thing from them",
        "one JSON object a line, such as " + EXAMPLE,
    )]  # fmt: skip


EXAMPLE = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
