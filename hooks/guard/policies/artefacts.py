"""Adapters, checkpoints and models: hours of work that no version control keeps."""

from __future__ import annotations

from guard import paths
from guard.shell.nodes import Limit
from guard.verdict import ASK, DENY, Finding, aside, said, short

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.effects.scene import Touch
    from guard.world import World

RULE = "artefacts"
QUICK = (".zip", ".whl", ".tar")  # their names are listed without reading all of it
MAX_ARCHIVE = 200_000_000  # bytes
ENOUGH = 5  # findings; a message shows three
KINDS = ("adapter", "checkpoint", "model", "cache", "extra")


def judge(world: World) -> list[Finding]:
    findings: list[Finding] = []
    checkpoints: dict[str, Touch] = {}
    for touch in world.scene.touches:
        if touch.op in ("delete", "empty"):
            findings += deleted(world, touch, checkpoints)
        elif touch.op in ("overwrite", "edit", "append"):
            findings += written(world, touch)
        elif touch.op == "unpack":
            findings += unpacked(world, touch)
        elif touch.op == "unpack-model":
            findings += saved_over(world, touch)
        elif touch.op == "train":
            findings += trained_over(world, touch)
        if len(findings) >= ENOUGH:
            break
    if world.file:
        findings += tool_write(world)
    if checkpoints:
        findings.append(checkpoint_deletion(world, checkpoints))
    return findings


def deleted(world: World, touch: Touch, checkpoints: dict[str, Touch]) -> list[Finding]:
    """One finding a deletion, whatever number of things it takes."""
    if touch.op == "empty":
        touch.tree = True
    gone = [thing for thing in world.things(touch) if thing.kind in KINDS]
    single = [thing for thing in gone if thing.kind == "checkpoint" and paths.base(thing.path)[:7].isdigit()]
    gone = [thing for thing in gone if thing not in single]
    cached = [thing for thing in gone if thing.kind == "cache"]
    lost = [thing for thing in gone if thing.kind != "cache"]
    if lost:
        names = ", ".join(thing.label + " " + short(thing.path, world.cwd) for thing in lost[:2])
        more = f" and {len(gone) + len(single) - 2} more" if len(gone) + len(single) > 2 else ""
        return [Finding(
            DENY, RULE, f"{said(touch.by)} deletes {names}{more}",
            "trained weights can't be brought back once they are gone",
            (aside(world.targets(touch)[0], world.cwd) if paths.inside(world.targets(touch)[0], world.cwd + "/") else "name exactly what may go")
            + ", or ask the user to delete it",
        )]  # fmt: skip
    if cached:
        return [Finding(
            ASK, RULE, f"{said(touch.by)} deletes from the Hugging Face cache ({short(cached[0].path, world.cwd)})",
            "models there must be downloaded again, and other projects share them",
            "look first what it holds: `hf cache ls`; then let the user decide",
        )]  # fmt: skip
    checkpoints.update((thing.path, touch) for thing in single)
    return []


def checkpoint_deletion(world: World, checkpoints: dict[str, Touch]) -> Finding:
    """One intermediate checkpoint may go after a question; several are a training's history."""
    names = sorted(short(path, world.cwd) for path in checkpoints)
    touch = next(iter(checkpoints.values()))
    if len(names) == 1:
        return Finding(
            ASK, RULE, f"{said(touch.by)} deletes the intermediate checkpoint {names[0]}",
            "a resume or a comparison may still need it", "keep it, or let the user confirm",
        )  # fmt: skip
    return Finding(
        DENY, RULE, f"{said(touch.by)} deletes {len(names)} checkpoints ({', '.join(names[:3])}, ...)",
        "they are the only way back to an earlier state of the training",
        f"move them aside: `mkdir -p old-checkpoints`, then `mv {names[0]} old-checkpoints/`",
    )  # fmt: skip


def written(world: World, touch: Touch) -> list[Finding]:
    findings = []
    for path in world.targets(touch):
        if not paths.is_file(path) and not paths.is_link(path):
            continue
        thing = world.protected.file(path)
        if thing is None or thing.kind not in KINDS:
            continue
        name = short(path, world.cwd)
        if touch.op == "edit" and name.endswith(".json"):
            findings.append(Finding(
                ASK, RULE, f"{said(touch.by)} edits {name} in place",
                "a wrong value makes the weights beside it useless, and there is no backup",
                f"keep a copy first: `cp -n {name} {name}.bak`",
            ))  # fmt: skip
        elif thing.kind == "cache":
            findings.append(Finding(ASK, RULE, f"{said(touch.by)} writes into the Hugging Face cache ({name})",
                            "a changed file there breaks every project that uses the model",
                            "copy the model out first: `cp -rn` to a folder of the project"))  # fmt: skip
        else:
            findings.append(Finding(
                DENY, RULE, f"{said(touch.by)} overwrites {thing.label} {name}",
                "the trained weights that it holds now would be lost",
                f"write to a new path, or {aside(path, world.cwd)}",
            ))  # fmt: skip
    return findings


