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
        _, values, operands = options(call.argv, "dfcb", ("delimiter", "fields"))
        text = source(call, operands)
        return None if text is None or not values.get("f") else columns(text, values.get("d") or "\t", values["f"])
    if name in ("grep", "egrep", "rg"):
        flags, values, operands = options(call.argv, "eABCmf", ("regexp",))
        if "e" not in values:
            operands = operands[1:]
        text = source(call, operands) if operands or call.stdin is not None else None
        if text is None or flags & {"c", "l", "q", "o", "r", "R", "n"}:
            return None
        if flags & {"w", "x", "f"} or sum(word[:2] == "-e" for word in call.argv) > 1:
            return text  # no line but those of the input: more is the safe guess
        pattern = values.get("e") or next((word for word in call.argv[1:] if word[:1] != "-"), "")
        import re

        try:
            found = re.escape(pattern) if "F" in flags else pattern.replace("\\|", "|")
            matcher = re.compile(found, re.I if "i" in flags else 0)
            return "".join(
                line + "\n"
                for line in text.splitlines()
                if UNKNOWN in line or (matcher.search(line) is None) == ("v" in flags)
            )
        except (re.error, RecursionError):
            return text
    return None


def columns(text: str, delimiter: str, fields: str) -> str | None:
    """cut -d, -f 1,3-: a line without the delimiter is printed whole."""
    out = []
    for line in text.splitlines():
        row = line.split(delimiter)
        picked: list[str] = []
        for field in fields.split(","):
            first, dash, last = field.partition("-")
            if not (first + last).isdigit():
                return None
            start = int(first or 1)
            picked += row[start - 1 : (int(last) if last else len(row)) if dash else start]
        out.append((delimiter.join(picked) if len(row) > 1 else line) + "\n")
    return "".join(out)


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


FILTER = r"\s*(\d+|\$|/[^/]*/)?(,(\d+|\$|/[^/]*/))?\s*!?\s*[dpq]?\s*"  # a sed command that only leaves lines out


def substituted(text: str | None, script: str) -> str | None:
    """What sed makes of a known text by `s/a/b/` and `s|a|b|g`, line by line, and by leaving lines out (then: all of them).

    None for any other script.
    """
    import re

    script = script.strip()
    if text is None or not script:
        return text
    if script[0] != "s" or len(script) < 4:
        first, _, rest = script.partition(";")
        return substituted(text, rest) if re.fullmatch(FILTER, first) else None
    mark = script[1]
    pieces = script[2:].replace("\\" + mark, "\0").split(mark, 2)
    if len(pieces) < 3:
        return None
    flags, _, rest = pieces[2].partition(";")
    if flags.strip().strip("gpI"):
        return None
    old, new = pieces[0].replace("\0", mark), pieces[1].replace("\0", mark)
    if new.replace("&", "").count("\\"):
        return None
    try:
        matcher = re.compile(old, re.I if "I" in flags else 0)
        lines = [
            matcher.sub(lambda m: new.replace("&", m.group(0)), line, 0 if "g" in flags else 1)
            for line in text.split("\n")
        ]
    except (re.error, RecursionError):
        return None
    if text.endswith("\n"):
        lines[-1] = ""
    return substituted("\n".join(lines), rest.replace("\0", "\\" + mark))


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
