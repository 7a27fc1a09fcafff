"""The part of YAML that LoRA configurations use, with line numbers: nested maps, lists, scalars. PyYAML isn't in the hook's reach."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any


class Node:
    """A value, the line it stands on, and how it is written: "plain", "quoted", "map", "list" or "other"."""

    __slots__ = ("kind", "line", "value")

    def __init__(self, value: Any, line: int, kind: str) -> None:
        self.value = value
        self.line = line
        self.kind = kind


class YamlError(ValueError):
    """The text is not YAML, or uses more of it than is read here; the message starts with the line."""


def parse(text: str) -> dict[str, Node]:
    """The top-level map.

    Raises:
        YamlError: with the line number.
    """
    lines = []
    for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        bare = without_comment(raw)
        if bare.strip() and bare.strip() not in ("---", "..."):
            indent = len(bare) - len(bare.lstrip(" "))
            if bare[indent : indent + 1] == "\t":
                raise YamlError(f"line {number}: a tab indents this line; YAML wants spaces")
            lines.append((number, indent, bare.strip()))
    value, rest = block(lines, 0, lines[0][1] if lines else 0)
    if rest != len(lines):
        raise YamlError(f"line {lines[rest][0]}: the indentation fits no level above")
    if not isinstance(value, dict):
        raise YamlError("line 1: the file must be a map of `key: value` lines")
    return value


def without_comment(line: str) -> str:
    quote = ""
    for k, c in enumerate(line):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"" and (k == 0 or line[k - 1] in " [,:{"):
            quote = c
        elif c == "#" and (k == 0 or line[k - 1] in " \t"):
            return line[:k].rstrip()
    return line.rstrip()


def block(lines: list[tuple[int, int, str]], start: int, indent: int) -> tuple[list[Node] | dict[str, Node], int]:
    """The map or list whose lines are indented by `indent`; gives it and the index after it."""
    k = start
    if (k < len(lines) and lines[k][2].startswith(("- ", "-\n"))) or (k < len(lines) and lines[k][2] == "-"):
        items = []
        while k < len(lines) and lines[k][1] == indent and lines[k][2][:1] == "-":
            number, _, text = lines[k]
            inner = text[1:].strip()
            k += 1
            if inner:
                items.append(scalar(inner, number))
                while k < len(lines) and lines[k][1] > indent:
                    k += 1  # the further lines of a map in a list are not needed
            elif k < len(lines) and lines[k][1] > indent:
                value, k = block(lines, k, lines[k][1])
                items.append(Node(value, number, "map" if isinstance(value, dict) else "list"))
        return items, k
    found: dict[str, Node] = {}
    while k < len(lines) and lines[k][1] == indent:
        number, _, text = lines[k]
        key, colon, rest = text.partition(":")
        if not colon or (rest and rest[0] not in " \t"):
            raise YamlError(f"line {number}: expected `key: value`, found {text[:40]!r}")
        key = key.strip().strip("'\"")
        rest = rest.strip()
        if key in found:
            raise YamlError(f"line {number}: the key {key} stands twice (first in line {found[key].line})")
        k += 1
        if rest and rest[0] in "|>&*!":
            found[key] = Node(rest, number, "other")
            while k < len(lines) and lines[k][1] > indent:
                k += 1
        elif rest:
            found[key] = scalar(rest, number)
            if k < len(lines) and lines[k][1] > indent:
                raise YamlError(f"line {lines[k][0]}: indented below a key that already has a value")
        elif k < len(lines) and (lines[k][1] > indent or (lines[k][1] == indent and lines[k][2][:1] == "-")):
            value, k = block(lines, k, lines[k][1])
            found[key] = Node(value, number, "map" if isinstance(value, dict) else "list")
        else:
            found[key] = Node(None, number, "plain")
    return found, k


def scalar(text: str, line: int) -> Node:
    """A value on one line: a flow list or map, a quoted string, or a plain scalar as YAML 1.1 reads it."""
    if text[0] == "[":
        if text[-1] != "]":
            raise YamlError(f"line {line}: the list is not closed")
        return Node([scalar(item, line) for item in pieces(text[1:-1])], line, "list")
    if text[0] == "{":
        if text[-1] != "}":
            raise YamlError(f"line {line}: the map is not closed")
        pairs = [item.partition(":") for item in pieces(text[1:-1])]
        return Node(
            {key.strip().strip("'\""): scalar(value.strip() or "null", line) for key, _, value in pairs}, line, "map"
        )
    if text[0] in "'\"":
        if len(text) < 2 or text[-1] != text[0]:
            raise YamlError(f"line {line}: the quoted text is not closed")
        return Node(text[1:-1], line, "quoted")
    return Node(plain(text), line, "plain")


def pieces(text: str) -> list[str]:
    """The items of a flow list, nested ones whole."""
    out = []
    depth = 0
    item = ""
    for c in text:
        depth += (c in "[{") - (c in "]}")
        if c == "," and not depth:
            out.append(item.strip())
            item = ""
        else:
            item += c
    return [each for each in [*out, item.strip()] if each]


def plain(text: str) -> Any:
    """A plain scalar with mlx-lm's reading of numbers: it takes `1e-5` for one, which YAML 1.1 alone does not."""
    lowered = text.lower()
    if lowered in ("true", "yes", "on"):
        return True
    if lowered in ("false", "no", "off"):
        return False
    if lowered in ("null", "~", ""):
        return None
    if lowered.lstrip("-+") not in ("nan", "inf", "infinity"):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text
