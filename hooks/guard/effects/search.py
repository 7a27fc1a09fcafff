"""find and fd: the paths they would visit are looked up, then deleted, executed on, or printed."""

from __future__ import annotations

from guard import paths
from guard.protected import SKIPPED
from guard.shell import globs
from guard.shell.marks import UNKNOWN, live
from guard.shell.nodes import Wide

from .commands import Call

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

MAX_VISITS = 20_000
MAX_RUNS = 150  # of one command, for each of the paths found
MAX_FOUND = 1000  # paths given to one command
NAMING = frozenset(("-name", "-iname", "-path", "-ipath", "-wholename", "-iwholename", "-regex", "-iregex"))
VALUED = NAMING | frozenset(
    ("-type", "-size", "-mtime", "-mmin", "-newer", "-maxdepth", "-mindepth", "-perm", "-user", "-group", "-ctime", "-atime",
     "-amin", "-cmin", "-lname", "-ilname", "-links", "-inum", "-newermt", "-fstype", "-samefile", "-xtype", "-fprint", "-regextype")
)  # fmt: skip
ALWAYS = frozenset(
    ("-maxdepth", "-mindepth", "-depth", "-xdev", "-mount", "-a", "-and", "-true", "-follow", "-fprint", "-regextype")
)
EXECUTE = ("-exec", "-execdir", "-ok", "-okdir")
READERS = frozenset(["echo", "ls", "stat", "wc", "cat", "file", "grep", "head", "du", "sha256sum", "md5sum"])


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    return fd(call) if call.name in ("fd", "fdfind") else find(call)


def find(call: Call) -> tuple[str | None, bool | None]:
    words = call.argv[1:]
    while words and words[0] in ("-H", "-L", "-P", "-E", "-x", "-s", "-X", "-d"):
        words = words[1:]
    roots = []
    while words and words[0][:1] not in "-!(,)" and words[0]:
        roots.append(words[0])
        words = words[1:]
    expression = Expression(words)
    if not call.want and all(action.reads for action in expression.actions):
        return None, None
    for root in roots or ["."]:
        visit(call, root, expression)
    printed: list[str] = []
    for action in expression.actions:
        if action.name in ("-print", "-print0", "-printf", "-ls"):
            printed += [path + ("\0" if action.name == "-print0" else "\n") for path in action.found]
        else:
            act(call, action)
    return "".join(printed), None


class Action:
    """-delete, -print, -exec with its command; `found` holds the paths that come to it."""

    __slots__ = ("command", "found", "name", "together")

    def __init__(self, name: str, command: list[str], together: bool = False) -> None:
        self.name = name
        self.command = command
        self.together = together  # -exec ... {} +
        self.found: list[str] = []

    @property
    def reads(self) -> bool:
        return self.name[:6] == "-print" or self.name == "-ls" or paths.base((self.command or [""])[0]) in READERS


def act(call: Call, action: Action) -> None:
    state = call.state
    words = action.command
    if action.name == "-delete":
        for path in call.scene.ordered(action.found, MAX_FOUND, state.cwd)[:MAX_FOUND]:
            call.touch("delete", path).to = "-delete"
    elif not words or action.reads or not action.found:
        return
    elif action.together:
        found = call.scene.ordered(action.found, MAX_FOUND, state.cwd)[:MAX_FOUND]
        call.run(words[:-1] + found)
    else:
        for path in call.scene.ordered(action.found, MAX_RUNS, state.cwd)[:MAX_RUNS]:
            here = state
            name = path
            if action.name in ("-execdir", "-okdir"):
                here = state.copy()
                here.cwd = paths.normal(paths.parent(path), state.cwd)
                name = "./" + paths.base(path)
            call.run([word.replace("{}", name) for word in words], here)


