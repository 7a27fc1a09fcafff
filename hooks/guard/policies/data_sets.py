"""train.jsonl, valid.jsonl, test.jsonl: deleting and truncating them is stopped, editing without a backup is asked."""

from __future__ import annotations

from guard import paths
from guard.verdict import ASK, DENY, Finding, aside, said, short

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.effects.scene import Touch
    from guard.world import World

ENOUGH = 5  # findings; a message shows three
RULE = "data-sets"


def judge(world: World) -> list[Finding]:
    findings = []
    for touch in world.scene.touches:
        if len(findings) >= ENOUGH:
            break
        if touch.op in ("delete", "empty"):
            for thing in world.things(touch):
                if thing.kind == "data":
                    findings.append(lost(world, touch, thing.path, "deletes"))
        elif touch.op in ("overwrite", "edit"):
            for path in world.targets(touch):
                thing = world.protected.file(path) if paths.is_file(path) or paths.is_link(path) else None
                if thing is None or thing.kind != "data" or touch.kept:
                    continue
                if touch.op == "edit":
                    name = short(path, world.cwd)
                    findings.append(Finding(
                        ASK, RULE, f"{said(touch.by)} edits the data set {name} in place without a backup",
                        "a wrong expression damages every row at once",
                        f"keep a copy first: `cp -n {name} {name}.bak`, or use `sed -i.bak`",
                    ))  # fmt: skip
                else:
                    findings.append(lost(world, touch, path, "overwrites"))
    if world.file and paths.base(world.file).lower() in ("train.jsonl", "valid.jsonl", "test.jsonl"):
        known = world.tool == "Write" or world.old.strip()  # a file too large to be read is not emptied by an edit
        if known and not world.new.strip() and paths.size(world.file) > 0:
            name = short(world.file, world.cwd)
            findings.append(Finding(
                DENY, RULE, f"{world.tool} would empty the data set {name}", "its rows would be lost",
                aside(world.file, world.cwd),
            ))  # fmt: skip
    return findings[:4]


def lost(world: World, touch: Touch, path: str, verb: str) -> Finding:
    name = short(path, world.cwd)
    return Finding(
        DENY, RULE, f"{said(touch.by)} {verb} the data set {name}",
        "its rows may exist nowhere else, and no training could be repeated without them",
        "write the new rows to a new file, or " + aside(path, world.cwd),
    )  # fmt: skip
