"""The tree that the reader builds: plain slots classes, because dataclasses cost more to import than a parse."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

# Kinds of word parts. A part is a tuple whose first item is one of these.
LIT = "lit"  # (LIT, text)                      unquoted text: globs, braces and tilde are live
QUO = "quo"  # (QUO, text)                      quoted text: everything is itself
VAR = "var"  # (VAR, name, op, Word|None, quoted)  $name, ${name<op>word}
SUB = "sub"  # (SUB, Script, quoted)            $( ) or backticks
PROC = "proc"  # (PROC, Script, "<" or ">")       <( ) or >( )
MATH = "math"  # (MATH, text)                     $(( ))


class Limit(Exception):
    """The text is nested or long beyond what is read; the caller decides what that means."""


class Wide(Limit):
    """A deletion reaches more than can be searched: nothing protected was found in it, and nothing says that there is none."""


class Word:
    """One shell word, before expansion."""

    __slots__ = ("array", "parts")

    def __init__(self, parts: list[tuple[Any, ...]]) -> None:
        self.parts = parts
        self.array: list[Word] | None = None  # the words of a=( ... )

    def literal(self) -> str | None:
        """The text when nothing in the word needs expansion, else None."""
        out = ""
        for part in self.parts:
            if part[0] not in (LIT, QUO):
                return None
            out += part[1]
        return out


class Redirect:
    """`fd op target`; for heredocs `body` is the Word of the body and `target` its delimiter."""

    __slots__ = ("body", "fd", "op", "target")

    def __init__(self, fd: str, op: str, target: Word) -> None:
        self.fd = fd
        self.op = op
        self.target = target
        self.body: Word | None = None


class Simple:
    """Assignments, words and redirects."""

    __slots__ = ("assigns", "redirects", "words")
    kind = "simple"

    def __init__(self) -> None:
        self.assigns: list[tuple[str, bool, Word]] = []
        self.words: list[Word] = []
        self.redirects: list[Redirect] = []


class Compound:
    """Every other command. `kind` says which; `parts` holds its Scripts, `words` its words, `name` its name."""

    __slots__ = ("kind", "name", "parts", "redirects", "words")

    def __init__(self, kind: str, parts: list[Script], words: list[Word] | None = None, name: str = "") -> None:
        self.kind = kind
        self.parts = parts
        self.words: list[Word] | None = words or []
        self.name: Any = name
        self.redirects: list[Redirect] = []


class Pipeline:
    """Commands joined by `|`; `sep` is what follows it: `;`, `&`, `&&`, `||` or nothing."""

    __slots__ = ("commands", "negated", "sep")

    def __init__(self, commands: list[Simple | Compound], negated: bool) -> None:
        self.commands = commands
        self.negated = negated
        self.sep = ""


class Script:
    """Pipelines in order."""

    __slots__ = ("items",)

    def __init__(self, items: list[Pipeline]) -> None:
        self.items = items
