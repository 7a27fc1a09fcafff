"""Programs that delete, move, copy or truncate files."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN

from .commands import Call, has_long, options

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from collections.abc import Callable

DONE = ("", None)
MAX_OVERLAY = 1500


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    name = call.name.lower()
    name = {
        "grm": "rm",
        "gmv": "mv",
        "gcp": "cp",
        "ginstall": "install",
        "gshred": "shred",
        "gtruncate": "truncate",
    }.get(name, name)
    return HANDLERS[name](call)


def delete(call: Call) -> tuple[str | None, bool | None]:
    """rm and its kin: folders only with a recursive flag, as the real ones."""
    flags, _, operands = options(call.argv)
    if flags & {"help", "version"}:
        return DONE
    name = call.name
    tree = bool(flags & {"r", "R"}) or has_long(flags, "recursive", 1)
    tree = tree or name in ("trash", "trash-put", "rimraf", "del-cli", "rip", "wipe")
    for path in operands:
        if paths.base(path) in (".", "..") and tree and name == "rm":
            continue  # refused by rm itself
        touch = call.touch("delete", path)
        touch.tree = tree
    return DONE


def rmdir(call: Call) -> tuple[str | None, bool | None]:
    return DONE  # only empty folders go


def gio(call: Call) -> tuple[str | None, bool | None]:
    if call.argv[1:2] in (["trash"], ["remove"]):
        for path in call.argv[2:]:
            if path[:1] != "-":
                call.touch("delete", path).tree = True
    return DONE


def shred(call: Call) -> tuple[str | None, bool | None]:
    _, _, operands = options(call.argv, "ns", ("iterations", "size", "random-source"))
    for path in operands:
        call.touch("delete", path).follow = True
    return DONE


def target_of(call: Call, operands: list[str], values: dict[str, str], flags: set[str]) -> tuple[list[str], str, bool]:
    """(sources, destination, destination is a folder to put things in) for mv, cp, ln, install."""
    folder = values.get("t") or values.get("target-directory")
    if folder is not None:
        return operands, folder, True
    if len(operands) < 2:
        return [], "", False
    target = operands[-1]
    plain_target = "T" in flags or "no-target-directory" in flags
    absolute = paths.normal(target, call.state.cwd)
    into = not plain_target and (
        paths.is_dir(call.scene.origin(absolute)) or absolute in call.scene.made or len(operands) > 2
    )
    return operands[:-1], target, into


def place(source: str, target: str, into: bool) -> str:
    return paths.join(target, paths.base(source)) if into else target


def move(call: Call) -> tuple[str | None, bool | None]:
    flags, values, operands = options(call.argv, "tS", ("target-directory", "suffix", "backup"))
    keeps = bool(flags & {"n", "b", "no-clobber", "backup"})
    sources, target, into = target_of(call, operands, values, flags)
    for source in sources:
        goal = place(source, target, into)
        absolute = paths.normal(goal, call.state.cwd)
        if target == "/dev/null" or "/.Trash" in absolute or "/Trash/files" in absolute:
            call.touch("delete", source).tree = True
            continue
        arrive(call, source, target, into)
        touch = call.touch("move", source)
        touch.tree = True
        touch.to = absolute
        start = call.scene.origin(paths.normal(source, call.state.cwd))
        if not keeps and start != paths.real(absolute) and not paths.is_dir(absolute):
            call.touch("overwrite", goal)
        if UNKNOWN not in absolute and UNKNOWN not in start:
            call.scene.relocate(paths.normal(source, call.state.cwd), absolute)
    return DONE


def copy(call: Call) -> tuple[str | None, bool | None]:
    flags, values, operands = options(call.argv, "tS", ("target-directory", "suffix", "backup"))
    sources, target, into = target_of(call, operands, values, flags)
    keeps = bool(flags & {"n", "b", "no-clobber", "backup"}) or values.get("update") == "none"
    if flags & {"s", "symbolic-link", "l", "link"} and not flags & {"f", "force"}:
        keeps = True
    if keeps or target.startswith("/dev/"):
        call.scene.copied.update(paths.normal(source, call.state.cwd) for source in sources)
        for source in sources:
            arrive(call, source, target, into)
        return DONE
    tree = bool(flags & {"r", "R", "a"}) or has_long(flags, "recursive") or "archive" in flags
    for source in sources:
        overlay(call, source, target, into, tree)
    return DONE


def goals(call: Call, source: str, target: str, into: bool) -> list[str]:
    """Where a copied folder goes: to the target, below it, or to both where programs differ."""
    if source.endswith("/.") or (source.endswith("/") and call.name in ("rsync", "ditto")) or not into:
        return [target]
    return [place(source, target, into), *([target] if source.endswith("/") else [])]  # BSD cp: what the folder holds


def arrive(call: Call, source: str, target: str, into: bool) -> None:
    """Something comes to where nothing may be yet (or any more)."""
    also = [target] if into and paths.base(target) == ".claude" else []
    for goal in goals(call, source, target, into) + also:
        make(call, goal, call.scene.origin(paths.normal(source, call.state.cwd)))


def make(call: Call, goal: str, begin: str) -> None:
    """A new path: that matters only where the gate's settings would come from it."""
    if "/.claude" in paths.real(paths.normal(goal, call.state.cwd)) or paths.exists(paths.join(begin, ".claude")):
        touch = call.touch("make", goal)
        touch.follow = True
        touch.to = begin


