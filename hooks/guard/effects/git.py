"""git and gh: what changes the working tree, and what is pushed where."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN, live

from .commands import Call, options, repeated

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from .scene import State

DONE = (None, None)


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    if call.name != "git":
        return None
    from .walker import change_folder

    words = call.argv[1:]
    state = call.state.copy()
    while words and words[0][:1] == "-":
        if words[0] == "-C" and len(words) > 1:
            change_folder(state, words[1], call.scene.made)
        elif words[0] == "-c" and len(words) > 1:
            alias = words[1].partition("=")
            if alias[0].startswith("alias."):
                state.aliases["git " + alias[0][6:]] = alias[2]
        words = words[2:] if words[0] in ("-C", "-c", "--git-dir", "--work-tree", "--namespace") else words[1:]
    if not words:
        return DONE
    sub, rest = words[0], words[1:]
    alias = state.aliases.get("git " + sub)
    if alias:
        text = alias[1:] if alias.startswith("!") else "git " + alias
        return call.shell(text + " " + " ".join(rest), state)
    function = {
        "clean": clean, "checkout": checkout, "restore": restore, "reset": reset, "stash": stash, "rm": remove, "mv": move,
        "push": push, "remote": remote, "worktree": worktree, "switch": switch, "clone": clone, "submodule": submodule, "bisect": bisect,
    }.get(sub)  # fmt: skip
    if function is not None:
        function(call, state, rest)
    if sub == "rev-parse" and "--show-toplevel" in rest and root_of(state.cwd):
        return root_of(state.cwd) + "\n", True
    return ("", None) if sub in ("add", "commit") else DONE


def root_of(folder: str) -> str:
    """The working tree that holds a folder, or nothing."""
    while folder:
        if paths.exists(paths.join(folder, ".git")):
            return folder
        folder = folder.rpartition("/")[0]
    return ""


def clean(call: Call, state: State, rest: list[str]) -> None:
    """git clean -f: untracked files go; ignored ones too with -x or -X."""
    flags, _, operands = options(["git", *rest], "e", ("exclude",))
    if not flags & {"f", "force"} or flags & {"n", "dry-run"}:
        return
    lost(call, state, operands, flags, repeated(rest, "e", "exclude"))


def lost(call: Call, state: State, operands: list[str], flags: set[str], kept: list[str]) -> None:
    """Ask git itself what would go: only it knows its index and its ignore files."""
    words = ["clean", "-n"]
    words += ["-" + flag for flag in ("d", "x", "X") if flag in flags]
    words += ["-ff"] if "f" in flags else []
    for pattern in kept:
        words += ["-e", pattern]
    text = answer(state.cwd, [*words, "--", *operands])
    if text is None:
        return
    top = paths.normal(".", state.cwd)
    for line in text.splitlines():
        if line.startswith("Would remove "):
            call.scene.touch("delete", paths.normal(unquoted(line[13:]), top), state, " ".join(call.argv)).tree = True


def unquoted(name: str) -> str:
    return name[1:-1].replace('\\"', '"') if name[:1] == '"' else name


def answer(cwd: str, words: list[str]) -> str | None:
    """The output of a reading git command, without the user's hooks, pagers or prompts."""
    from guard.processes import output

    return output(["git", "-c", "core.fsmonitor=", "-c", "core.quotepath=off", *words], cwd)


def changed(call: Call, state: State, pathspecs: list[str], source: str = "") -> None:
    """Tracked files whose local changes would be thrown away."""
    words = ["-c", "diff.relative=false", "diff", "--name-only", source or "HEAD", "--", *(pathspecs or ["."])]
    for line in (answer(state.cwd, words) or "").splitlines()[:500]:
        path = paths.normal(unquoted(line), root_of(paths.real(state.cwd)))  # named from the top, wherever it was asked
        if paths.exists(path):
            call.scene.touch("overwrite", path, state, call.line).follow = True


