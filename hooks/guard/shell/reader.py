"""Reading commands: one pass over the text, never an exception on bad syntax (`broken` is set and reading goes on)."""

from __future__ import annotations

from .compound import CompoundReader
from .nodes import LIT, Compound, Limit, Pipeline, Redirect, Script, Simple, Word
from .words import BREAKS, MAX_DEPTH, NAME, NAME_START

MAX_COMMANDS = 3_000
CLOSERS = frozenset(("then", "do", "done", "fi", "else", "elif", "esac", "}", "end"))
OPERATORS = ("&>>", "<<<", "<<-", "&>", ">>", ">|", ">&", ">!", "<<", "<>", "<&", "<", ">")
DECLARERS = frozenset(("declare", "local", "export", "typeset", "readonly"))


def parse(text: str) -> Script:
    """Read a whole command line.

    Raises:
        Limit: the text is nested deeper, or holds more commands, than is read.
    """
    Reader.count = 0
    return Reader(text).script()


class Reader(CompoundReader):
    """Scripts, pipelines, simple commands, redirections."""

    count = 0

    def script(self, stops: tuple[str, ...] = ()) -> Script:
        items: list[Pipeline] = []
        while True:
            self.skip_lines()
            if self.i >= self.n:
                break
            c = self.s[self.i]
            if c == ")":
                if ")" in stops:
                    break
                self.broken = True
                self.i += 1
                continue
            if c == ";":
                if ";;" in stops and self.s[self.i : self.i + 2] in (";;", ";&", ";|"):
                    break
                self.i += 1
                continue
            if c in "&|":
                self.broken = True
                self.i += 1
                continue
            word = self.peek_word()
            if word in stops:
                break
            before = self.i
            pipeline = self.pipeline()
            pipeline.sep = self.separator()
            items.append(pipeline)
            if self.i == before:  # a stray closer such as `fi`: skip it, whatever follows is still read
                self.broken = True
                self.i += max(1, len(word))
        return Script(items)

    def separator(self) -> str:
        self.blanks()
        two = self.s[self.i : self.i + 2]
        if two in ("&&", "||"):
            self.i += 2
            return two
        one = two[:1]
        if one == "&" or (one == ";" and two not in (";;", ";&", ";|")):
            self.i += 1
            if one == "&" and self.s[self.i : self.i + 1] in ("|", "!"):  # zsh: disown
                self.i += 1
            return one
        return "\n" if one == "\n" else ""

    def pipeline(self) -> Pipeline:
        negated = self.prefixes()
        commands = [self.command()]
        while True:
            self.blanks()
            two = self.s[self.i : self.i + 2]
            if two[:1] != "|" or two == "||":
                return Pipeline(commands, negated)
            self.i += 2 if two == "|&" else 1
            self.skip_lines()
            self.prefixes()
            commands.append(self.command())

    def prefixes(self) -> bool:
        """Skip `!`, `time [-p]` and `coproc`; True when the status is negated."""
        negated = False
        while True:
            word = self.peek_word()
            if word == "!":
                negated = not negated
            elif word != "time" and word != "coproc":
                break
            self.i += len(word)
            self.blanks()
            if word == "time" and self.peek_word() == "-p":
                self.i += 2
                self.blanks()
        return negated

    # -- commands -------------------------------------------------------------------------------------------------

    def command(self):
        Reader.count += 1
        if Reader.count > MAX_COMMANDS:
            raise Limit("too many commands")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Limit("nested too deeply")
        try:
            node = self.compound()
            if node is None:
                return self.simple()
            while self.redirect(node.redirects):
                pass
            return node
        finally:
            self.depth -= 1

    # -- simple commands ------------------------------------------------------------------------------------------

    def simple(self) -> Simple | Compound:
        node = Simple()
        declares = False
        while True:
            self.blanks()
            if self.i >= self.n:
                return node
            if self.redirect(node.redirects):
                continue
            c = self.s[self.i]
            if c in "\n;&|)":
                return node
            if c == "(":
                if len(node.words) == 1 and not node.assigns and self.s[self.i + 1 : self.i + 8].lstrip()[:1] == ")":
                    self.i = self.s.index(")", self.i) + 1
                    return self.function_body(node.words[0].literal() or "")
                self.broken = True
                self.i += 1
                continue
            if (not node.words or declares) and self.assignment(node):
                continue
            word = self.word()
            if not word.parts:
                self.broken = True
                self.i += 1
                continue
            if not node.words:
                declares = word.literal() in DECLARERS
            node.words.append(word)

    def assignment(self, node: Simple) -> bool:
        """`name=value`, `name+=value`, `name[i]=value`, `name=( ... )`."""
        s, i, n = self.s, self.i, self.n
        if s[i] not in NAME_START:
            return False
        j = i + 1
        while j < n and s[j] in NAME:
            j += 1
        name = s[i:j]
        if s[j : j + 1] == "[":
            end = s.find("]", j)
            if end < 0 or end - j > 80 or s[end + 1 : end + 2] not in ("=", "+") or " " in s[j:end]:
                return False
            j = end + 1
        append = s[j : j + 2] == "+="
        if not append and s[j : j + 1] != "=":
            return False
        self.i = j + (2 if append else 1)
        if s[self.i : self.i + 1] == "(":
            self.i += 1
            value = Word([])
            value.array = self.array_words()
        else:
            value = self.word()
        node.assigns.append((name, append, value))
        return True

    def array_words(self) -> list[Word]:
        """Words up to the closing parenthesis; the cursor is after the opening one."""
        words = []
        while True:
            self.skip_lines()
            if self.i >= self.n:
                self.broken = True
                return words
            if self.s[self.i] == ")":
                self.i += 1
                return words
            word = self.word()
            if word.parts:
                words.append(word)
            else:
                self.i += 1

    def redirect(self, redirects: list[Redirect]) -> bool:
        """Read one redirection when there is one at the cursor."""
        self.blanks()
        s, i, n = self.s, self.i, self.n
        j = i
        if i < n and s[i].isdigit():
            while j < n and s[j].isdigit():
                j += 1
        elif i < n and s[i] == "{":
            end = s.find("}", i)
            if 0 < end < i + 40 and s[i + 1 : end].isidentifier():
                j = end + 1
        if j >= n or s[j] not in "<>&" or (s[j] == "&" and (j > i or s[j + 1 : j + 2] != ">")):
            return False
        if s[j] in "<>" and s[j + 1 : j + 2] == "(":
            return False
        fd = s[i:j]
        op = next(op for op in OPERATORS if s.startswith(op, j))
        if op == ">!" and s[j + 2 : j + 3] not in (" ", "\t"):
            op = ">"
        self.i = j + len(op)
        if op == "&>>" or op == "&>":
            fd = "&"
        self.blanks()
        if op in ("<<", "<<-"):
            start = self.i
            target = self.word()
            quoted = any(part[0] != LIT for part in target.parts)
            # the delimiter is the text after quote removal; `$x` in it is not expanded
            if target.literal() is None:
                target = Word([(LIT, s[start : self.i])])
            redirect = Redirect(fd, op, target)
            self.pending.append((redirect, op == "<<-", not quoted))
        else:
            redirect = Redirect(fd, op.replace(">!", ">|"), self.word())
            if not redirect.target.parts:
                self.broken = True
        redirects.append(redirect)
        return True

    # -- small things ---------------------------------------------------------------------------------------------

    def peek_word(self) -> str:
        """The bare word at the cursor, for reserved words; empty when it is quoted or expanded."""
        s, n = self.s, self.n
        j = self.i
        while j < n and s[j] not in BREAKS:
            if s[j] in "'\"\\$`" or j - self.i > 9:
                return ""
            j += 1
        return s[self.i : j]

    def blanks(self) -> None:
        s, n = self.s, self.n
        while self.i < n:
            c = s[self.i]
            if c == " " or c == "\t":
                self.i += 1
            elif c == "\\" and s[self.i + 1 : self.i + 2] == "\n":
                self.i += 2
            elif c == "#" and (self.i == 0 or s[self.i - 1] in BREAKS):
                end = s.find("\n", self.i)
                self.i = end if end >= 0 else n
            else:
                return

    def skip_lines(self) -> None:
        """Blanks, comments and newlines; a newline starts the bodies of waiting heredocs."""
        while True:
            self.blanks()
            if self.i < self.n and self.s[self.i] == "\n":
                self.i += 1
                if self.pending:
                    self.read_heredocs()
                continue
            return
