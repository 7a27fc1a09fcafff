"""What the walk collects: programs run, paths touched, processes signalled."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN
from guard.shell.nodes import Limit

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guard.shell.nodes import Script

MAX_STEPS = 12_000


class Run:
    """One program that would start. `place` is "" here, else "container:docker", "rosetta", ..."""

    __slots__ = ("argv", "cwd", "env", "place", "state")

    def __init__(self, argv: list[str], state: State) -> None:
        self.argv = argv
        self.cwd = state.cwd
        self.env = state
        self.place = state.place
        self.state = state


class Touch:
    """One path that would change.

    op: "delete" | "overwrite" (the old content is lost) | "append" | "edit" (in place, no backup) | "move" (to `to`) |
    "unpack" (an archive over it) | "empty" (delete what is inside).
    tree: folders go with all they hold. follow: a link at the end is followed. text: the new content when known.
    kept: the same command made a copy of it before. strip: leading folders that an archive's members lose.
    held: where the things come from that the same command has put below it.
    """

    __slots__ = ("by", "cwd", "follow", "held", "kept", "op", "path", "strip", "text", "to", "tree")

    def __init__(self, op: str, path: str, by: str, cwd: str) -> None:
        self.op = op
        self.path = path
        self.by = by
        self.cwd = cwd
        self.tree = False
        self.follow = False
        self.to = ""
        self.text: str | None = None
        self.kept = False
        self.strip = 0
        self.held: list[str] = []


class Kill:
    """One signal. `how`: "pid" (negative: a group), "name" (exact), "pattern" (regular expression), "files" (users of)."""

    __slots__ = ("by", "how", "signal", "target")

    def __init__(self, how: str, target: str, signal: str, by: str) -> None:
        self.how = how
        self.target = target
        self.signal = signal
        self.by = by


class Work:
    """One MLX program: `kind` is "train", "test", "convert", "fuse", "generate", "upload" or "use"."""

    __slots__ = ("argv", "by", "cwd", "kind", "options", "place")

    def __init__(self, kind: str, argv: list[str], state: State, options: dict[str, str]) -> None:
        self.kind = kind
        self.argv = argv
        self.by = " ".join(argv)
        self.cwd = state.cwd
        self.place = state.place
        self.options = options


class Either(list):  # pyright: ignore[reportMissingTypeArgument]
    """The values of which a variable has one: it is not known which, since a condition before wasn't."""


class State:
    """What a shell knows at one point. Subshells get a copy.

    lost: the folder as `cd` named it when that can't be known (it starts with UNKNOWN), else "". `cwd` is then the best
    guess, the folder where we were, which is read for what is there.
    others: more (cwd, lost) in which it may be, since a `cd` may have been left out or have failed.
    """

    __slots__ = (
        "_cwd",
        "aliases",
        "args",
        "errexit",
        "functions",
        "loops",
        "lost",
        "others",
        "place",
        "skip",
        "stack",
        "stopped",
        "vars",
    )

    def __init__(self, cwd: str) -> None:
        self._cwd = cwd
        self.lost = ""
        self.others: list[tuple[str, str]] = []
        self.vars: dict[str, list[str]] = {}
        self.args: list[str] = ["bash"]
        self.functions: dict[str, Script] = {}
        self.aliases: dict[str, str] = {}
        self.stack: list[str] = []
        self.place = ""
        self.errexit = False
        self.stopped = False
        self.skip = ""  # "continue" or "break": stopped until the end of the loop's body only
        self.loops = 0

    @property
    def cwd(self) -> str:
        return self._cwd

    @cwd.setter
    def cwd(self, folder: str) -> None:
        self._cwd = folder
        self.lost = ""

    def get(self, name: str) -> list[str] | None:
        """A variable's values: our own, else the environment's; None when nothing is known."""
        values = self.vars.get(name)
        if values is not None:
            return values
        if name == "OLDPWD":
            return None
        value = paths.env(name, UNKNOWN)
        return None if value is UNKNOWN else [value]

    def copy(self) -> State:
        other = State(self.cwd)
        other.lost = self.lost
        other.vars = dict(self.vars)
        other.args = self.args
        other.functions = dict(self.functions)
        other.aliases = dict(self.aliases)
        other.stack = list(self.stack)
        other.place = self.place
        other.errexit = self.errexit
        other.loops = self.loops
        return other


def common(values: list[str]) -> str:
    """What values begin and end with, and any text between."""
    low, high = min(values), max(values)
    start = next((k for k, (a, b) in enumerate(zip(low, high)) if a != b), min(len(low), len(high)))
    ends = [value[start:][::-1] for value in values]
    low, high = min(ends), max(ends)
    end = next((k for k, (a, b) in enumerate(zip(low, high)) if a != b), min(len(low), len(high)))
    return values[0][:start] + UNKNOWN + low[:end][::-1]