class Expression:
    """find's expression as a tree of ("or", nodes), ("and", nodes), ("not", node), ("test", name, value), ("do", action)."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.at = 0
        self.actions: list[Action] = []
        self.limit, self.least = 99, 0
        self.names = False  # whether some test names something
        self.pruned = False
        self.node = self.any_of()
        if not self.actions:
            self.node = ("and", [self.node, self.action(Action("-print", []))])
        self.prunes = "-depth" not in words and all(action.name != "-delete" for action in self.actions)

    def any_of(self) -> tuple[Any, ...]:
        nodes = [self.all_of()]
        while self.at < len(self.words) and self.words[self.at] in ("-o", "-or", ","):
            self.at += 1
            nodes.append(self.all_of())
        return ("or", nodes)

    def all_of(self) -> tuple[Any, ...]:
        nodes = []
        while self.at < len(self.words) and self.words[self.at] not in ("-o", "-or", ",", ")"):
            nodes.append(self.factor())
        return ("and", nodes)

    def factor(self) -> tuple[Any, ...]:
        words = self.words
        word = words[self.at]
        self.at += 1
        if word in ("!", "-not") and self.at < len(words):
            return ("not", self.factor())
        if word == "(":
            node = self.any_of()
            self.at += 1
            return node
        if word in EXECUTE:
            start = end = self.at
            while end < len(words) and words[end] != ";" and not (words[end] == "+" and words[end - 1] == "{}"):
                end += 1
            self.at = end + 1
            return self.action(Action(word, words[start:end], words[end : end + 1] == ["+"]))
        if word in ("-delete", "-print", "-print0", "-ls"):
            return self.action(Action(word, []))
        value = ""
        if word in VALUED or word == "-printf":
            value = words[self.at] if self.at < len(words) else ""
            self.at += 1
        if word == "-printf":
            return self.action(Action(word, []))
        if word == "-maxdepth" and value.isdigit():
            self.limit = int(value)
        elif word == "-mindepth" and value.isdigit():
            self.least = int(value)
        self.names = self.names or (word in NAMING and any(c.isalnum() for c in value))
        return ("test", word, value)

    def action(self, action: Action) -> tuple[Any, ...]:
        self.actions.append(action)
        return ("do", action)

    def holds(self, node: tuple[Any, ...], here: str, shown: str, sure: bool = True) -> bool | None:
        """Whether a path passes, None when that is not known; it is noted with each action that it comes, or may come, to."""
        kind = node[0]
        if kind == "test":
            self.pruned = self.pruned or (node[1] == "-prune" and sure and self.prunes)
            return node[1] == "-prune" or one(here, shown, node[1], node[2])
        if kind == "not":
            answer = self.holds(node[1], here, shown, sure)
            return None if answer is None else not answer
        if kind == "do":
            if node[1].found[-1:] != [shown]:
                node[1].found.append(shown)
            return None if node[1].name in EXECUTE else True
        end = kind == "or"  # the answer that settles it
        result: bool | None = not end
        for each in node[1]:
            answer = self.holds(each, here, shown, sure and result is not None)
            if answer is end:
                return end
            if answer is None:
                result = None
        return result


def visit(call: Call, root: str, expression: Expression) -> None:
    """Every path below a root. One that can't be known is looked for where we are, when a name or a test says what is meant."""
    state = call.state
    lost = root[:1] == UNKNOWN or (bool(state.lost) and root[:1] != "/")
    known = root.lstrip(UNKNOWN)
    if lost and not expression.names and not any(c.isalnum() for c in known):
        return
    start = paths.normal("./" + known if lost else root, state.cwd)
    for each in globs.expand(start, "/")[:200] if UNKNOWN in start else [start]:
        walk(call, each if UNKNOWN in start else root, call.scene.origin(each), expression)


def walk(call: Call, root: str, start: str, expression: Expression) -> None:
    if not paths.exists(start):
        return
    most = MAX_VISITS // 6 if all(action.reads for action in expression.actions) else MAX_VISITS
    todo = [("", 0, paths.is_dir(start))]
    for visits, (below, depth, is_folder) in enumerate(todo):
        if visits > most:
            widely(call, root, start, expression)
            break
        if visits % 8 == 0:
            call.scene.step()  # many roots share one budget
        here = start + below
        expression.pruned = False
        if depth >= expression.least:
            expression.holds(expression.node, here, root.rstrip("/") + below if below else root)
        if (
            is_folder
            and depth < expression.limit
            and not expression.pruned
            and (paths.base(below) not in SKIPPED or not below)
        ):
            todo += [(below + "/" + name, depth + 1, folder) for name, folder in paths.entries(here)]


