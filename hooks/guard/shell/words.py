"""Reading one word: quotes, `$` in all its forms, backticks, process substitution, heredoc bodies."""

from __future__ import annotations

from .nodes import LIT, MATH, PROC, QUO, SUB, VAR, Limit, Word

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

    from .nodes import Redirect, Script

MAX_DEPTH = 40  # nested substitutions and compound commands; real commands stay under ten
BREAKS = " \t\n;&|<>()"
NAME_START = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
NAME = NAME_START + "0123456789"
SPECIAL = "@*#?$!-0123456789"
PLAIN_STOP = frozenset(BREAKS + "\\'\"$`")
QUOTED_STOP = frozenset('"\\$`')
ANSI = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b", "E": "\x1b"}


class WordReader:
    """The part of the reader that knows words; `Reader` adds commands."""

    def __init__(self, text: str, depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            raise Limit("nested too deeply")
        self.s = text
        self.n = len(text)
        self.i = 0
        self.depth = depth
        self.broken = False  # bash -n would refuse this text
        self.inner = 0  # parentheses of substitutions that are open
        self.pending: list[tuple[Redirect, bool, bool]] = []  # heredocs whose bodies start at the next newline

    def script(self, stops: tuple[str, ...] = ()) -> Script:  # pragma: no cover - given by Reader
        raise NotImplementedError

    def nested(self, text: str):
        """A reader like this one for text cut out of ours (backticks, heredoc bodies)."""
        return type(self)(text, self.depth + 1)

    # -- one word -------------------------------------------------------------------------------------------------

    def word(self) -> Word:
        """Read the word at the cursor; empty parts mean there was none."""
        s, n = self.s, self.n
        parts: list[tuple[Any, ...]] = []
        while self.i < n:
            i = self.i
            c = s[i]
            if c not in PLAIN_STOP:
                j = i + 1
                while j < n and s[j] not in PLAIN_STOP:
                    j += 1
                parts.append((LIT, s[i:j]))
                self.i = j
            elif c == "\\":
                if i + 1 < n and s[i + 1] == "\n":
                    self.i += 2
                    continue
                parts.append((QUO, s[i + 1 : i + 2]))
                self.i = min(i + 2, n)
            elif c == "'":
                j = s.find("'", i + 1)
                if j < 0:
                    self.broken, j = True, n
                parts.append((QUO, s[i + 1 : j]))
                self.i = min(j + 1, n)
            elif c == '"':
                self.i += 1
                self.double_quoted(parts)
            elif c == "$":
                self.dollar(parts, False)
            elif c == "`":
                parts.append((SUB, self.backticks(), False))
            elif c in "<>" and s[i + 1 : i + 2] == "(" and not parts:
                self.i += 2
                parts.append((PROC, self.inner_script(), c))
            elif c == "(" and parts and self.glob_paren(parts):
                continue
            else:
                break
        return Word(parts)

    def glob_paren(self, parts: list[tuple[Any, ...]]) -> bool:
        """`*(N)`, `@(a|b)`: a group that belongs to the word; `f()` does not."""
        if self.s[self.i + 1 : self.i + 2] == ")" or parts[-1][0] != LIT or parts[-1][1][-1:] == "=":
            return False
        end = self.s.find(")", self.i)
        inner = self.s[self.i + 1 : end]
        if end < 0 or len(inner) > 200 or any(c in inner for c in "();&<>$`\n\"'"):
            return False
        parts.append((LIT, "(" + inner + ")"))
        self.i = end + 1
        return True

    def double_quoted(self, parts: list[tuple[Any, ...]], end: str = '"') -> None:
        """Read up to the closing quote (or the end of the text when `end` is empty, for heredoc bodies)."""
        s, n = self.s, self.n
        if self.i < n and s[self.i] == end:
            parts.append((QUO, ""))
        while self.i < n:
            i = self.i
            c = s[i]
            if c == end:
                self.i += 1
                return
            if c not in QUOTED_STOP or (c == '"' and not end):
                j = i + 1
                while j < n and s[j] not in QUOTED_STOP:
                    j += 1
                parts.append((QUO, s[i:j]))
                self.i = j
            elif c == "\\":
                following = s[i + 1 : i + 2]
                if following == "\n":
                    pass
                elif following and following in '$`"\\':
                    parts.append((QUO, following))
                else:
                    parts.append((QUO, "\\" + following))
                self.i = min(i + 2, n)
            elif c == "$":
                self.dollar(parts, True)
            else:
                parts.append((SUB, self.backticks(), True))
        if end:
            self.broken = True

    # -- $ --------------------------------------------------------------------------------------------------------

    def dollar(self, parts: list[tuple[Any, ...]], quoted: bool) -> None:
        s = self.s
        i = self.i
        c = s[i + 1 : i + 2]
        if c == "(":
            if s[i + 2 : i + 3] == "(":
                end = self.math_end(i + 3)
                if end is not None:
                    parts.append((MATH, s[i + 3 : end]))
                    self.i = end + 2
                    return
            self.i += 2
            parts.append((SUB, self.inner_script(), quoted))
        elif c == "{":
            self.i += 2
            self.braced(parts, quoted)
        elif c == "'" and not quoted:
            self.i += 2
            parts.append((QUO, self.ansi()))
        elif c == '"' and not quoted:
            self.i += 2
            self.double_quoted(parts)
        elif c and c in NAME_START:
            j = i + 2
            while j < self.n and s[j] in NAME:
                j += 1
            self.i = j
            parts.append((VAR, s[i + 1 : j], "", None, quoted))
            if not quoted and s[j : j + 1] == "[":  # zsh: $array[1]
                end = s.find("]", j)
                if 0 < end < j + 8 and s[j + 1 : end].lstrip("-").isdigit():
                    parts[-1] = (VAR, s[i + 1 : j], "[" + s[j + 1 : end] + "]", None, quoted)
                    self.i = end + 1
        elif c and c in SPECIAL:
            self.i += 2
            parts.append((VAR, c, "", None, quoted))
        elif c == "[":
            end = s.find("]", i)
            parts.append((MATH, s[i + 2 : end if end > 0 else self.n]))
            self.i = end + 1 if end > 0 else self.n
        else:
            parts.append((QUO if quoted else LIT, "$"))
            self.i += 1

    def inner_script(self):
        """The script up to the matching `)`; the cursor is just after the opening one."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Limit("nested too deeply")
        self.inner += 1
        body = self.script((")",))
        self.inner -= 1
        if self.s[self.i : self.i + 1] == ")":
            self.i += 1
        else:
            self.broken = True
        self.depth -= 1
        return body

    def math_end(self, i: int) -> int | None:
        """Index of the `))` that closes an arithmetic expression, or None when it is a substitution of a subshell."""
        depth = 0
        s = self.s
        for j in range(i, min(self.n, i + 4096)):
            c = s[j]
            if c == "(":
                depth += 1
            elif c == ")":
                if depth == 0:
                    return j if s[j + 1 : j + 2] == ")" else None
                depth -= 1
        return None

    def braced(self, parts: list[tuple[Any, ...]], quoted: bool) -> None:
        """`${...}`; the cursor is after the brace."""
        s, n = self.s, self.n
        i = self.i
        start = i
        if s[i : i + 1] in ("!", "#", "+", "=", "~", "^") and s[i + 1 : i + 2] not in ("}", ""):
            i += 1
        if s[i : i + 1] == "(":  # zsh flags: ${(f)x}
            end = s.find(")", i)
            if 0 < end < i + 12:
                start = i = end + 1
        j = i
        while j < n and s[j] in NAME:
            j += 1
        if j == i and j < n and s[j] in SPECIAL:
            j += 1
        name = s[start:j]
        self.i = j
        op = ""
        if s[j : j + 1] == "[":
            end = s.find("]", j)
            if end > 0:
                op = s[j : end + 1]
                self.i = end + 1
        k = self.i
        while k < n and s[k] in ":-=+?#%/^,@" and k - self.i < 2:
            k += 1
        op += s[self.i : k]
        self.i = k
        arg = self.braced_argument(quoted)
        parts.append((VAR, name, op, arg, quoted))

    def braced_argument(self, quoted: bool) -> Word:
        s, n = self.s, self.n
        parts: list[tuple[Any, ...]] = []
        depth = 0
        while self.i < n:
            c = s[self.i]
            if c == "}" and depth == 0:
                self.i += 1
                return Word(parts)
            if c == "{":
                depth += 1
            elif c == "}":
                depth -= 1
            if c == "\\":
                parts.append((QUO, s[self.i + 1 : self.i + 2]))
                self.i = min(self.i + 2, n)
            elif c == "'" and not quoted:
                end = s.find("'", self.i + 1)
                end = end if end >= 0 else n
                parts.append((QUO, s[self.i + 1 : end]))
                self.i = min(end + 1, n)
            elif c == '"':
                self.i += 1
                self.double_quoted(parts)
            elif c == "$":
                self.depth += 1
                if self.depth > MAX_DEPTH:
                    raise Limit("nested too deeply")
                self.dollar(parts, quoted)
                self.depth -= 1
            elif c == "`":
                parts.append((SUB, self.backticks(), quoted))
            else:
                parts.append((LIT, c))
                self.i += 1
        self.broken = True
        return Word(parts)

    def backticks(self):
        s, n = self.s, self.n
        j = self.i + 1
        out = []
        while j < n and s[j] != "`":
            if s[j] == "\\" and s[j + 1 : j + 2] in ("`", "\\", "$"):
                j += 1
            out.append(s[j : j + 1])
            j += 1
        if j >= n:
            self.broken = True
        self.i = min(j + 1, n)
        return self.nested("".join(out)).script()

    def ansi(self) -> str:
        """The text of $'...'; the cursor is after the quote."""
        s, n = self.s, self.n
        out = []
        i = self.i
        while i < n and s[i] != "'":
            c = s[i]
            if c != "\\" or i + 1 >= n:
                out.append(c)
                i += 1
                continue
            e = s[i + 1]
            i += 2
            if e in ANSI:
                out.append(ANSI[e])
            elif e in "xuU":
                j = i
                while j < n and j - i < {"x": 2, "u": 4, "U": 8}[e] and s[j] in "0123456789abcdefABCDEF":
                    j += 1
                code = int(s[i:j], 16) if j > i else 0
                out.append(chr(code) if j > i and code < 0x110000 and not 0xD800 <= code < 0xE000 else "\\" + e)
                i = j
            elif e in "01234567":
                j = i - 1
                while j < n and j - i < 2 and s[j] in "01234567":
                    j += 1
                out.append(chr(int(s[i - 1 : j], 8) & 255))
                i = j
            elif e == "c":
                out.append(chr(ord(s[i]) & 31) if i < n and ord(s[i]) < 128 else "")
                i += 1
            else:
                out.append(e if e in "\\'\"?" else "\\" + e)
        if i >= n:
            self.broken = True
        self.i = min(i + 1, n)
        return "".join(out).partition("\0")[0]  # as bash: a NUL ends the text

    # -- heredocs -------------------------------------------------------------------------------------------------

    def read_heredocs(self) -> None:
        """Read the bodies that are due; the cursor is after the newline that starts them."""
        pending, self.pending = self.pending, []
        s = self.s
        for redirect, strip, expands in pending:
            delimiter = redirect.target.literal() or ""
            lines = []
            while True:
                if self.i >= self.n:
                    break  # bash only warns and takes what there is
                end = s.find("\n", self.i)
                end = end if end >= 0 else self.n
                line = s[self.i : end]
                self.i = min(end + 1, self.n)
                if strip:
                    line = line.lstrip("\t")
                if line == delimiter:
                    break
                if (
                    self.inner
                    and delimiter
                    and line.startswith(delimiter)
                    and line[len(delimiter) :].lstrip()[:1] == ")"
                ):
                    self.i = s.index(")", end - len(line) + len(delimiter))  # as bash: `EOF)` ends both
                    break
                lines.append(line)
            text = "\n".join(lines) + ("\n" if lines else "")
            if expands:
                inner = self.nested(text)
                parts: list[tuple[Any, ...]] = []
                inner.double_quoted(parts, "")
                redirect.body = Word(parts)
            else:
                redirect.body = Word([(QUO, text)])