class Scene:
    """Everything found in one command line, and the small world it makes for itself on the way."""

    def __init__(self, cwd: str) -> None:
        self.cwd = cwd
        self.runs: list[Run] = []
        self.touches: list[Touch] = []
        self.kills: list[Kill] = []
        self.codes: list[tuple[str, str]] = []  # (language, code) of every inline program that was read
        self.made: set[str] = set()  # folders and files this very command creates
        self.written: dict[str, str | None] = {}  # files it writes, with their text when known
        # new place -> where the thing came from; with a slash at the end, only what lies below (a link)
        self.moved: dict[str, str] = {}
        self.python: list[tuple[str, dict[str, Any], str]] = []  # Hub calls and telling keywords in Python code
        self.remotes: dict[str, str] = {}  # git remotes it adds
        self.pushes: list[tuple[str, str]] = []  # (URL, command)
        self.works: list[Work] = []  # MLX programs started
        self.inside: list[tuple[str, str]] = []  # (container tool, MLX work seen in it)
        self.copied: set[str] = set()  # files that it copies before it changes them
        self.stashed: tuple[list[str], str] | None = None  # (paths, "", "u" or "a") of a `git stash push` before
        self.texts: list[str] = []  # what it reads of files that are there now
        self.steps = 0
        # of the world: whether a path is, or holds, something protected; what is protected below a folder
        self.weighs: Callable[[str], bool] = lambda path: False
        self.protected: Callable[[str], list[str]] = lambda folder: []

    def step(self, cost: int = 1) -> None:
        self.steps += cost
        if self.steps > MAX_STEPS:
            raise Limit("too many steps")

    def bounded(self, values: list[str], most: int, cwd: str) -> list[str]:
        """At most so many of what a loop goes over, and what those that are left out have in common."""
        if len(values) <= most:
            return values
        values = self.ordered(values, most, cwd)
        return [*values[:most], common(values[most:])]

    def ordered(self, values: list[str], most: int, cwd: str) -> list[str]:
        """The paths among many that are, or hold, something protected come first, since only so many are followed."""
        if len(values) <= most:
            return values
        weighty = dict.fromkeys(value for value in values if self.weighs(paths.normal(value, cwd)))
        return [*weighty, *[value for value in values if value not in weighty]]

    def origin(self, path: str) -> str:
        """Where the thing at `path` lies now, when this command moved, linked or mounted it there."""
        for _ in range(4 if self.moved else 0):
            part = path
            while part:
                link = part.rstrip("/") + "/"
                key = part if part in self.moved else link if path.startswith(link) and link in self.moved else ""
                if key:
                    path = self.moved[key] + path[len(key) :]
                    break
                part = part.rpartition("/")[0]
            else:
                return path
        return path

    def touch(self, op: str, path: str, state: State, by: str) -> Touch:
        """Record a change; the path may be relative and may hold UNKNOWN."""
        self.step()
        touch = Touch(op, self.place(path, state, path.endswith("/") and op != "move"), by, state.cwd)
        touch.kept = touch.path in self.copied
        if self.moved and op in ("delete", "empty"):
            touch.held = self.brought(paths.normal(path, state.cwd)) + self.brought(touch.path)
        self.touches.append(touch)
        return touch

    def brought(self, folder: str) -> list[str]:
        """Where the things come from that this command has moved below a folder; a link there is no more than a name."""
        return [
            place for key, place in self.moved.items() if key[-1] != "/" and key != folder and paths.inside(key, folder)
        ]

    def relocate(self, source: str, goal: str) -> None:
        """Remember a move, with all that was moved below the source before."""
        start = self.origin(source)
        for key in [key for key in self.moved if paths.inside(key, source)]:
            self.moved[goal + key[len(source) :]] = self.moved.pop(key)
        if start != goal:
            self.moved[goal] = start
        if paths.is_dir(start):
            self.made.add(goal)

    def place(self, path: str, state: State, slash: bool = False) -> str:
        """Where a path leads: absolute, or from UNKNOWN on when its folder can't be known."""
        absolute = path if path.startswith(UNKNOWN) else paths.normal(path, state.cwd)
        if slash:
            absolute += "/"
        found = self.origin(absolute)
        if state.lost and found == absolute and path[:1] not in ("/", UNKNOWN) and absolute not in self.copied:
            return state.lost + "/" + (path[2:] if path[:2] == "./" else path)
        return found

    def read(self, path: str, state: State) -> str | None:
        """A file's text as it will be when the command gets there."""
        if UNKNOWN in path:
            return None
        absolute = paths.normal(path, state.cwd)
        if absolute in self.written:
            return self.written[absolute]
        text = paths.read_text(self.origin(absolute))
        if text and len(self.texts) < 50:
            self.texts.append(text)
        return text