def untracked(call: Call, state: State, words: list[str]) -> None:
    """Files that git doesn't keep, which go with what it takes away; whole folders are named once."""
    text = answer(state.cwd, ["ls-files", "--others", "--directory", *words])
    for line in (text or "").splitlines()[:500]:
        call.scene.touch("delete", unquoted(line), state, call.line).tree = True


def checkout(call: Call, state: State, rest: list[str]) -> None:
    flags, _, operands = options(["git", *rest], "bB", ("orphan",))
    if "--" in rest:
        at = rest.index("--")
        before = [word for word in rest[:at] if word[:1] != "-"]
        changed(call, state, rest[at + 1 :], before[0] if before else "")
    elif flags & {"f", "force"}:
        top = root_of(state.cwd)
        state.cwd = top or state.cwd
        changed(call, state, [], operands[0] if operands else "")
    elif not flags & {"b", "B", "orphan"}:
        there = [word for word in operands if paths.exists(paths.normal(word, state.cwd))]
        if there:
            changed(call, state, there, operands[0] if operands[0] not in there else "")


def switch(call: Call, state: State, rest: list[str]) -> None:
    flags, _, _ = options(["git", *rest], "cC")
    if flags & {"f", "force", "discard-changes"}:
        state.cwd = root_of(state.cwd) or state.cwd
        changed(call, state, [])


def restore(call: Call, state: State, rest: list[str]) -> None:
    flags, values, operands = options(["git", *rest], "s", ("source", "pathspec-from-file"))
    if flags & {"S", "staged"} and not flags & {"W", "worktree"}:
        return
    changed(call, state, operands, values.get("s") or values.get("source", ""))


def reset(call: Call, state: State, rest: list[str]) -> None:
    flags, _, operands = options(["git", *rest])
    if flags & {"hard", "merge", "keep"} and "hard" in flags:
        state.cwd = root_of(state.cwd) or state.cwd
        changed(call, state, [], operands[0] if operands else "")


def stash(call: Call, state: State, rest: list[str]) -> None:
    """A stash keeps what it takes away, until the same command drops it."""
    flags, _, words = options(["git", *rest], "m", ("message", "pathspec-from-file"))
    if words[:1] in (["drop"], ["clear"]):
        if call.scene.stashed is not None:
            pathspecs, more = call.scene.stashed
            state.cwd = state.cwd if pathspecs else root_of(state.cwd) or state.cwd
            changed(call, state, pathspecs)
            if more:
                untracked(call, state, [*(["--exclude-standard"] if more == "u" else []), "--", *pathspecs])
    elif words[:1] in ([], ["push"], ["save"]):
        more = "a" if flags & {"a", "all"} else "u" if flags & {"u", "include-untracked"} else ""
        call.scene.stashed = words[1:] if words[:1] == ["push"] else [], more
    elif words[:1] in (["pop"], ["apply"]):
        call.scene.stashed = None


def remove(call: Call, state: State, rest: list[str]) -> None:
    flags, _, operands = options(["git", *rest])
    if flags & {"cached", "n", "dry-run"}:
        return
    if "r" not in flags:
        operands = [path for path in operands if not paths.is_dir(paths.normal(path, state.cwd))]
    tracked = answer(state.cwd, ["ls-files", "--", *operands]) if operands else ""
    if tracked is not None:  # what git doesn't track stays
        for line in tracked.splitlines():
            call.scene.touch("delete", unquoted(line), state, call.line)
        return
    from guard.shell.globs import expand

    for path in operands:
        for each in expand(live(path), state.cwd) or [path]:
            call.scene.touch("delete", each, state, call.line).tree = "r" in flags


def move(call: Call, state: State, rest: list[str]) -> None:
    flags, _, operands = options(["git", *rest])
    if flags & {"f", "force"} and len(operands) > 1 and paths.is_file(paths.normal(operands[-1], state.cwd)):
        call.scene.touch("overwrite", operands[-1], state, " ".join(call.argv))


