"""Commands of the shell itself."""

from __future__ import annotations

from guard.shell.expand import fields_of
from guard.shell.marks import UNKNOWN

from .commands import DECLARERS, Call, options, test_status

TRUE = ("", True)


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    name = call.name
    argv = call.argv
    state = call.state
    if name in ("cd", "chdir", "pushd", "popd"):
        return folder(call, name)
    if name in ("true", ":"):
        return TRUE
    if name == "false":
        return "", False
    if name in ("test", "["):
        words = argv[1:-1] if name == "[" and argv[-1] == "]" else argv[1:]
        return "", test_status(words, call.scene, state)
    if name in ("echo", "print"):
        return echo(argv), True
    if name == "printf":
        return printf(call), True
    if name in DECLARERS:
        for word in argv[1:]:
            variable, equals, value = word.partition("=")
            if equals and variable.isidentifier():
                state.vars[variable] = [value]
        return TRUE
    if name == "eval":
        return call.shell(" ".join(argv[1:]), stdin=call.stdin)
    if name in ("source", "."):
        words = argv[1:]
        if words and words[0].endswith("/bin/activate"):
            return TRUE
        text = call.stdin if words[:1] == ["/dev/stdin"] else call.scene.read(words[0], state) if words else None
        return call.shell(text)
    if name in ("exit", "return"):
        state.stopped = True
        return TRUE
    if name in ("continue", "break") and len(argv) == 1 and state.loops:
        state.stopped = True
        state.skip = name
        return TRUE
    if name in ("exec", "builtin", "command"):
        flags, _, _ = options(argv[:2])
        if name == "command" and flags & {"v", "V"}:
            return None
        k = 1
        while k < len(argv) and argv[k][:1] == "-":
            k += 2 if argv[k] == "-a" else 1
        return call.run(argv[k:]) if k < len(argv) else TRUE
    if name == "alias":
        for word in argv[1:]:
            variable, equals, value = word.partition("=")
            if equals:
                state.aliases[variable] = value
        return TRUE
    if name == "unalias":
        for word in argv[1:]:
            state.aliases.pop(word, None)
        return TRUE
    if name == "unset":
        for word in argv[1:]:
            state.vars[word] = [""]
            state.functions.pop(word, None)
        return TRUE
    if name == "set":
        return set_(call)
    if name == "shift":
        count = int(argv[1]) if len(argv) > 1 and argv[1].isdigit() else 1
        state.args = state.args[:1] + state.args[1 + count :]
        return TRUE
    if name == "trap" and len(argv) > 2:
        call.shell(argv[1], state.copy())
        return TRUE
    if name in ("read", "mapfile", "readarray"):
        return read(call)
    return None


def folder(call: Call, name: str) -> tuple[str | None, bool | None]:
    """cd, pushd, popd with the folder stack."""
    from .walker import change_folder

    state = call.state
    _, _, operands = options(call.argv)
    if "-" in call.argv[1:]:
        operands = ["-"]
    before = state.cwd
    if name == "popd":
        if state.stack:
            state.cwd = state.stack.pop()
        return TRUE
    if operands == ["-"]:
        target = (state.vars.get("OLDPWD") or [call.scene.cwd])[0]
    else:
        target = operands[-1] if operands else (state.get("HOME") or ["/"])[0]
    if not target:
        return TRUE
    if name == "pushd":
        state.stack.append(before)
    status = change_folder(state, target, call.scene.made)
    state.vars["OLDPWD"] = [before]
    return "", status


def set_(call: Call) -> tuple[str | None, bool | None]:
    state = call.state
    words = call.argv[1:]
    while words and words[0][:1] in "-+" and words[0] not in ("--", "-"):
        if words[0][0] == "-" and "e" in words[0] and words[0] != "-o":
            state.errexit = True
        if words[0] in ("-o", "+o"):
            state.errexit = state.errexit or words[1:2] == ["errexit"]
            words = words[1:]
        words = words[1:]
    if words[:1] == ["--"]:
        state.args = state.args[:1] + words[1:]
    elif words:
        state.args = state.args[:1] + words
    return TRUE


def read(call: Call) -> tuple[str | None, bool | None]:
    """`read x`, `mapfile -t xs`: the text on standard input, when it is known."""
    flags, values, operands = options(call.argv, "dnNptuia" if call.name == "read" else "dnOsuCc")
    text = call.stdin or ""
    if "a" in values:
        operands = [values["a"]]
    known = call.stdin is not None and UNKNOWN not in text
    if call.name != "read":
        rows = text.split("\n") if known else [UNKNOWN]
        call.state.vars[operands[-1] if operands else "MAPFILE"] = [row for row in rows if row]
        return TRUE
    line = text.split("\n", 1)[0] if known and "d" not in values else text if known else UNKNOWN
    names = operands or ["REPLY"]
    if "a" in flags:
        call.state.vars[names[0]] = line.split() if known else [UNKNOWN]
        return "", None
    separators = (call.env.get("IFS") or call.state.get("IFS") or [" "])[0]
    pieces = fields_of(line, separators, len(names)) if known else [UNKNOWN] * len(names)
    for number, name in enumerate(names):
        call.state.vars[name] = [pieces[number].strip() if number < len(pieces) else ""]
    return "", None


def echo(argv: list[str]) -> str:
    words = argv[1:]
    newline = "\n"
    escapes = argv[0] == "print"
    while words and words[0][:1] == "-" and words[0][1:] and all(c in "neEr" for c in words[0][1:]):
        newline = "" if "n" in words[0] else newline
        escapes = escapes or "e" in words[0]
        words = words[1:]
    text = " ".join(words)
    return (unescape(text) if escapes and "\\" in text else text) + newline


def unescape(text: str) -> str:
    """Backslash escapes as `echo -e` and printf read them."""
    from guard.shell.words import WordReader

    reader = WordReader(text.replace("'", "\\'") + "'")
    return reader.ansi()


def printf(call: Call) -> str | None:
    words = call.argv[1:]
    if words[:1] == ["-v"] and len(words) > 2:
        variable, words = words[1], words[2:]
        text = formatted(words)
        call.state.vars[variable] = [UNKNOWN if text is None else text]
        return ""
    if words[:1] == ["--"]:
        words = words[1:]
    return formatted(words)


def formatted(words: list[str]) -> str | None:
    """What printf prints; the format is used again while arguments remain."""
    if not words:
        return ""
    form = unescape(words[0]) if "\\" in words[0] else words[0]
    arguments = words[1:]
    pieces = []
    for _ in range(200):
        k = 0
        used = False
        while k < len(form):
            c = form[k]
            k += 1
            if c != "%":
                pieces.append(c)
                continue
            start = k
            while k < len(form) and form[k] in "-+ #0123456789.*":
                k += 1
            kind = form[k : k + 1]
            k += 1
            if kind == "%":
                pieces.append("%")
                continue
            value = arguments.pop(0) if arguments else ""
            used = True
            if kind == "b":
                value = unescape(value)
            elif kind == "c":
                value = value[:1]
            elif kind == "q":
                value = "'" + value + "'" if " " in value else value
            elif kind in ("x", "o", "X") and value.isdigit():
                value = format(int(value), kind)
            width = form[start : k - 1]
            if width.isdigit() and kind in "di" and value.isdigit():
                value = value.zfill(int(width)) if width[0] == "0" and int(width) < 64 else value
            pieces.append(value)
        if not arguments or not used:
            break
    return "".join(pieces)
