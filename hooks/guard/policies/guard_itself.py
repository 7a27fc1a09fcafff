"""The gate, its settings and the state of its jobs are the user's: the agent may read them, not change them."""

from __future__ import annotations

from guard import paths, settings
from guard.verdict import DENY, Finding, said, short

from . import artefacts

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.effects.scene import Touch
    from guard.world import World

RULE = "guard"
CHANGES = ("make", "overwrite", "append", "edit", "delete", "move", "empty", "mode", "unpack")
GONE = ("delete", "move", "empty")
SMALL = 5_000_000  # bytes of an archive whose names are read wherever it is unpacked
JOB_ADVICE = "use the tools: list with `mlx-training jobs`, stop with stop_job"
OWN_ADVICE = "tell the user what stands in the way; they can switch a rule off in .claude/mlx-training.yaml"


def judge(world: World) -> list[Finding]:
    root = paths.real(__file__.rpartition("/hooks/")[0])
    findings = []
    if world.file:
        path = paths.real(world.file)
        what = own(world, path, root, False)
        if what or (settings_file(path) and disables(world.old, world.new)):
            findings.append(
                refusal(f"{world.tool} would change {what or 'the hooks in'} {short(path, world.cwd)}", what)
            )
        return findings
    for touch in world.scene.touches:
        if touch.op not in CHANGES or (touch.op == "append" and touch.path.startswith("/dev/")):
            continue
        tree = touch.tree and touch.op != "unpack"
        for path in world.targets(touch):
            what = own(world, path, root, tree) or brought(world, touch, path) or (tree and held(world, path)) or ""
            if not what and settings_file(path):
                text = "" if touch.op in GONE else touch.text if touch.text is not None else world.text
                what = (
                    "the hooks in"
                    if disables("" if touch.op == "append" else paths.read_text(path) or "", text)
                    else ""
                )
            if what:
                findings.append(refusal(f"{said(touch.by)} would change {what} {short(path, world.cwd)}", what))
    for run in world.scene.runs:
        if disabling(run.argv):
            findings.append(refusal(f"{said(' '.join(run.argv))} would switch this plugin or its hooks off", ""))
    return findings[:2]


def refusal(seen: str, what: str) -> Finding:
    jobs = what.startswith("the state")
    why = (
        "running jobs and their records would be damaged"
        if jobs
        else "a gate that its prisoner can open protects nothing"
    )
    return Finding(DENY, RULE, seen, why, JOB_ADVICE if jobs else OWN_ADVICE)


def own(world: World, path: str, root: str, tree: bool) -> str:
    """Which part of ours a path is, or (for a deletion) holds."""
    for file in settings.files(world.project):
        if path == paths.real(file) or (tree and paths.exists(file) and paths.inside(paths.real(file), path)):
            return "the gate's settings"
    if paths.inside(path, world.protected.jobs) or (
        tree and paths.inside(world.protected.jobs, path) and paths.exists(world.protected.jobs)
    ):
        return "the state of training jobs"
    for folder in ("hooks", ".claude-plugin"):
        part = paths.join(root, folder)
        if paths.inside(path, part) or (tree and paths.inside(part, path)):
            return "the gate itself"
    data = paths.env("CLAUDE_PLUGIN_DATA")
    if data and paths.inside(path, paths.real(data)):
        return "the gate's own data"
    if "/.claude/plugins/" in path and "mlx-training" in path:
        return "the gate itself"
    return ""


def brought(world: World, touch: Touch, path: str) -> str:
    """Whether a copy, move, link or archive would bring settings of the gate to where they count."""
    files = [file for file in map(paths.real, settings.files(world.project)) if paths.inside(file, path)]
    found = False
    if touch.op == "make":
        sources = [touch.to.rstrip("/") + file[len(path) :] for file in files]
        found = any(paths.exists(source) or source in world.scene.written for source in sources)
    elif touch.op == "unpack" and files:
        near = paths.base(path) == ".claude"
        members = artefacts.stripped(touch) if near or 0 <= paths.size(touch.to) < SMALL else []
        found = near if members is None else any(paths.normal(name, path) in files for name in members)
    return "the gate's settings" if found else ""


def held(world: World, path: str) -> str:
    """Whether a folder that goes holds settings of Claude Code that name this plugin."""
    for file in settings.files(world.project):
        folder = paths.real(paths.parent(file))
        for name in paths.listing(folder) if paths.inside(folder, path) else []:
            inner = paths.join(folder, name)
            if settings_file(inner) and "mlx-training" in (paths.read_text(inner) or ""):
                return "the hooks in"
    return ""


def settings_file(path: str) -> bool:
    """Claude Code's own settings, where hooks and plugins are switched on and off."""
    name = paths.base(path)
    return "/.claude" in path and (
        (name.startswith("settings") and name.endswith(".json")) or name in ("installed_plugins.json", ".claude.json")
    )


def disables(old: str, new: str) -> bool:
    """Whether a change of Claude Code's settings takes this plugin or all hooks away."""
    lowered = new.lower()
    if "disableallhooks" in lowered and "disableallhooks" not in old.lower():
        return True
    if "mlx-training" in old and "mlx-training" not in new:
        return True
    at = lowered.find("mlx-training")
    while at >= 0:
        rest = lowered[at : at + 80].partition(":")[2].lstrip(" =\"'")
        if rest.startswith("false"):
            return True
        at = lowered.find("mlx-training", at + 5)
    return False


def disabling(argv: list[str]) -> bool:
    """`claude plugin disable mlx-training`, `claude --bare`-like switches, chmod on the hooks is a touch of its own."""
    if argv[0].rpartition("/")[2] != "claude" or len(argv) < 3:
        return False
    words = [word for word in argv[1:] if word[:1] != "-"]
    if (
        words[:1] in (["plugin"], ["plugins"])
        and len(words) > 1
        and words[1] in ("disable", "uninstall", "remove", "rm")
    ):
        return len(words) < 3 or "mlx-training" in words[2] or "--all" in argv
    return words[:2] == ["mcp", "remove"] and "mlx" in " ".join(words[2:])
