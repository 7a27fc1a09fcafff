"""Editors and small languages: in-place edits, and one-liners that open, unlink or shell out."""

from __future__ import annotations

from guard import paths

from .commands import Call, options

DONE = (None, None)


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    name = call.name.lower()
    if name in ("sed", "gsed"):
        return sed(call)
    if name in ("awk", "gawk", "mawk"):
        return awk(call)
    if name in ("sort", "gsort", "shuf", "jq", "yq", "iconv", "uniq", "xxd", "split"):
        return output_file(call, name)
    if name in ("ed", "ex", "vi", "vim", "nvim", "emacs"):
        return editor(call)
    if name == "patch":
        flags, _values, operands = options(call.argv, "pidoDFrB", ("input", "output", "strip"))
        if operands and not flags & {"b", "backup", "dry-run"}:
            call.touch("edit", operands[0]).follow = True
        return DONE
    if name == "dos2unix":
        for path in options(call.argv)[2]:
            call.touch("edit", path).follow = True
        return DONE
    if name in ("sqlite3", "duckdb"):
        return database(call)
    return language(call, name)


def sed(call: Call) -> tuple[str | None, bool | None]:
    """-i edits in place; a suffix keeps a backup. BSD sed takes the suffix as a word of its own."""
    words = call.argv[1:]
    in_place = backup = given = False
    operands: list[str] = []
    scripts: list[str] = []
    k = 0
    while k < len(words):
        word = words[k]
        if word == "--":
            operands += words[k + 1 :]
            break
        if word.startswith("--in-place"):
            in_place = True
            backup = backup or len(word) > 11
        elif word in ("-e", "-f", "--expression", "--file", "-l"):
            given = given or word in ("-e", "-f", "--expression", "--file")
            scripts += words[k + 1 : k + 2]
            k += 1
        elif word[:1] == "-" and len(word) > 1 and word[1] != "-":
            at = next((n for n, c in enumerate(word) if c in "iI" and n), 0)
            if at:
                in_place = True
                suffix = word[at + 1 :]
                if (
                    not suffix
                    and k + 1 < len(words)
                    and (words[k + 1] == "" or (words[k + 1][:1] in ".~" and len(words[k + 1]) < 9))
                ):
                    k += 1
                    suffix = words[k]
                backup = backup or bool(suffix.strip("neErz"))
            if word[-1] in "ef" and not in_place:
                given = True
                scripts += words[k + 1 : k + 2]
                k += 1
            elif in_place and word[-1:] == "e" and word != "-ie":
                given = True
        else:
            operands.append(word)
        k += 1
    if not given and operands:
        scripts.append(operands.pop(0))
    if in_place and not backup:
        for path in operands:
            call.touch("edit", path).follow = True
    for script in scripts:
        for line in script.replace(";", "\n").split("\n"):
            line = line.strip()
            command = line.lstrip("0123456789$,! ")
            if command.startswith("e "):
                call.shell(command[2:])
            for mark in ("/w ", "w ", "gw "):
                at = line.find(mark)
                if at >= 0 and (at == 0 or line[at - 1] in "/0123456789$g"):
                    call.touch("overwrite", line[at + len(mark) :].strip()).follow = True
                    break
    from .output import substituted

    if not in_place:
        text = call.scene.read(operands[0], call.state) if operands else call.stdin
        for script in scripts:
            text = substituted(text, script)
        return text, None
    return DONE


def awk(call: Call) -> tuple[str | None, bool | None]:
    """`print > "file"`, `system("...")`, `-i inplace`."""
    _flags, values, operands = options(call.argv, "Fvfi", ("include", "field-separator", "file"))
    text = operands[0] if operands and "f" not in values else call.scene.read(values.get("f", ""), call.state) or ""
    if values.get("i") == "inplace" or values.get("include") == "inplace":
        for path in operands[1:]:
            call.touch("edit", path).follow = True
    call.scene.codes.append(("awk", text))
    separator = values.get("F") or values.get("field-separator") or ""
    k = 0
    while (k := text.find('"', k)) >= 0:
        end = text.find('"', k + 1)
        if end < 0:
            break
        inner = text[k + 1 : end]
        before = text[:k].rstrip()
        if before.endswith(">>"):
            call.touch("append", inner).follow = True
        elif before.endswith(">"):
            call.touch("overwrite", inner).follow = True
        elif before.endswith("system("):
            rest = text[end + 1 :].partition(")")[0]
            made = column(call, 'print "' + inner + '"' + rest, operands[1:], separator) if rest.strip() else inner
            call.shell(made or inner)
        elif before.endswith("|") or text[end + 1 :].lstrip().startswith("| getline"):
            call.shell(inner)
        k = end + 1
    return column(call, text, operands[1:], separator), None


def column(call: Call, text: str, files: list[str], separator: str = "") -> str | None:
    """What `{print "x/" $1}` prints of a known input; a pattern before it is taken to fit every line."""
    body = text.strip()
    if body.endswith("}") and "{" in body and body[:5] != "BEGIN":
        body = body[body.index("{") + 1 : -1].strip()
    source = call.scene.read(files[0], call.state) if files else call.stdin
    if source is None or not body.startswith("print"):
        return None
    out = []
    for line in source.splitlines():
        row = line.split(separator) if len(separator) == 1 and separator != " " else line.split()
        shown = ""
        k = 5
        while k < len(body):
            c = body[k]
            k += 1
            if c == '"':
                end = body.find('"', k)
                if end < 0:
                    return None
                shown += body[k:end]
                k = end + 1
            elif c == "$" and body[k : k + 1].isdigit():
                number = int(body[k])
                k += 1
                shown += line if not number else row[number - 1] if number <= len(row) else ""
            elif c == "$" and body[k : k + 2] == "NF":
                k += 2
                shown += row[-1] if row else ""
            elif c == ",":
                shown += " "
            elif c not in " \t":
                return None
        out.append((shown if body[5:].strip() else line) + "\n")
    return "".join(out)