def overlay(
    call: Call, source: str, target: str, into: bool, tree: bool, spared: Callable[[str, bool], bool] | None = None
) -> None:
    """Copying source to target replaces the files that both have. `spared` tells which the program leaves out."""
    begin = call.scene.origin(paths.normal(source, call.state.cwd))
    arrive(call, source, target, into)
    if tree and paths.is_dir(begin):
        todo = [(goal, "") for goal in goals(call, source, target, into)]
        seen = 0
        while todo and seen < MAX_OVERLAY:
            goal, below = todo.pop()
            for name in paths.listing(begin + below):
                seen += 1
                path = below + "/" + name
                there = paths.normal(goal + path, call.state.cwd)
                if spared and spared(path, paths.is_dir(begin + path)):
                    continue
                if paths.is_dir(begin + path):
                    if paths.is_dir(there):
                        todo.append((goal, path))
                elif paths.exists(there) and paths.real(there) != paths.real(begin + path):
                    call.touch("overwrite", goal + path).follow = True
        return
    if paths.is_dir(begin):
        return  # cp without -r leaves folders out
    if UNKNOWN in source and tree:
        call.touch("unpack", target)
        return
    goal = place(source, target, into)
    if paths.real(paths.normal(goal, call.state.cwd)) != paths.real(begin):
        call.scene.copied.add(begin)
        touch = call.touch("overwrite", goal)
        touch.follow = True
        touch.text = call.scene.read(source, call.state)
        path = paths.normal(goal, call.state.cwd)
        call.scene.made.add(path)
        call.scene.written[path] = touch.text


def fetch(call: Call, source: str, target: str, folders: bool) -> None:
    """A copy from another machine: what it holds isn't known, but its name is, and what has that name here is replaced.

    With a slash at the end (rsync) its contents come; with `folders` it may be a folder.
    """
    name = source.rpartition(":")[2]
    if not name.strip("./") or UNKNOWN in name or any(c in name for c in "*?[{"):
        call.touch("unpack", target)
        return
    into = not name.endswith(("/", "/.")) and paths.is_dir(paths.normal(target, call.state.cwd))
    goal = place(name, target, into)
    if not paths.is_dir(paths.normal(goal, call.state.cwd)):
        call.touch("overwrite", goal).follow = True
    elif folders:
        call.touch("unpack", goal).tree = into


def link(call: Call) -> tuple[str | None, bool | None]:
    flags, values, operands = options(call.argv, "tS", ("target-directory", "suffix", "backup"))
    if len(operands) == 1:
        operands = [*operands, "."]
    sources, target, into = target_of(call, operands, values, flags)
    if flags & {"n", "h", "no-dereference"} and paths.is_link(paths.normal(target, call.state.cwd)):
        into = False
    forced = bool(flags & {"f", "F", "force"}) and not flags & {"b", "backup"}
    for source in sources:
        goal = place(source, target, into)
        absolute = paths.normal(goal, call.state.cwd)
        if forced and paths.exists(absolute) and (not paths.is_dir(absolute) or paths.is_link(absolute)):
            call.touch("overwrite", goal)
        begin = paths.normal(source, call.state.cwd if "s" not in flags else paths.parent(absolute))
        make(call, goal, begin)
        if not paths.exists(absolute) and UNKNOWN not in begin + absolute:
            call.scene.moved[absolute + "/"] = begin + "/"
            call.scene.made.add(absolute)
    return DONE


def install(call: Call) -> tuple[str | None, bool | None]:
    flags, values, operands = options(call.argv, "mogtS", ("mode", "owner", "group", "target-directory", "suffix"))
    if flags & {"d", "directory"}:
        return mkdir(call)
    if flags & {"b", "backup"}:
        return DONE
    sources, target, into = target_of(call, operands, values, flags)
    for source in sources:
        overlay(call, source, target, into, False)
    return DONE