def tool_write(world: World) -> list[Finding]:
    """The file tools: weights are never text; a configuration may be edited."""
    path = paths.real(world.file)
    thing = world.protected.file(path) if paths.is_file(path) else None
    if thing is None or thing.kind not in KINDS or path.endswith((".json", ".jinja", ".txt", ".md")):
        if thing is None or thing.kind != "extra":
            return []
    name = short(path, world.cwd)
    return [Finding(
        DENY, RULE, f"{world.tool} would overwrite {thing.label} {name}", "what it holds now would be lost",
        f"write to a new path, or {aside(path, world.cwd)}",
    )]  # fmt: skip


def unpacked(world: World, touch: Touch) -> list[Finding]:
    """An archive over weights: ask when its members, or the folder itself, say that weights would be replaced."""
    for folder in world.targets(touch):
        if not holds(world, folder):
            continue  # an archive is read only where there is something to lose
        members = stripped(touch)
        hits = []
        if members is None:
            if touch.tree or (paths.is_dir(folder) and world.protected.holds_weights(folder)):
                hits = [folder]
        else:
            for member in members:
                path = paths.real(paths.normal(member, folder))
                if paths.is_file(path) and (world.protected.file(path) is not None):
                    hits.append(path)
        if hits:
            return [Finding(
                ASK, RULE, f"{said(touch.by)} unpacks over {short(hits[0], world.cwd)}",
                "files of the same name are replaced without a word",
                "use a new folder" + (": `mkdir -p unpacked && tar -xf ARCHIVE -C unpacked`" if touch.to else ""),
            )]  # fmt: skip
    return []


def holds(world: World, folder: str) -> bool:
    """Whether anything protected may lie in a folder."""
    try:
        return bool(world.protected.below(folder, 1))
    except Limit:
        return True


def stripped(touch: Touch) -> list[str] | None:
    """The names that unpacking makes below its folder, None when they aren't known."""
    names = archive_members(touch.to) if touch.to else None
    if names is None or not touch.strip:
        return names
    return ["/".join([part for part in name.split("/") if part][touch.strip :]) for name in names]  # "./" counts


def archive_members(path: str) -> list[str] | None:
    """The names in a tar or zip file, None when it can't be read."""
    if not paths.is_file(path) or (not path.endswith(QUICK) and paths.size(path) > MAX_ARCHIVE):
        return None
    try:
        if path.endswith((".zip", ".whl")):
            import zipfile

            with zipfile.ZipFile(path) as archive:
                return archive.namelist()[:5000]
        import tarfile

        with tarfile.open(path) as archive:
            return [member.name for _, member in zip(range(5000), archive)]
    except Exception:  # a damaged archive of any kind: what is in it is not known
        return None


def saved_over(world: World, touch: Touch) -> list[Finding]:
    for folder in world.targets(touch):
        if paths.is_dir(folder) and world.protected.holds_weights(folder):
            name = short(folder, world.cwd)
            return [Finding(
                DENY, RULE, f"{said(touch.by)} saves a model over the existing {name}",
                "mlx-lm overwrites it without asking",
                f"choose a path that is free, such as `{name}-2`, or {aside(folder, world.cwd)}",
            )]  # fmt: skip
    return []


def trained_over(world: World, touch: Touch) -> list[Finding]:
    for folder in world.targets(touch):
        names = paths.listing(folder)
        if not any(name.endswith((".safetensors", ".npz")) for name in names):
            continue
        name = short(folder, world.cwd)
        if touch.to:
            return [Finding(
                ASK, RULE, f"{said(touch.by)} resumes into the folder it starts from ({name})",
                "mlx-lm counts from iteration 1 again and overwrites the checkpoints of the same number",
                "give the resumed training its own --adapter-path",
            )]  # fmt: skip
        return [Finding(
            DENY, RULE, f"{said(touch.by)} trains onto the existing adapter {name}",
            "the adapter that is there is overwritten at the first save",
            f"choose a new --adapter-path such as adapters/{paths.base(folder)}-2, or {aside(folder, world.cwd)}",
        )]  # fmt: skip
    return []
