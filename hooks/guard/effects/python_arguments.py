"""A script's command line as argparse reads it, so that `args.folder` is what was given, or its default."""

from __future__ import annotations

from guard.shell.marks import UNKNOWN

from .python_values import PathValue, Ref

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

FLAGS = ("store_true", "store_false", "store_const", "count", "append_const", "help", "version")


class Parser:
    """An ArgumentParser, with its groups and sub-parsers taken for itself."""

    __slots__ = ("specifications",)

    def __init__(self) -> None:
        self.specifications: list[tuple[list[str], dict[str, Any]]] = []

    def method(self, name: str, arguments: list[Any], keywords: dict[str, Any], argv: list[str]) -> Any:
        if name == "add_argument":
            self.specifications.append(([each for each in arguments if isinstance(each, str)], keywords))
        elif name in ("parse_args", "parse_known_args", "parse_intermixed_args"):
            words = arguments[0] if arguments and isinstance(arguments[0], list) else argv[1:]
            found = self.parse([word if isinstance(word, str) else UNKNOWN for word in words])
            return [found, [UNKNOWN]] if name == "parse_known_args" else found
        elif name in ("add_argument_group", "add_mutually_exclusive_group", "add_subparsers", "add_parser"):
            return self
        return UNKNOWN

    def parse(self, words: list[str]) -> Namespace:
        found = Namespace()
        places: list[tuple[str, dict[str, Any]]] = []
        options: dict[str, tuple[str, dict[str, Any]]] = {}
        for names, keywords in self.specifications:
            long = next((name for name in names if name[:2] == "--"), names[0] if names else "")
            name = str(keywords.get("dest") or long.lstrip("-")).replace("-", "_")
            flag = keywords.get("action") in FLAGS
            found[name] = keywords.get("default", (keywords.get("action") == "store_false") if flag else None)
            if names and names[0][:1] != "-":
                places.append((name, keywords))
            options.update((each, (name, keywords)) for each in names if each[:1] == "-")
        rest: list[str] = []
        k = 0
        while k < len(words):
            key, equals, value = words[k].partition("=")
            k += 1
            if key not in options:
                rest += [words[k - 1]] if words[k - 1][:1] != "-" else []
                continue
            name, keywords = options[key]
            if keywords.get("action") in FLAGS:
                found[name] = keywords.get("const", keywords.get("action") != "store_false")
                continue
            values = [value] if equals else []
            many = keywords.get("nargs") is not None and keywords.get("nargs") != "?"
            while not equals and k < len(words) and words[k][:1] != "-" and (many or not values):
                values.append(words[k])
                k += 1
            found[name] = (
                typed(values if many or keywords.get("action") == "append" else values[0], keywords)
                if values
                else UNKNOWN
            )
        for number, (name, keywords) in enumerate(places):
            if keywords.get("nargs") in ("*", "+") or type(keywords.get("nargs")) is int:
                after = len(places) - number - 1
                taken = rest[: len(rest) - after]
                found[name] = typed(taken, keywords) if taken else found[name]
                rest = rest[len(taken) :]
            elif rest:
                found[name] = typed(rest.pop(0), keywords)
            else:
                found[name] = typed(found[name], keywords)
        return found


class Namespace(dict):  # pyright: ignore[reportMissingTypeArgument]
    """What parse_args gives: the values by their names."""


def typed(value: Any, keywords: dict[str, Any]) -> Any:
    """`type=Path` makes paths."""
    kind = keywords.get("type")
    if isinstance(value, list):
        return [typed(each, keywords) for each in value]
    if isinstance(kind, Ref) and kind.endswith("Path") and isinstance(value, str):
        return PathValue(value)
    return value
