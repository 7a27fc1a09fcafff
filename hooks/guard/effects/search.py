"""find and fd: the paths they would visit are looked up, then deleted, executed on, or printed."""

from __future__ import annotations

from guard import paths
from guard.shell import globs
from guard.shell.marks import UNKNOWN, live

from .commands import Call

MAX_VISITS = 4000
VALUED = frozenset(
    [
        "-name",
        "-iname",
        "-path",
        "-ipath",
        "-wholename",
        "-iwholename",
        "-regex",
        "-iregex",
        "-type",
        "-size",
        "-mtime",
        "-mmin",
        "-newer",
        "-maxdepth",
        "-mindepth",
        "-perm",
        "-user",
        "-group",
        "-ctime",
        "-atime",
        "-amin",
        "-cmin",
        "-printf",
        "-lname",
        "-ilname",
        "-links",
        "-inum",
        "-newermt",
        "-fstype",
        "-samefile",
        "-xtype",
        "-fprint",
    ]
)


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
    tests: list[tuple[str, str, bool]] = []
    actions: list[tuple[str, list[str]]] = []
    negate = False
    k = 0
    while k < len(words):
        word = words[k]
        k += 1
        if word in ("!", "-not"):
            negate = not negate
            continue
        if word in ("-exec", "-execdir", "-ok", "-okdir"):
            end = k
            while (
                end < len(words)
                and words[end] not in (";", "\\;")
                and not (words[end] == "+" and words[end - 1] == "{}")
            ):
                end += 1
            actions.append((word, words[k:end]))
            k = end + 1
        elif word in ("-delete", "-print", "-print0", "-ls", "-prune"):
            actions.append((word, []))
        elif word in ("-o", "-or"):
            tests.append((word, "", False))
        elif word in VALUED:
            tests.append((word, words[k] if k < len(words) else "", negate))
            k += 1
        elif word in ("-empty",):
            tests.append((word, "", negate))
        negate = False
    found: list[str] = []
    for root in roots or ["."]:
        found += visit(call, root, tests)
    return act(call, found, actions)


def act(call: Call, found: list[str], actions: list[tuple[str, list[str]]]) -> tuple[str | None, bool | None]:
    printed = "\n"
    for action, words in actions:
        if action == "-delete":
            for path in found:
                touch = call.touch("delete", path)
                touch.tree = False
                touch.to = "-delete"
        elif action == "-print0":
            printed = "\0"
        elif words:
            if paths.base(words[0]) in (
                "echo",
                "ls",
                "stat",
                "wc",
                "cat",
                "file",
                "grep",
                "head",
                "du",
                "sha256sum",
                "md5sum",
            ):
                continue
            state = call.state
            for path in found[:150]:
                here = state
                name = path
                if action in ("-execdir", "-okdir"):
                    here = state.copy()
                    here.cwd = paths.normal(paths.parent(path), state.cwd)
                    name = "./" + paths.base(path)
                command = [word.replace("{}", name) for word in words]
                if words[-1:] == ["{}"] and "sh" in paths.base(words[0]) and action == "-exec":
                    command = words[:-1] + found[:150]
                    call.run(command, here)
                    break
                call.run(command, here)
    return "".join(path + printed for path in found), None


def visit(call: Call, root: str, tests: list[tuple[str, str, bool]]) -> list[str]:
    """The paths below a root that pass; what can't be judged (times, owners) passes."""
    state = call.state
    start = call.scene.origin(paths.normal(root, state.cwd))
    if UNKNOWN in root or not paths.exists(start):
        return []
    limit = 99
    least = 0
    for test, value, _ in tests:
        if test == "-maxdepth" and value.isdigit():
            limit = int(value)
        elif test == "-mindepth" and value.isdigit():
            least = int(value)
    out = []
    todo = [("", 0)]
    visits = 0
    while todo and visits < MAX_VISITS:
        below, depth = todo.pop(0)
        visits += 1
        if visits % 2:
            call.scene.step()  # many roots share one budget
        here = start + below
        shown = root.rstrip("/") + below if below else root
        if depth >= least and passes(here, shown, tests):
            out.append(shown)
        if depth < limit and paths.is_dir(here) and (not paths.is_link(here) or not below):
            todo += [(below + "/" + name, depth + 1) for name in paths.listing(here)]
    return out


def passes(here: str, shown: str, tests: list[tuple[str, str, bool]]) -> bool:
    """Tests joined by and; `-o` starts a new alternative."""
    alternatives: list[list[tuple[str, str, bool]]] = [[]]
    for test in tests:
        if test[0] in ("-o", "-or"):
            alternatives.append([])
        else:
            alternatives[-1].append(test)
    shared = [test for test in alternatives[0] if test[0] == "-type"] if len(alternatives) > 1 else []
    return any(all(one(here, shown, *test) for test in [*shared, *group]) for group in alternatives)


def one(here: str, shown: str, test: str, value: str, negated: bool) -> bool:
    answer = True
    lowered = test.startswith("-i")
    if test in ("-name", "-iname", "-lname"):
        name = paths.base(here)
        answer = globs.matches(name.lower() if lowered else name, live(value.lower() if lowered else value))
    elif test in ("-path", "-ipath", "-wholename", "-iwholename"):
        answer = globs.matches(shown.lower() if lowered else shown, live(value.lower() if lowered else value))
    elif test in ("-regex", "-iregex"):
        import re

        try:
            answer = (
                re.fullmatch(
                    value.replace("\\(", "(").replace("\\)", ")").replace("\\|", "|"), shown, re.I if lowered else 0
                )
                is not None
            )
        except (re.error, RecursionError):
            answer = True
    elif test == "-type":
        kind = paths.mode(here, follow=False)
        answer = {"f": kind == 0o100000, "d": kind == 0o040000, "l": kind == 0o120000}.get(value[:1], True)
        if "," in value:
            answer = True
    elif test == "-empty":
        answer = paths.size(here) == 0 if paths.is_file(here) else not paths.listing(here)
    elif test == "-size" and value:
        answer = size_fits(paths.size(here), value)
    elif test in ("-mtime", "-mmin") and value[:1] in "+-" and value[1:].isdigit():
        answer = age_fits(here, value, 60 if test == "-mmin" else 86400)
    else:
        return True
    return answer != negated


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
    found = [
        path
        for root in operands[1:] or ["."]
        for path in visit(call, root, [])
        if path not in (".", root)
        and matcher.search(paths.base(path))
        and (not extensions or path.rpartition(".")[2] in extensions)
    ]
    if command and command[-1:] == [";"]:
        command = command[:-1]
    if command:
        if not any("{" in word for word in command):
            command = [*command, "{}"]
        return act(call, found, [("-exec", command)])
    return "".join(path + "\n" for path in found), None
