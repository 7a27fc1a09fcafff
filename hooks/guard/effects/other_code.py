"""JavaScript, Perl, Ruby, PHP, Lua: no parser of ours, so only calls whose arguments are constant strings are read."""

from __future__ import annotations

from guard import paths
from guard.shell import globs
from guard.shell.marks import live

from .commands import Call

DELETES = {
    "rmSync", "unlinkSync", "rmdirSync", "rm", "unlink", "rmdir", "rmtree", "remove_tree", "remove", "removeSync", "rm_rf", "rm_r",
    "rm_f", "remove_dir", "remove_entry", "remove_entry_secure", "delete", "rimraf", "emptyDirSync", "emptyDir", "safe_unlink",
    "remove_file", "deleteSync", "removeDir", "rimrafSync",
}  # fmt: skip
WRITES = {
    "writeFileSync", "writeFile", "truncateSync", "truncate", "createWriteStream", "file_put_contents", "write", "binwrite",
    "outputFileSync", "write_file", "spew", "writeTextFileSync", "writeTextFile", "ftruncate",
}  # fmt: skip
APPENDS = {"appendFileSync", "appendFile"}
MOVES = {"renameSync", "rename", "move", "mv", "moveSync"}
COPIES = {"copyFileSync", "copyFile", "cpSync", "copy", "cp", "cp_r", "copySync"}
SHELLS = {
    "execSync",
    "exec",
    "system",
    "spawnSync",
    "spawn",
    "execFileSync",
    "qx",
    "shell_exec",
    "passthru",
    "execute",
    "popen",
    "execFile",
}
KILLS = {"kill"}
WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def walk(call: Call, text: str, arguments: list[str]) -> None:
    """Find `name("constant", ...)`, `name "constant"` and backtick commands, and record what they do."""
    names = constants(text)
    for number, (name, strings) in enumerate(calls(text, names)):
        if number > 400:
            return
        if name in DELETES:
            if not strings and arguments and name in ("unlink", "delete"):
                strings = arguments
            lost = any("{" in word for word in strings)
            if not strings:  # a Python list has a `remove` too
                lost = not (call.name.startswith("python") and name in ("remove", "delete"))
            if lost:  # a variable that we can't follow: whatever the code names and the disk has is meant
                strings += [word for word in literals(text) if paths.exists(paths.normal(word, call.state.cwd))]
            for path in strings:
                if not path.startswith("-") and "=" not in path and "\n" not in path:
                    for each in globs.expand(live(path), call.state.cwd) or [path]:
                        call.touch("delete", each).tree = True
        elif name in WRITES and strings:
            call.touch("overwrite", strings[0]).follow = True
        elif name in APPENDS and strings:
            call.touch("append", strings[0]).follow = True
        elif name == "open" and strings:
            opened(call, strings)
        elif name in MOVES and len(strings) > 1:
            call.touch("move", strings[0])
            call.touch("overwrite", strings[1])
        elif name in COPIES and len(strings) > 1:
            call.touch("overwrite", strings[1]).follow = True
        elif name in SHELLS and strings:
            if len(strings) > 1 and " " not in strings[0]:
                call.run(strings)
            else:
                call.shell(strings[0])
        elif name in KILLS and strings:
            signal = next((word for word in strings if not word.lstrip("-").isdigit()), "TERM")
            for pid in strings:
                if pid.lstrip("-").isdigit():
                    call.kill("pid", pid, signal)
    if call.name in ("perl", "ruby", "php"):
        for command in between(text, "`") + between(text, "qx{", "}") + between(text, "qx(", ")"):
            call.shell(command)


def opened(call: Call, strings: list[str]) -> None:
    """open(fh, '>', path), open(fh, '>path'), File.open(path, 'w')."""
    for number, word in enumerate(strings):
        mode = word.split(":")[0].strip()
        if mode in (">", "+>", "w", "w+", "wb", ">>", "a", "ab"):
            others = [other for place, other in enumerate(strings) if place != number]
            if others:
                call.touch(
                    "append" if mode in (">>", "a", "ab") else "overwrite",
                    others[-1] if mode[:1] in ">+" else others[0],
                ).follow = True
            return
        if word.startswith(">") and len(word) > 2:
            call.touch("append" if word.startswith(">>") else "overwrite", word.lstrip("> ")).follow = True
            return


