"""Programs that make commands of what they read."""

from __future__ import annotations

import re

from guard.shell.marks import UNKNOWN

from .commands import Call
from .wrappers import VALUES, after_options


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    return parallel(call) if call.name == "parallel" else xargs(call)


def stdin_items(call: Call, null: bool = False, delimiter: str = "") -> list[str]:
    """The words that xargs would read; one UNKNOWN when its input is not known."""
    text = call.stdin
    if text is None:
        return [UNKNOWN]
    if null or "\0" in text:
        return [item for item in text.split("\0") if item.strip()]
    if delimiter:
        delimiter = {"\\n": "\n", "\\0": "\0"}.get(delimiter, delimiter)
        return [item for item in text.split(delimiter) if item.strip()]
    items: list[str] = []
    word = ""
    mark = ""
    k = 0
    while k < len(text):
        c = text[k]
        if mark:
            mark, word = ("", word) if c == mark else (mark, word + c)
        elif c in "'\"":
            mark = c
        elif c == "\\" and k + 1 < len(text):
            k += 1
            word += text[k]
        elif c in " \t\n":
            items += [word] if word else []
            word = ""
        else:
            word += c
        k += 1
    return items + ([word] if word else [])


def xargs_options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """xargs' own options, letter by letter (`-0I %`, `-rI{}`), and the command."""
    values: dict[str, str] = {}
    k = 0
    while k < len(words) and words[k][:1] == "-" and len(words[k]) > 1:
        word = words[k]
        k += 1
        if word == "--":
            break
        if word[:2] == "--":
            name, equals, value = word[2:].partition("=")
            letter = {"arg-file": "a", "delimiter": "d", "replace": "i", "null": "0"}.get(name, name)
            if not equals and "--" + name in VALUES["xargs"].split():
                value = "".join(words[k : k + 1])
                k += 1
            values[letter] = value
            continue
        for number, letter in enumerate(word[1:], 2):
            values[letter] = word[number:] if letter in "InPLsdaEJRSiel" else ""
            if letter in "InPLsdaEJRS" and not values[letter]:
                values[letter] = "".join(words[k : k + 1])
                k += 1
            if letter in "InPLsdaEJRSiel":
                break
    return values, words[k:]


def xargs(call: Call) -> tuple[str | None, bool | None] | None:
    values, command = xargs_options(call.argv[1:])
    replace = values.get("I") or values.get("J") or ("i" in values and (values["i"] or "{}")) or ""
    delimiter = values.get("d", "")
    null = "0" in values
    if values.get("a"):
        call.stdin = call.scene.read(values["a"], call.state)
    command = command or ["echo"]
    items = stdin_items(call, null, "\n" if replace and not delimiter and not null else delimiter)
    if replace:
        for item in call.scene.bounded(items, 200, call.state.cwd):
            call.run([word.replace(replace, item.strip("\n ")) for word in command], stdin="")
        return None, None
    return call.run([*command, *items], stdin="")


def parallel(call: Call) -> tuple[str | None, bool | None] | None:
    words = call.argv[1:]
    rest = after_options(words, VALUES["parallel"].split())
    marks = [k for k, word in enumerate(rest) if word in (":::", "::::", ":::+")]
    command = rest[: marks[0]] if marks else rest
    if marks and rest[marks[0]] == "::::":
        items = (call.scene.read(rest[marks[0] + 1], call.state) or UNKNOWN).split("\n")
    else:
        items = (
            [word for word in rest[marks[0] + 1 :] if word not in (":::", ":::+")]
            if marks
            else stdin_items(call, delimiter="\n")
        )
    if not command:
        for item in items[:100]:
            call.shell(item)
        return None, None
    for item in call.scene.bounded([item for item in items if item], 100, call.state.cwd):
        text = " ".join(command)
        filled = re.sub(r"\{\d*[./+]*\}", lambda _, item=item: item, text)
        call.shell(filled if filled != text else text + " " + item)
    return None, None
