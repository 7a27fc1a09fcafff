"""The values that the Python walk knows: names of libraries, paths, open files; everything else is plain Python."""

from __future__ import annotations

import _ast as ast  # the node classes alone: the `ast` package would double the cost of a call

from guard import paths
from guard.shell import globs
from guard.shell.marks import STAR, UNKNOWN, live

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .python_code import PythonWalk
    from .python_expressions import Expressions
    from .scene import Touch


MAX_EITHER = 6


class Ref(str):
    """A dotted name of something imported or built in."""

    __slots__ = ()


class PathValue(str):
    """A pathlib path."""

    __slots__ = ()

    def attribute(self, name: str) -> Any:
        base = paths.base(self)
        if name == "path":  # an entry of os.scandir
            return str(self)
        if name == "parent":
            return PathValue(paths.parent_of(self))
        if name == "parents":
            return [PathValue(paths.parent_of(self))]
        if name == "name":
            return base
        if name == "stem":
            return base.rpartition(".")[0] or base
        if name == "suffix":
            return "." + base.rpartition(".")[2] if "." in base else ""
        return UNKNOWN


class Words(list):  # pyright: ignore[reportMissingTypeArgument]
    """A list that is known in full: sys.argv."""


class Either:
    """One of several values: what is assigned under a condition that can't be known."""

    __slots__ = ("values",)

    def __init__(self, values: list[Any]) -> None:
        self.values = values


def either(values: list[Any]) -> Any:
    """The alternatives without repetition; the value itself when there is one only."""
    flat: list[Any] = []
    for value in values:
        for each in value.values if isinstance(value, Either) else [value]:
            if not any(each is other or (type(each) is type(other) and each == other) for other in flat):
                flat.append(each)
    return flat[0] if len(flat) == 1 else Either(flat[:MAX_EITHER])


def each_of(function: Callable[..., Any], values: list[Any], budget: int = 64) -> Any:
    """A function of values some of which are alternatives: all that it may give."""
    for number, value in enumerate(values):
        if isinstance(value, Either):
            chosen = value.values[: max(1, budget)]
            left = budget // len(chosen)
            return either([each_of(function, [*values[:number], one, *values[number + 1 :]], left) for one in chosen])
    return function(*values)


class Bound:
    """functools.partial: a function with arguments."""

    __slots__ = ("arguments", "function", "keywords")

    def __init__(self, function: Any, arguments: list[Any], keywords: dict[str, Any]) -> None:
        self.function = function
        self.arguments = arguments
        self.keywords = keywords


class FileValue:
    """An open file."""

    __slots__ = ("mode", "path")

    def __init__(self, path: str, mode: str) -> None:
        self.path = path
        self.mode = mode


def text_of(value: Any) -> str:
    if isinstance(value, str):
        return UNKNOWN if isinstance(value, Ref) else str(value)
    return str(value) if isinstance(value, (int, float)) else UNKNOWN


def binary(left: Any, op: ast.operator, right: Any) -> Any:
    """`+` of strings and lists, `/` of paths, `%` of formats."""
    if isinstance(op, ast.Div) and (isinstance(left, PathValue) or isinstance(right, PathValue)):
        return joined(left, right)
    if isinstance(op, ast.Add):
        if isinstance(left, list) and isinstance(right, list):
            return left + right
        if isinstance(left, str) and isinstance(right, str):
            return text_of(left) + text_of(right)
        if isinstance(left, int) and isinstance(right, int):
            return left + right
    if isinstance(op, ast.Mult) and isinstance(left, str) and isinstance(right, int) and right < 1000:
        return text_of(left) * right
    if isinstance(op, ast.Mod) and isinstance(left, str):
        values = right if isinstance(right, list) else [right]
        for value in values:
            left = left.replace("%s", text_of(value), 1).replace("%d", text_of(value), 1)
        return left
    if isinstance(op, ast.BitOr):
        return text_of(left) + "|" + text_of(right) if not isinstance(left, Ref) else Ref(str(left) + "|" + str(right))
    return UNKNOWN