def constants(text: str) -> dict[str, str]:
    """Variables that are given one constant string: `const d = "x"`, `$d = 'x'`, `d = "x"`."""
    names: dict[str, str] = {}
    at = 0
    while (at := text.find("=", at)) >= 0 and len(names) < 50:
        rest = text[at + 1 :].lstrip()
        before = text[:at].rstrip()
        k = len(before)
        while k and before[k - 1] in WORD:
            k -= 1
        if rest[:1] in "\"'" and rest and before[k:] and before[-1:] not in "=!<>~":
            value, _ = string_at(rest, 0)
            names.setdefault(before[k:], value)
        at += 1
    return names


def literals(text: str) -> list[str]:
    """All string constants."""
    out = []
    k = 0
    while k < len(text) and len(out) < 100:
        if text[k] in "\"'`":
            value, k = string_at(text, k)
            out += [value] if value else []
        else:
            k += 1
    return out


def string_at(text: str, k: int) -> tuple[str, int]:
    """The string constant that starts at k, and the index after it."""
    mark = text[k]
    out = ""
    k += 1
    while k < len(text) and text[k] != mark:
        if text[k] == "\\":
            k += 1
        out += text[k : k + 1]
        k += 1
    return out, k + 1


def calls(text: str, names: dict[str, str]):
    """(name, constant arguments) for every word that is followed by arguments; comments are skipped."""
    k = 0
    n = len(text)
    while k < n:
        c = text[k]
        if c in "\"'":
            _, k = string_at(text, k)
            continue
        if text.startswith(("//", "#!"), k) or (
            c == "#" and (k == 0 or text[k - 1] in " \n\t") and text[k + 1 : k + 2] == " "
        ):
            end = text.find("\n", k)
            k = end if end >= 0 else n
            continue
        if c not in WORD:
            k += 1
            continue
        start = k
        while k < n and text[k] in WORD:
            k += 1
        name = text[start:k]
        j = k
        while j < n and text[j] == " ":
            j += 1
        if text.startswith(("glob ", "glob("), j):
            j += 5
        if name == "qw" or j >= n:
            continue
        if text[j] in "(\"'<" or (name in KILLS and text[j].isdigit()):
            strings = arguments(text, j + (text[j] == "("), names, text[j] == "(")
            yield name, strings


def arguments(text: str, k: int, names: dict[str, str], closed: bool) -> list[str]:
    """Constant strings (and known variables, numbers) up to the closing parenthesis or the end of the statement."""
    out: list[str] = []
    depth = 0
    n = min(len(text), k + 2000)
    while k < n:
        c = text[k]
        if c in "\"'`":
            value, k = string_at(text, k)
            if out and out[-1].endswith("\0+"):
                out[-1] = out[-1][:-2] + value
            else:
                out.append(value)
            continue
        if c == "<" and not closed and "*" in text[k : k + 60] and (end := text.find(">", k)) > 0:
            out += text[k + 1 : end].split()
            k = end + 1
            continue
        if c in "([{":
            depth += 1
        elif c in ")]}":
            if depth == 0:
                break
            depth -= 1
        elif c in ";\n" and not closed and depth == 0:
            break
        elif c == "+" and out and text[k - 1 : k] != "+":
            out[-1] += "\0+"
        elif c in WORD or c == "-":
            start = k
            k += 1
            while k < n and text[k] in WORD:
                k += 1
            word = text[start:k]
            if word in names and text[k : k + 1] != "(":
                out.append(names[word])
            elif word.lstrip("-").isdigit():
                out.append(word)
            continue
        k += 1
    return [word.replace("\0+", "") for word in out]


def between(text: str, opening: str, closing: str = "") -> list[str]:
    closing = closing or opening
    out = []
    at = text.find(opening)
    while at >= 0:
        end = text.find(closing, at + len(opening))
        if end < 0:
            break
        out.append(text[at + len(opening) : end])
        at = text.find(opening, end + 1)
    return out
