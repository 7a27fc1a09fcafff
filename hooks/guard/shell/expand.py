"""Words to fields, in the shell's order: braces, tilde, variables and substitutions, splitting, globs."""

from __future__ import annotations

from guard import paths

from . import globs
from .marks import (
    CLOSE,
    COMMA,
    EMPTY,
    LEFT,
    OPEN,
    SPLIT,
    TILDE,
    UNKNOWN,
    has_glob,
    live,
    plain,
)
from .nodes import LIT, MATH, PROC, QUO, VAR, Limit, Word

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guard.effects.scene import State

    from .nodes import Script

MAX_FIELDS = 10_000
MAX_BRACES = 4000
MAX_FIELD_CHARS = 200_000


class Expander:
    """Expands words against a state; `substitute(script)` gives a substitution's output (None: not known)."""

    def __init__(
        self,
        state: State,
        substitute: Callable[[Script], str | None],
        process: Callable[[Script, str], str],
        origin: Callable[[str], str],
        moved: dict[str, str],
    ) -> None:
        self.state = state
        self.origin = origin
        self.moved = moved
        self.substitute = substitute
        self.process = process

    # -- public ---------------------------------------------------------------------------------------------------

    def fields(self, words: list[Word]) -> list[str]:
        """The argv that a list of words becomes."""
        out: list[str] = []
        for word in words:
            parts = word.parts
            if len(parts) == 1 and parts[0][0] == LIT and parts[0][1].isalnum():
                out.append(parts[0][1])
                continue
            for encoded in braces(self.encode(word)):
                out += self.split(encoded)
            if len(out) > MAX_FIELDS:
                raise Limit("expands to too many words")
        return out

    def text(self, word: Word) -> str:
        """One string, as in an assignment or a heredoc: no splitting, no globs."""
        encoded = self.encode(word)
        if encoded.startswith(TILDE):
            encoded = self.tilde(encoded)
        return plain(encoded.replace(SPLIT, " "))

    # -- encoding -------------------------------------------------------------------------------------------------

    def encode(self, word: Word) -> str:
        out = ""
        for part in word.parts:
            kind = part[0]
            if kind == LIT:
                out += live(part[1])
            elif kind == QUO:
                out += part[1] or EMPTY
            elif kind == VAR:
                out += self.variable(part)
            elif kind == MATH:
                out += self.arithmetic(part[1])
            elif kind == PROC:
                out += self.process(part[1], part[2])
            else:
                value = self.substitute(part[1])
                value = UNKNOWN if value is None else value.rstrip("\n")
                out += value or EMPTY if part[2] else self.unquoted(value)
            if len(out) > MAX_FIELD_CHARS:
                raise Limit("a word expands too far")
        return out

    def unquoted(self, value: str) -> str:
        """The value of an unquoted expansion: split at IFS, globs live, braces not."""
        separators = self.state.get("IFS")
        separators = " \t\n" if separators is None or UNKNOWN in separators[0] else separators[0]
        if any(c in value for c in separators):
            # zsh does not split: when the whole value names something, it is meant too
            whole = value if paths.exists(paths.normal(value, self.state.cwd)) else ""
            for c in separators:
                value = value.replace(c, SPLIT)
            if whole:
                value += SPLIT + whole
        return live(value).replace(OPEN, "{").replace(CLOSE, "}").replace(COMMA, ",").replace(TILDE, "~")

    def variable(self, part: tuple[Any, ...]) -> str:
        _, name, op, arg, quoted = part
        values = self.lookup(name)
        if op.startswith("["):
            index, _, op = op[1:].partition("]")
            values = self.element(name, values, index)
        elif len(values or ()) > 1 and name not in "@*":
            # bash takes the first element, zsh all of them; both readings count
            values = list(values)  # pyright: ignore[reportArgumentType]
        if op == ":" and (name in "@*" or part[2].startswith(("[@]", "[*]"))) and name:
            text = sliced(
                [self.state.args[0], *(values or [])] if name in "@*" else values, self.text(arg) if arg else ""
            )
        else:
            text = self.operate(values, op, arg)
        if op in (":=", "=") and text and (values is None or not any(values)):
            self.state.vars[name] = text
        if text is None:
            return UNKNOWN
        if quoted:
            return SPLIT.join(item or EMPTY for item in text) if text else ("" if name == "@" else EMPTY)
        return SPLIT.join(self.unquoted(item) for item in text)

    def lookup(self, name: str) -> list[str] | None:
        """A variable's values; None when nothing is known of it."""
        state = self.state
        if name in ("@", "*"):
            return list(state.args[1:])
        if name.isdigit():
            number = int(name)
            return [state.args[number]] if number < len(state.args) else []
        if name == "#":
            return [str(max(0, len(state.args) - 1))]
        if name in ("$", "!"):  # this very shell and its own child: never a job that runs already
            return ["own-process"]
        if name in ("?", "-", ""):
            return None
        if name == "IFS" and state.get(name) is None:
            return [" \t\n"]
        if name == "PWD":
            return [state.cwd]
        return state.get(name)

    def element(self, name: str, values: list[str] | None, index: str) -> list[str] | None:
        if index in ("@", "*") or values is None:
            return values
        try:
            number = int(index)
        except ValueError:
            return self.state.get(name + "[" + index + "]") or values
        # bash counts from 0, zsh from 1: both elements are meant
        picked = [values[k] for k in {number, number - 1 if number > 0 else number} if -len(values) <= k < len(values)]
        return picked[:1] if len(values) == 1 else picked

    def operate(self, values: list[str] | None, op: str, arg: Word | None) -> list[str] | None:
        """Apply `${name<op>arg}`."""
        if not op:
            return values
        default = self.text(arg) if arg is not None else ""
        if op[:2] in (":-", ":=", ":?") or op[:1] in "-=?":
            if values is None or not any(values):
                return [default] if op[-1:] != "?" else values
            return values
        if op[:2] == ":+" or op[:1] == "+":
            return [default] if values is None or any(values) else []
        if values is None:
            return None
        if op[0] == ":":
            return [slice_of(value, default) for value in values]
        if op[0] in "#%":
            pattern = live(default)
            return [trim(value, pattern, op) for value in values]
        if op[0] == "/":
            old, _, new = default.partition("/")
            pattern = live(old)
            if has_glob(pattern) or UNKNOWN in old:
                return [UNKNOWN if value else value for value in values]
            return [value.replace(old, new, -1 if op == "//" else 1) if old else value for value in values]
        if op[0] == "^":
            return [value.upper() if op == "^^" else value[:1].upper() + value[1:] for value in values]
        if op[0] == ",":
            return [value.lower() if op == ",," else value[:1].lower() + value[1:] for value in values]
        return values

    def arithmetic(self, text: str) -> str:
        if text.isdigit():
            return text
        return UNKNOWN

    # -- splitting and globs --------------------------------------------------------------------------------------

    def split(self, encoded: str) -> list[str]:
        if encoded.startswith(TILDE):
            encoded = self.tilde(encoded)
        fields = encoded.split(SPLIT) if SPLIT in encoded else [encoded]
        out = []
        for field in fields:
            if not field:
                continue
            if has_glob(field) and (UNKNOWN in field or self.state.lost or UNKNOWN in self.state.cwd):
                below = "" if field[0] in ("/", UNKNOWN) else "./"  # what starts with UNKNOWN may lie anywhere
                out.append(below + plain(globs.unknown(field)))
                continue
            if has_glob(field):
                found = self.globbed(field.replace(EMPTY, ""))
                if found:
                    out += found
                    continue
            out.append(plain(field))
        return out

    def globbed(self, pattern: str) -> list[str]:
        """The matches on the disk; what this very command moved, linked or mounted is looked up where it lies now."""
        cwd = self.state.cwd
        if not self.moved:
            return globs.expand(pattern, cwd)
        parts = pattern.split("/")
        literal = next(k for k, part in enumerate(parts) if has_glob(part))
        rest = parts[literal:]
        folder = paths.normal(plain("/".join(parts[:literal])) or ("/" if literal else "."), cwd).rstrip("/")
        now = self.origin(folder + "/").rstrip("/")
        found = globs.expand(pattern if now == folder else now + "/" + "/".join(rest), cwd)
        for key, place in self.moved.items():
            below = key[len(folder) + 1 :].split("/")
            if key == folder or key[-1] == "/" or not key.startswith(folder + "/") or len(below) > len(rest):
                continue
            if all(globs.matches(name, part) for name, part in zip(below, rest)):
                more = rest[len(below) :]
                found += globs.expand("/".join([place, *more]), cwd) if more else [key]
        return found

    def tilde(self, encoded: str) -> str:
        head, slash, rest = encoded[1:].partition("/")
        if head == "":
            values = self.state.get("HOME")
            return (values[0] if values else paths.home()) + slash + rest
        if head == "+":
            return self.state.cwd + slash + rest
        if head == "-":
            return UNKNOWN + slash + rest
        if head == paths.env("USER", "root"):
            return paths.home() + slash + rest
        return encoded