def rename(call: Call) -> tuple[str | None, bool | None]:
    flags, _, operands = options(call.argv)
    if flags & {"f", "force"}:
        for path in operands[1:]:
            call.touch("overwrite", path)
    return DONE


def truncate(call: Call) -> tuple[str | None, bool | None]:
    flags, values, operands = options(call.argv, "sr", ("size", "reference"))
    wanted = values.get("s") or values.get("size") or ""
    if wanted[:1] in "+>" and wanted:
        return DONE
    for path in operands:
        if flags & {"c", "no-create"} and not paths.exists(paths.normal(path, call.state.cwd)):
            continue
        call.touch("overwrite", path).follow = True
    return DONE


def fallocate(call: Call) -> tuple[str | None, bool | None]:
    flags, _, operands = options(call.argv, "lo", ("length", "offset"))
    if flags & {"p", "z", "c", "punch-hole", "zero-range", "collapse-range"}:
        for path in operands:
            call.touch("overwrite", path).follow = True
    return DONE


def dd(call: Call) -> tuple[str | None, bool | None]:
    for word in call.argv[1:]:
        if word.startswith("of="):
            call.touch("overwrite", word[3:]).follow = True
    for word in call.argv[1:]:
        if word.startswith("if=") and not any(w.startswith("of=") for w in call.argv):
            return call.scene.read(word[3:], call.state), None
    return DONE


def tee(call: Call) -> tuple[str | None, bool | None]:
    """tee and sponge: every operand is written; with -a, appended to."""
    flags, _, operands = options(call.argv)
    append = bool(flags & {"a", "append"})
    for path in operands:
        if path.startswith("/dev/"):
            continue
        touch = call.touch("append" if append else "edit" if call.name == "sponge" else "overwrite", path)
        touch.follow = True
        touch.text = call.stdin
        if not append and UNKNOWN not in path:
            call.scene.written[paths.normal(path, call.state.cwd)] = call.stdin
    return call.stdin, None


def mkdir(call: Call) -> tuple[str | None, bool | None]:
    flags, _, operands = options(call.argv, "m", ("mode",))
    for path in operands:
        if UNKNOWN not in path:
            call.scene.made.add(paths.normal(path, call.state.cwd))
    return "", True if flags & {"p", "parents"} else None


def touch(call: Call) -> tuple[str | None, bool | None]:
    return DONE


def mode(call: Call) -> tuple[str | None, bool | None]:
    """chmod, chown, chflags: no content goes, but a hook that may not be read or run is off."""
    _, _, operands = options(call.argv)
    for path in operands[1:]:
        call.touch("mode", path).tree = True
    return DONE


def mktemp(call: Call) -> tuple[str | None, bool | None]:
    """A fresh name that nothing has yet."""
    number = len(call.scene.made)
    path = "/tmp/fresh.walk" + str(number)
    call.scene.made.add(path)
    return path + "\n", True


def ditto(call: Call) -> tuple[str | None, bool | None]:
    flags, _, operands = options(call.argv, "", ("arch",))
    if flags & {"x", "c"} and len(operands) > 1:
        if "c" in flags:
            call.touch("overwrite", operands[-1]).follow = True
        else:
            call.touch("unpack", operands[-1]).to = paths.normal(operands[0], call.state.cwd)
        return DONE
    for source in operands[:-1]:
        overlay(call, source.rstrip("/") + "/", operands[-1], False, True)
    return DONE


def scp(call: Call) -> tuple[str | None, bool | None]:
    flags, _, operands = options(call.argv, "cFiJloPSDX")
    if operands and ":" not in operands[-1].split("/", 1)[0]:
        for source in operands[:-1]:
            fetch(call, source, operands[-1], "r" in flags)
    return DONE


HANDLERS = {
    **dict.fromkeys(("rm", "unlink", "srm", "trash", "trash-put", "rimraf", "del-cli", "wipe", "rip"), delete),
    "rmdir": rmdir, "gio": gio, "shred": shred, "mv": move, "cp": copy, "ln": link, "install": install,
    "rename": rename, "truncate": truncate, "fallocate": fallocate, "dd": dd, "tee": tee, "sponge": tee,
    **dict.fromkeys(("chmod", "chown", "chflags", "xattr"), mode), "mkdir": mkdir, "touch": touch, "mktemp": mktemp, "ditto": ditto, "scp": scp,
}  # fmt: skip