def output_file(call: Call, name: str) -> tuple[str | None, bool | None]:
    flags, values, operands = options(
        call.argv,
        {"sort": "okSTt", "gsort": "okSTt", "shuf": "oni", "jq": "fL", "yq": "", "xxd": "csglo"}.get(name, "o"),
        ("output", "argjson", "arg"),
    )
    target = values.get("o") or values.get("output")
    if name in ("jq", "yq") and ("i" in flags or "in-place" in flags or "inplace" in flags):
        for path in operands[1:]:
            call.touch("edit", path).follow = True
    elif name in ("sort", "gsort", "shuf", "iconv") and target:
        own = any(paths.normal(word, call.state.cwd) == paths.normal(target, call.state.cwd) for word in operands)
        call.touch("edit" if own else "overwrite", target).follow = True
    elif name in ("uniq", "xxd") and len(operands) > 1:
        call.touch("overwrite", operands[1]).follow = True
    if name == "xxd" and "r" in flags and call.stdin is not None and "p" in flags:
        try:
            return bytes.fromhex("".join(call.stdin.split())).decode("utf-8", "replace"), None
        except ValueError:
            return None, None
    if name in ("sort", "gsort", "uniq", "shuf") and not operands:
        return call.stdin, None
    return DONE


def database(call: Call) -> tuple[str | None, bool | None]:
    """`COPY ... TO 'file'` of DuckDB, and the dot commands that write a file."""
    text = "\n".join([*call.argv[1:], call.stdin or ""])
    words = text.replace("(", " ( ").replace(";", " ; ").replace(")", " ) ").split()
    copies = False
    for word, following in zip(words, [*words[1:], ""]):
        lowered = word.lower()
        copies = lowered == "copy" or (copies and word != ";")
        if (copies and lowered == "to" and following[:1] in ("'", '"')) or (
            word in (".output", ".once", ".backup", ".save", ".clone") and following not in ("", "stdout")
        ):
            call.touch("overwrite", following.strip("'\"")).follow = True
    return DONE


def editor(call: Call) -> tuple[str | None, bool | None]:
    """Scripted editors: `ex -sc '...|x' file`, `vim -es +cmd file`, `ed file <<<`."""
    _flags, values, operands = options(call.argv, "p" if call.name == "ed" else "cSuT")
    commands = [word for word in call.argv[1:] if word[:1] == "+"] + list(values.values()) + [call.stdin or ""]
    text = "\n".join(commands)
    for mark in (":!", "!", "silent !"):
        for line in text.split("\n"):
            if line.lstrip("+:").startswith(mark.lstrip(":")) and mark.lstrip(":"):
                call.shell(line.lstrip("+:").removeprefix(mark.lstrip(":")) if hasattr(str, "removeprefix") else "")
    if call.name in ("ed", "ex") or any(word in text for word in ("wq", "x", "w!", "write", "update")):
        for path in operands:
            if path[:1] != "+" and (call.stdin or values or len(commands) > 1):
                call.touch("edit", path).follow = True
    return DONE


INLINE = {
    "perl": "eE",
    "ruby": "e",
    "node": "ep",
    "nodejs": "ep",
    "bun": "e",
    "php": "r",
    "lua": "e",
    "deno": "",
    "Rscript": "e",
    "rscript": "e",
}


def language(call: Call, name: str) -> tuple[str | None, bool | None]:
    """perl, ruby, node, php, ...: inline text or a small script, read for calls with constant paths."""
    from . import other_code

    words = call.argv[1:]
    letters = INLINE.get(name, "e")
    texts: list[str] = []
    operands: list[str] = []
    in_place = backup = False
    k = 0
    while k < len(words):
        word = words[k]
        if word in ("--eval", "--print", "-pe", "-ne", "-lne", "-lpe", "-nle", "-ple", "eval") or (
            word[:1] == "-" and word[1:2] != "-" and word[-1:] in letters and len(word) < 9
        ):
            texts += words[k + 1 : k + 2]
            k += 1
        elif word[:1] != "-":
            operands.append(word)
        if (
            name in ("perl", "ruby")
            and word[:1] == "-"
            and "i" in word[1:4]
            and word[1:2] != "-"
            and not word.startswith(("-I", "-M"))
        ):
            in_place = True
            suffix = word[word.index("i") + 1 :]
            backup = backup or suffix[:1] in (".", "~", "b", "_", "o")
        k += 1
    if not texts:
        script = next((word for word in operands if word not in ("run", "-")), "")
        text = call.scene.read(script, call.state) if script else call.stdin
        texts = [text] if text else []
        operands = operands[1:]
    if in_place and not backup:
        for path in operands:
            call.touch("edit", path).follow = True
    for text in texts:
        call.scene.codes.append((name, text))
        other_code.walk(call, text, operands)
    return DONE