def braces(text: str, depth: int = 0) -> list[str]:
    """Brace expansion of an encoded word."""
    if OPEN not in text:
        return [text]
    if depth > 12:
        raise Limit("braces nested too deeply")
    start = text.index(OPEN)
    level = 0
    commas = []
    end = -1
    for i in range(start, len(text)):
        c = text[i]
        if c == OPEN:
            level += 1
        elif c == CLOSE:
            level -= 1
            if level == 0:
                end = i
                break
        elif c == COMMA and level == 1:
            commas.append(i)
    if end < 0:
        return [text[: start + 1].replace(OPEN, "{") + rest for rest in braces(text[start + 1 :], depth + 1)]
    head, body, tail = text[:start], text[start + 1 : end], text[end + 1 :]
    if commas:
        cuts = [start, *commas, end]
        choices = [text[a + 1 : b] for a, b in zip(cuts, cuts[1:])]
        choices = [each for choice in choices for each in braces(choice, depth + 1)]
    else:
        choices = sequence(body)
        if choices is None:
            choices = ["{" + inner + "}" for inner in braces(body, depth + 1)]
    tails = braces(tail, depth + 1)
    if len(choices) * len(tails) > MAX_BRACES or len(tail) * len(choices) * len(tails) > 4 * MAX_FIELD_CHARS:
        raise Limit("braces expand to too many words")
    return [head + choice + rest for choice in choices for rest in tails]