def worktree(call: Call, state: State, rest: list[str]) -> None:
    flags, _, operands = options(["git", *rest])
    if operands[:1] != ["remove"]:
        return
    for path in operands[1:2]:
        state.cwd = paths.normal(path, state.cwd)
        if flags & {"f", "force"}:
            changed(call, state, [])
            untracked(call, state, [])
        else:  # git refuses for changes and untracked files, but not for ignored ones
            untracked(call, state, ["--ignored", "--exclude-standard"])


def submodule(call: Call, state: State, rest: list[str]) -> None:
    if rest[:1] == ["foreach"]:
        call.shell(" ".join(word for word in rest[1:] if word[:1] != "-"), state)


def bisect(call: Call, state: State, rest: list[str]) -> None:
    if rest[:1] == ["run"] and rest[1:]:
        call.run(rest[1:], state)


def clone(call: Call, state: State, rest: list[str]) -> None:
    _, _, operands = options(["git", *rest], "bobcju", ("depth", "branch", "origin", "filter"))
    if operands:
        name = operands[1] if len(operands) > 1 else paths.base(operands[0]).replace(".git", "")
        if UNKNOWN not in name:
            call.scene.made.add(paths.normal(name, state.cwd))


def remote(call: Call, state: State, rest: list[str]) -> None:
    if rest[:1] in (["add"], ["set-url"]):
        _, _, operands = options(["git", *rest[1:]], "tm")
        if len(operands) > 1:
            call.scene.remotes[operands[0]] = operands[1]


def push(call: Call, state: State, rest: list[str]) -> None:
    """Record where a push goes, as `git push` with the URL in place of the remote's name."""
    flags, _, operands = options(["git", *rest], "o", ("push-option", "repo"))
    if flags & {"n", "dry-run"}:
        return
    name = operands[0] if operands else default_remote(state.cwd)
    urls = (
        [name]
        if ":" in name
        else [call.scene.remotes[name]]
        if name in call.scene.remotes
        else remote_urls(state.cwd, name)
    )
    for url in urls:
        call.scene.pushes.append((url, " ".join(call.argv)))


def default_remote(cwd: str) -> str:
    """Where a bare `git push` goes: the branch's own remote, else origin, else the only one there is."""
    head = paths.read_text(paths.join(paths.join(root_of(cwd), ".git"), "HEAD")) or ""
    branch = head.strip().rpartition("refs/heads/")[2]
    entries = configured(cwd)
    names = list(dict.fromkeys(name for section, name, _, _ in entries if section == "remote"))
    for section, name, key, value in entries:
        if section == "branch" and name == branch and key in ("pushremote", "remote"):
            return value
    return "origin" if "origin" in names else names[0] if len(names) == 1 else ""


def remote_urls(cwd: str, name: str) -> list[str]:
    """The push URLs of a remote, of all when it isn't named."""
    return [
        value for section, held, key, value in configured(cwd)
        if section == "remote" and (not name or held == name) and key in ("url", "pushurl")
    ]  # fmt: skip


def configured(cwd: str) -> list[tuple[str, str, str, str]]:
    """(section, name, key, value) of the named sections of the repository's config, read from the file itself."""
    folder = paths.join(root_of(cwd), ".git")
    if paths.is_file(folder):  # a linked worktree
        target = (paths.read_text(folder) or "").partition("gitdir:")[2].strip()
        folder = target.partition("/worktrees/")[0] if target else folder
    out = []
    section = name = ""
    for line in (paths.read_text(paths.join(folder, "config")) or "").split("\n"):
        line = line.strip()
        if line.startswith("["):
            section, _, rest = line.strip("[]").partition(" ")
            name = rest.strip('"')
        elif name and "=" in line:
            key, _, value = line.partition("=")
            out.append((section, name, key.strip().lower(), value.strip()))
    return out
