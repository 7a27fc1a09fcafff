"""Shells with text or a script to run, and the runners of recipes (make, just)."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN

from .commands import Call

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from .scene import State

MAX_RECIPES = 12


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    if call.name == "osascript":
        return osascript(call)
    if call.name in ("make", "gmake", "just", "task"):
        return make(call)
    words = call.argv[1:]
    k = 0
    text = None
    has_text = reads_stdin = False
    while k < len(words) and words[k][:1] in "-+" and len(words[k]) > 1:
        word = words[k]
        if word == "--":
            k += 1
            break
        if word[:2] == "--":
            k += 2 if word in ("--rcfile", "--init-file") else 1
            if word == "--command" or word.startswith("--command="):
                has_text = True
            continue
        if word in ("-n", "-nv"):
            return "", None  # only checks syntax
        if "c" in word[1:]:
            has_text = True
        reads_stdin = reads_stdin or "s" in word[1:]
        k += 2 if word in ("-o", "+o", "-O", "+O") else 1
    state = call.state.copy()
    state.loops = 0
    rest = words[k:]
    if has_text:
        text = rest[0] if rest else None
        state.args = rest[1:] or ["bash"]
        return call.shell(text, state, call.stdin)
    if rest and not reads_stdin:
        state.args = rest
        return call.shell(call.scene.read(rest[0], call.state), state, call.stdin)
    state.args = ["bash", *rest]
    return call.shell(call.stdin, state)


def osascript(call: Call) -> tuple[str | None, bool | None] | None:
    """AppleScript that shells out, or tells the Finder to delete."""
    words = call.argv[1:]
    text = "\n".join(words[k + 1] for k, word in enumerate(words[:-1]) if word == "-e")
    if not text:
        files = [word for word in words if word[:1] != "-"]
        text = (call.scene.read(files[0], call.state) if files else call.stdin) or ""
    call.scene.codes.append(("applescript", text))
    at = text.find("do shell script")
    while at >= 0:
        quoted = string_after(text, at)
        if quoted:
            call.shell(quoted)
        at = text.find("do shell script", at + 5)
    if "delete" in text and "POSIX file" in text:
        path = string_after(text, text.find("POSIX file"))
        if path:
            call.touch("delete", path).tree = True
    return None


def string_after(text: str, at: int) -> str:
    """The double-quoted string that starts after a place, unescaped."""
    k = text.find('"', at)
    if k < 0:
        return ""
    out = ""
    k += 1
    while k < len(text) and text[k] != '"':
        if text[k] == "\\":
            k += 1
        out += text[k : k + 1]
        k += 1
    return out


def make(call: Call) -> tuple[str | None, bool | None] | None:
    """The recipes of the targets asked for, from the Makefile that is there."""
    state = call.state.copy()
    words = call.argv[1:]
    targets = []
    name = ""
    k = 0
    while k < len(words):
        key, given, value = words[k].partition("=")
        if key[:2] in ("-C", "-f", "-j") and len(key) > 2:  # -Cfolder
            key, given, value = key[:2], "=", words[k][2:]
        following = value if given else "".join(words[k + 1 : k + 2])
        if key in ("-C", "--directory") or (key in ("-d", "--working-directory") and "make" not in call.name):
            state.cwd = paths.normal(following, state.cwd)
            k += not given
        elif key in ("-f", "--file", "--makefile", "--justfile"):
            name = following
            k += not given
        elif key == "-j":
            k += not given and following.isdigit()
        elif words[k] in ("-n", "--dry-run", "--just-print"):
            return None
        elif "=" in words[k]:
            variable, _, value = words[k].partition("=")
            state.vars[variable] = [value]
        elif words[k][:1] != "-":
            targets.append(words[k])
        k += 1
    names = (
        [name] if name else ["justfile", "Justfile"] if call.name == "just" else ["GNUmakefile", "makefile", "Makefile"]
    )
    text = next((found for found in (call.scene.read(each, state) for each in names) if found), None)
    if text is None:
        return None
    rules, variables, first = rules_of(text)
    if "make" in call.name:
        variables = {"RM": "rm -f", "CURDIR": state.cwd, **variables}
    for key, value in variables.items():
        state.vars.setdefault(key, [value])
    for key in variables:
        state.vars[key] = [expanded(state, state.vars[key][0])]
    done: set[str] = set()
    todo = targets or [first]
    while todo and len(done) < MAX_RECIPES:
        target = todo.pop(0)
        if target in done or target not in rules:
            continue
        done.add(target)
        needs, lines = rules[target]
        todo += needs
        state.args = [call.name, target]  # $@
        for line in lines:
            call.shell(made_shell(line), state.copy())
    return None


def expanded(state: State, text: str, depth: int = 0) -> str:
    """A make variable's value with the variables in it; functions but `wildcard` give what isn't known."""
    start = max(text.rfind("$("), text.rfind("${"))
    close = text.find(")" if text[start + 1 : start + 2] == "(" else "}", start)
    if start < 0 or close < 0 or depth > 20:
        return text
    name, _, rest = text[start + 2 : close].partition(" ")
    value = rest if name == "wildcard" else (state.get(name) or [""])[0] if not rest else UNKNOWN
    return expanded(state, text[:start] + value + text[close + 1 :], depth + 1)


def made_shell(line: str) -> str:
    """One recipe line as shell text: make's own `$(X)` are variables."""
    line = line.lstrip("@-+ ").replace("$$", "\ue11f")
    out = ""
    k = 0
    while k < len(line):
        if line[k] == "$" and line[k + 1 : k + 2] in ("(", "{"):
            close = line.find(")" if line[k + 1] == "(" else "}", k)
            inner = line[k + 2 : close] if close > 0 else ""
            if inner.startswith(("wildcard ", "shell ")):
                word, _, rest = inner.partition(" ")
                out += rest if word == "wildcard" else "$(" + rest + ")"
                k = close + 1
                continue
            if close > 0 and inner.isidentifier():
                out += "${" + inner + "}"
                k = close + 1
                continue
        out += line[k]
        k += 1
    out = out.replace("{{", "${").replace("}}", "}").replace("${ ", "${")
    return out.replace("\ue11f", "$")


def rules_of(text: str) -> tuple[dict[str, tuple[list[str], list[str]]], dict[str, str], str]:
    """({target: (needs, recipe lines)}, {variable: value}, the first target) of a Makefile or justfile."""
    rules: dict[str, tuple[list[str], list[str]]] = {}
    variables: dict[str, str] = {}
    current: list[str] = []
    first = ""
    for line in text.replace("\\\n", " ").split("\n"):
        if line[:1] in "\t " and line.strip():
            for target in current:
                rules[target][1].append(line.strip())
            continue
        bare = line.split("#", 1)[0].strip()
        if not bare:
            continue
        key, equals, value = bare.partition("=")
        if equals and (":" not in key or key.rstrip().endswith(":")):
            variables[key.strip(" :?+")] = value.strip().strip("'\"")
            continue
        head, colon, needs = bare.partition(":")
        current = []
        if colon:
            current = [word for word in head.split() if UNKNOWN not in word][:4]
            for target in current:
                rules[target] = (needs.split(), [])
                first = first or (target if target[0] != "." else "")
    return rules, variables, first