def widely(call: Call, root: str, start: str, expression: Expression) -> None:
    """Too much to visit: what is protected there, and the folders that hold it. What only prints is worth the project alone."""
    reads = all(action.reads for action in expression.actions)
    home = call.scene.cwd
    if reads and not paths.inside(start, home) and not paths.inside(home, start):
        return
    try:
        things = call.scene.protected(home if reads and paths.inside(home, start) else start)
    except Wide:
        if reads:
            return
        raise
    places = []
    for path in things:
        while paths.inside(path, start) and path != start and path not in places:
            places.append(path)
            path = paths.parent(path)
    for path in places:
        if expression.least <= path[len(start) :].count("/") <= expression.limit:
            expression.holds(expression.node, path, root.rstrip("/") + path[len(start) :])


def one(here: str, shown: str, test: str, value: str) -> bool | None:
    """One test; None for times, owners and the like."""
    lowered = test.startswith("-i")
    if test in ("-name", "-iname", "-lname"):
        name = paths.base(here)
        return globs.matches(name.lower() if lowered else name, live(value.lower() if lowered else value))
    if test in ("-path", "-ipath", "-wholename", "-iwholename"):
        return globs.matches(shown.lower() if lowered else shown, live(value.lower() if lowered else value))
    if test in ("-regex", "-iregex"):
        import re

        pattern = value.replace("\\(", "(").replace("\\)", ")").replace("\\|", "|")
        try:
            return re.fullmatch(pattern, shown, re.I if lowered else 0) is not None
        except (re.error, RecursionError):
            return None
    if test == "-type" and "," not in value:
        kind = paths.mode(here, follow=False)
        return {"f": kind == 0o100000, "d": kind == 0o040000, "l": kind == 0o120000}.get(value[:1])
    if test == "-empty":
        return paths.size(here) == 0 if paths.is_file(here) else not paths.entries(here)
    if test == "-size" and value:
        return size_fits(paths.size(here), value)
    if test in ("-mtime", "-mmin") and value[:1] in "+-" and value[1:].isdigit():
        return age_fits(here, value, 60 if test == "-mmin" else 86400)
    return True if test in ALWAYS else False if test == "-false" else None


def size_fits(size: int, value: str) -> bool:
    unit = {"c": 1, "w": 2, "k": 1024, "M": 1 << 20, "G": 1 << 30}.get(value[-1:], 512)
    number = value.strip("+-").rstrip("cwkMGb")
    if not number.isdigit() or size < 0:
        return True
    blocks = -(-size // unit)
    return (
        blocks > int(number) if value[0] == "+" else blocks < int(number) if value[0] == "-" else blocks == int(number)
    )


def age_fits(path: str, value: str, unit: int) -> bool:
    import posix
    import time

    try:
        age = int((time.time() - posix.lstat(path).st_mtime) // unit)
    except OSError:
        return False
    return age > int(value[1:]) if value[0] == "+" else age < int(value[1:])


def fd(call: Call) -> tuple[str | None, bool | None]:
    """fd PATTERN [ROOT] -x rm: a regular expression over names."""
    words = call.argv[1:]
    operands: list[str] = []
    extensions: list[str] = []
    command: list[str] = []
    k = 0
    while k < len(words):
        word = words[k]
        k += 1
        if word in ("-x", "-X", "--exec", "--exec-batch"):
            command = words[k:]
            break
        if word in ("-e", "--extension"):
            extensions += words[k : k + 1]
            k += 1
        elif word in ("-t", "--type", "-d", "--max-depth", "-E", "--exclude", "-S", "-c"):
            k += 1
        elif word[:1] != "-":
            operands.append(word)
    import re

    pattern = operands[0] if operands else ""
    try:
        matcher = re.compile(pattern, re.I)
    except re.error:
        return None, None
    everything = Expression([])
    for root in operands[1:] or ["."]:
        visit(call, root, everything)
    found = [
        path
        for path in everything.actions[0].found
        if path not in (".", *operands[1:])
        and matcher.search(paths.base(path))
        and (not extensions or path.rpartition(".")[2] in extensions)
    ]
    if command and command[-1:] == [";"]:
        command = command[:-1]
    if command:
        if not any("{" in word for word in command):
            command = [*command, "{}"]
        action = Action("-exec", command)
        action.found = found
        act(call, action)
        return "", None
    return "".join(path + "\n" for path in found), None