def joined(left: Any, right: Any) -> PathValue:
    a, b = text_of(left), text_of(right)
    return PathValue(b if b.startswith("/") else paths.join(a, b) if a not in ("", ".") else b)


def listed(walk: Expressions, value: Any) -> list[Any]:
    """What a loop over a value would see."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, dict):
        return list(value)
    if isinstance(value, Either):
        return [item for one in value.values for item in listed(walk, one)]
    if isinstance(value, FileValue):
        text = walk.scene.read(value.path, walk.state)
        return text.splitlines(True)[:200] if text is not None else [UNKNOWN]
    return [UNKNOWN]


def globbed(walk: PythonWalk, folder: str, pattern: str, recursive: bool = False) -> list[str]:
    """Path.glob, Path.rglob, glob.glob."""
    encoded = live(pattern)
    if recursive:
        encoded = STAR + STAR + "/" + encoded
    where = paths.normal(folder or ".", walk.state.cwd) if UNKNOWN not in folder else ""
    if not where:
        return [UNKNOWN]
    prefix = "" if folder in ("", ".") else folder
    return [
        paths.join(prefix, name) if prefix and not name.startswith("/") else name
        for name in globs.expand(encoded, where)
    ]


def touch(walk: PythonWalk, op: str, path: Any, follow: bool = True, tree: bool = False) -> Touch | None:
    """Record a change to a path value; nothing when the path isn't a string."""
    if not isinstance(path, str) or isinstance(path, Ref) or not path:
        return None
    mark = walk.scene.touch(op, str(path), walk.state, " ".join(walk.call.argv)[:400])
    mark.follow = follow
    mark.tree = tree
    return mark


def there(walk: PythonWalk, path: str, question: str) -> Any:
    """os.path.exists and its kin: True when it is there for certain, else UNKNOWN."""
    from .commands import file_status

    letter = "-e" if question == "exists" else "-f" if "file" in question else "-d"
    return (not isinstance(path, Ref) and file_status(letter, path, walk.scene, walk.state)) or UNKNOWN


def opened(walk: PythonWalk, path: Any, mode: Any) -> FileValue | str:
    """open(): the mode says whether the old content goes."""
    if isinstance(path, Ref) or not isinstance(path, str):
        return UNKNOWN
    mode = mode if isinstance(mode, str) else "r"
    if "w" in mode:
        touch(walk, "overwrite", path)
    elif "a" in mode:
        touch(walk, "append", path)
    elif "+" in mode:
        return FileValue(path, mode)
    return FileValue(path, mode)


def made(walk: PythonWalk, path: Any, source: Any) -> None:
    """A copied folder or a link."""
    mark = touch(walk, "make", path)
    if mark is not None:
        mark.to = walk.scene.origin(paths.normal(text_of(source), walk.state.cwd))


def unpacked(walk: PythonWalk, folder: Any, archive: str) -> None:
    """An archive (or a library, when none is named) puts many files into a folder."""
    mark = touch(walk, "unpack", "." if folder is None else folder)
    if mark is not None and archive and UNKNOWN not in archive:
        mark.to = paths.normal(archive, walk.state.cwd)