def sequence(body: str) -> list[str] | None:
    """`{1..9}`, `{a..e}`, `{01..10..2}`."""
    parts = body.split("..")
    if len(parts) not in (2, 3):
        return None
    first, last = parts[0], parts[1]
    try:
        step = abs(int(parts[2])) or 1 if len(parts) == 3 else 1
        a, b = int(first), int(last)
        if abs(a - b) // step > MAX_BRACES:
            raise Limit("braces expand to too many words")
        width = max(len(first), len(last)) if first[:1] == "0" or last[:1] == "0" else 0
        numbers = range(a, b + 1, step) if a <= b else range(a, b - 1, -step)
        return [str(number).zfill(width) for number in numbers]
    except ValueError:
        if len(first) == len(last) == 1 and first.isalpha() and last.isalpha():
            a, b = ord(first), ord(last)
            return [chr(code) for code in (range(a, b + 1) if a <= b else range(a, b - 1, -1))]
        return None


def sliced(values: list[str] | None, spec: str) -> list[str] | None:
    """`${@:2}`, `${a[@]:1:2}`: items, not characters."""
    offset, _, length = spec.partition(":")
    try:
        start = int(offset)
        end = start + int(length) if length else None
    except ValueError:
        return values
    return None if values is None else values[start:end] if start >= 0 else values[start:]


def fields_of(line: str, separators: str, most: int) -> list[str]:
    """What `read` makes of a line for so many variables: the last one takes the rest."""
    if not separators.strip():
        return line.split(None, most - 1) if separators else [line]
    out = []
    rest = line
    while len(out) < most - 1 and (at := min((k for c in separators if (k := rest.find(c)) >= 0), default=-1)) >= 0:
        out.append(rest[:at].strip())
        rest = rest[at + 1 :]
    return [*out, rest]


def slice_of(value: str, spec: str) -> str:
    """`${x:offset:length}`; zsh's `:h` and `:t`."""
    if spec in ("h", "t", "A", "a", "r", "e"):
        head, _, tail = value.rpartition("/")
        return {
            "h": head or value,
            "t": tail,
            "r": value.rpartition(".")[0] or value,
            "e": value.rpartition(".")[2],
        }.get(spec, value)
    offset, _, length = spec.partition(":")
    try:
        start = int(offset)
        value = value[start:] if start >= 0 or -start <= len(value) else ""
        return value[: int(length)] if length else value
    except ValueError:
        return UNKNOWN


def trim(value: str, pattern: str, op: str) -> str:
    """`${x#p}`, `${x##p}`, `${x%p}`, `${x%%p}`."""
    if UNKNOWN in value:
        return value
    if not has_glob(pattern):
        text = plain(pattern)
        if op[0] == "#":
            return value[len(text) :] if value.startswith(text) else value
        return value[: len(value) - len(text)] if text and value.endswith(text) else value
    cuts = range(len(value) + 1)
    if len(value) > 400 or LEFT in pattern:
        return UNKNOWN
    if op[0] == "#":
        for cut in reversed(cuts) if op == "##" else cuts:
            if globs.matches(value[:cut], pattern):
                return value[cut:]
    else:
        for cut in cuts if op == "%%" else reversed(cuts):
            if globs.matches(value[cut:], pattern):
                return value[:cut]
    return value
