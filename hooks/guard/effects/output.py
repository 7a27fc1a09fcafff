"""What simple programs print, so that text which becomes a command further down the line can be read."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN

from .commands import Call, options


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    name = {"gbase64": "base64"}.get(call.name, call.name)
    if name in (
        "cat",
        "tac",
        "gcat",
        "zcat",
        "head",
        "tail",
        "cut",
        "grep",
        "egrep",
        "rg",
        "nl",
        "tr",
        "rev",
        "base64",
        "base32",
        "strings",
    ):
        return (printed(call, name) if call.want else None), None
    if name == "pwd":
        return call.state.cwd + "\n", True
    if name in ("basename", "dirname", "realpath", "readlink"):
        return path_part(call, name), True
    if name == "ls":
        return ls(call) if call.want else None, None
    if name == "seq":
        return seq(call), True
    if name == "uname":
        return None, None
    return None


def source(call: Call, operands: list[str]) -> str | None:
    """The text of the operands, or of standard input."""
    if not operands:
        return call.stdin
    texts = [call.stdin if path == "-" else call.scene.read(path, call.state) for path in operands]
    return None if None in texts else "".join(texts)  # pyright: ignore[reportArgumentType, reportCallIssue]


def printed(call: Call, name: str) -> str | None:
    if name in ("cat", "gcat", "strings"):
        return source(call, options(call.argv)[2])
    if name == "base64":
        flags, values, operands = options(call.argv, "iow", ("input",))
        text = call.scene.read(values["i"], call.state) if values.get("i") else source(call, operands)
        return unbase64(text) if flags & {"d", "D", "decode"} else None
    if name == "rev":
        text = source(call, options(call.argv)[2])
        return None if text is None else "".join(line[::-1] + "\n" for line in text.splitlines())
    if name == "tac":
        text = source(call, options(call.argv)[2])
        return None if text is None else "".join(line + "\n" for line in reversed(text.splitlines()))
    if name == "tr":
        return translated(call)
    if name in ("head", "tail"):
        flags, values, operands = options(call.argv, "nc", ("lines", "bytes"))
        text = source(call, operands)
        count = values.get("n") or values.get("lines") or next((flag for flag in sorted(flags) if flag.isdigit()), "10")
        if text is None or not count.isdigit() or "c" in flags:
            return text
        lines = text.splitlines(True)
        return "".join(lines[: int(count)] if name == "head" else lines[-int(count) :])
    if name == "cut":
        return None
    if name in ("grep", "egrep", "rg"):
        flags, values, operands = options(call.argv, "eABCmf", ("regexp",))
        if "e" not in values:
            operands = operands[1:]
        text = source(call, operands) if operands or call.stdin is not None else None
        if text is None or flags & {"v", "c", "l", "q", "o", "r", "R", "n"}:
            return None
        pattern = values.get("e") or next((word for word in call.argv[1:] if word[:1] != "-"), "")
        import re

        try:
            matcher = re.compile(pattern.replace("\\|", "|"), re.I if "i" in flags else 0)
            return "".join(line + "\n" for line in text.splitlines() if matcher.search(line))
        except (re.error, RecursionError):
            return None
    return None


def unbase64(text: str | None) -> str | None:
    if text is None or UNKNOWN in text:
        return None
    import binascii

    try:
        return binascii.a2b_base64("".join(text.split())).decode("utf-8", "replace")
    except ValueError:
        return None


def translated(call: Call) -> str | None:
    """tr 'a-z' 'A-Z', tr -d '\\n', rot13."""
    flags, _, operands = options(call.argv)
    text = call.stdin
    if text is None or not operands:
        return None
    sets = [spread(word) for word in operands]
    if "d" in flags:
        return "".join(c for c in text if c not in sets[0])
    if len(sets) < 2 or not sets[1]:
        return text
    target = sets[1] + sets[1][-1] * max(0, len(sets[0]) - len(sets[1]))
    return text.translate({ord(a): b for a, b in zip(sets[0], target)})


def spread(word: str) -> str:
    """The characters of a tr set."""
    word = word.replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0")
    word = word.replace("[:upper:]", "A-Z").replace("[:lower:]", "a-z").replace("[:space:]", " \t\n")
    out = ""
    k = 0
    while k < len(word):
        if k + 2 < len(word) and word[k + 1] == "-" and word[k] <= word[k + 2]:
            out += "".join(chr(code) for code in range(ord(word[k]), ord(word[k + 2]) + 1))
            k += 3
        else:
            out += word[k]
            k += 1
    return out


def substituted(text: str | None, script: str) -> str | None:
    """`s/a/b/` and `s|a|b|g` of a known text; None for any other sed script."""
    if text is None or script[:1] != "s" or len(script) < 4:
        return None
    mark = script[1]
    pieces = script[2:].replace("\\" + mark, "\0").split(mark)
    if len(pieces) < 3 or pieces[2].strip("g"):
        return None
    import re

    old, new = pieces[0].replace("\0", mark), pieces[1].replace("\0", mark)
    if new.replace("&", "").count("\\"):
        return None
    old = {"^": "(?m)^", "$": "(?m)$"}.get(old, old)
    try:
        return re.sub(old, lambda m: new.replace("&", m.group(0)), text)
    except (re.error, RecursionError):
        return None


def path_part(call: Call, name: str) -> str | None:
    _flags, values, operands = options(call.argv, "s", ("relative-to",))
    if not operands or UNKNOWN in operands[0]:
        return None
    if name == "basename":
        text = paths.base(operands[0])
        suffix = operands[1] if len(operands) > 1 else values.get("s", "")
        return (text[: -len(suffix)] if suffix and text.endswith(suffix) else text) + "\n"
    if name == "dirname":
        folder = operands[0].rstrip("/").rpartition("/")[0]
        return (folder or ("/" if operands[0].startswith("/") else ".")) + "\n"
    return paths.real(paths.normal(operands[0], call.state.cwd)) + "\n"


def ls(call: Call) -> str | None:
    flags, _, operands = options(call.argv)
    if "l" in flags or "R" in flags:
        return None
    out = []
    for path in operands or ["."]:
        absolute = paths.normal(path, call.state.cwd)
        if "d" in flags or not paths.is_dir(absolute):
            out += [path] if paths.exists(absolute) else []
        else:
            out += [name for name in paths.listing(absolute) if name[0] != "." or flags & {"a", "A"}]
    return "".join(name + "\n" for name in out)


def seq(call: Call) -> str | None:
    numbers = [word for word in call.argv[1:] if word.lstrip("-").isdigit()]
    if not numbers or len(numbers) != len(call.argv) - 1:
        return None
    first, last = (1, int(numbers[0])) if len(numbers) == 1 else (int(numbers[0]), int(numbers[-1]))
    return "".join(str(n) + "\n" for n in range(first, min(last, first + 300) + 1))