def method_of_value(walk: PythonWalk, held: Any, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    """A method called on a known or unknown value."""
    if isinstance(held, PathValue):
        return path_method(walk, held, name, arguments, keywords)
    if isinstance(held, FileValue):
        if name == "truncate" or (name == "write" and "+" in held.mode and "w" not in held.mode):
            touch(walk, "overwrite" if name == "truncate" else "edit", held.path)
        if name == "extractall":
            unpacked(walk, keywords.get("path", arguments[0] if arguments else None), held.path)
        if name in ("read", "readlines"):
            text = walk.scene.read(held.path, walk.state)
            if text is not None:
                return text if name == "read" else text.splitlines(True)
        return UNKNOWN
    if isinstance(held, dict) and name == "get" and arguments:
        return held.get(arguments[0], UNKNOWN) if isinstance(arguments[0], str) else UNKNOWN
    if isinstance(held, list):
        if name == "append" and arguments:
            held.append(arguments[0])
        elif name == "extend" and arguments:
            held.extend(listed(walk, arguments[0]))
        return UNKNOWN
    if isinstance(held, str) and held != UNKNOWN:
        return string_method(walk, held, name, arguments)
    if isinstance(held, bytes) and name == "decode":
        return held.decode("utf-8", "replace")
    from . import python_calls

    return python_calls.method_of_unknown(walk, name, arguments, keywords)


def string_method(walk: PythonWalk, held: str, name: str, arguments: list[Any]) -> Any:
    if name == "join" and arguments:
        return held.join(text_of(item) for item in listed(walk, arguments[0]))
    if name == "format":
        for number, argument in enumerate(arguments):
            held = held.replace("{}", text_of(argument), 1).replace("{%d}" % number, text_of(argument))
        return held
    if (
        name
        in (
            "strip",
            "rstrip",
            "lstrip",
            "lower",
            "upper",
            "replace",
            "split",
            "removesuffix",
            "removeprefix",
            "splitlines",
            "encode",
        )
        and all(type(argument) in (str, int) for argument in arguments)
        and hasattr(held, name)
    ):
        try:
            result = getattr(str(held), name)(*arguments)
        except (TypeError, ValueError):
            return UNKNOWN
        return result
    if name in ("startswith", "endswith") and UNKNOWN not in held and len(arguments) == 1 and type(arguments[0]) is str:
        return getattr(held, name)(arguments[0])
    return UNKNOWN


def path_method(walk: PythonWalk, held: PathValue, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    first = arguments[0] if arguments else None
    if name == "unlink":
        touch(walk, "delete", held, follow=False)
    elif name in ("write_text", "write_bytes"):
        mark = touch(walk, "overwrite", held)
        if mark is not None and isinstance(first, str) and UNKNOWN not in first:
            mark.text = first
    elif name == "open":
        return opened(walk, held, keywords.get("mode", first))
    elif name in ("rename", "replace", "move"):
        moved(walk, held, first if first is not None else keywords.get("target"))
    elif name in ("rmtree", "remove", "removedirs"):  # plumbum, path.py
        touch(walk, "delete", held, follow=False, tree=True)
    elif name in ("glob", "rglob"):
        return [PathValue(path) for path in globbed(walk, held, text_of(first), name == "rglob")]
    elif name == "iterdir":
        return [PathValue(paths.join(held, each)) for each in paths.listing(paths.normal(held, walk.state.cwd))]
    elif name == "joinpath":
        for argument in arguments:
            held = joined(held, argument)
        return held
    elif name in ("resolve", "absolute"):
        return PathValue(paths.normal(held, walk.state.cwd)) if UNKNOWN not in held else held
    elif name == "expanduser":
        return PathValue(paths.home() + held[1:]) if held[:1] == "~" else held
    elif name == "with_name":
        return joined(paths.parent_of(held), first)
    elif name == "with_suffix":
        return PathValue((held.rpartition(".")[0] or held) + text_of(first))
    elif name == "as_posix":
        return str(held)
    elif name == "read_text":
        return walk.scene.read(held, walk.state) or UNKNOWN
    elif name in ("exists", "is_file", "is_dir"):
        return there(walk, held, name)
    elif name == "mkdir":
        walk.scene.made.add(paths.normal(held, walk.state.cwd))
    elif name in ("symlink_to", "hardlink_to"):
        made(walk, held, first)
    elif name in ("touch", "rmdir"):
        return UNKNOWN
    return UNKNOWN


def moved(walk: PythonWalk, source: Any, target: Any) -> None:
    """os.rename, os.replace, shutil.move, Path.rename."""
    if not isinstance(source, str) or not isinstance(target, str):
        return
    goal = paths.normal(target, walk.state.cwd) if UNKNOWN not in target else target
    mark = touch(walk, "move", source, follow=False, tree=True)
    if mark is not None:
        mark.to = goal
    if paths.is_dir(goal):
        goal = paths.join(goal, paths.base(source))
    if not paths.is_dir(goal):
        touch(walk, "overwrite", goal, follow=False)
    if UNKNOWN not in goal + source:
        walk.scene.moved[goal] = walk.scene.origin(paths.normal(source, walk.state.cwd))
