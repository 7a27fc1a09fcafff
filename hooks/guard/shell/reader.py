"""Reading commands: one pass over the text, never an exception on bad syntax (`broken` is set and reading goes on)."""

from __future__ import annotations

from .nodes import LIT, Compound, Limit, Pipeline, Redirect, Script, Simple, Word
from .words import BREAKS, MAX_DEPTH, NAME, NAME_START, WordReader

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


class Reader(WordReader):
    """Commands, pipelines, compound commands."""

    count = 0

    def script(self, stops: tuple = ()) -> Script:
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

    def compound(self) -> Compound | None:
        s = self.s
        if s.startswith("((", self.i):
            end = self.math_end(self.i + 2)
            if end is not None:
                text = s[self.i + 2 : end]
                self.i = end + 2
                return Compound("math", [], name=text)
        if s.startswith("(", self.i):
            self.i += 1
            return Compound("subshell", [self.inner_script()])
        word = self.peek_word()
        method = {
            "{": self.group,
            "if": self.if_clause,
            "while": self.while_clause,
            "until": self.while_clause,
            "for": self.for_clause,
            "foreach": self.for_clause,
            "select": self.for_clause,
            "repeat": self.repeat_clause,
            "case": self.case_clause,
            "function": self.function,
            "[[": self.double_bracket,
        }.get(word)
        if method is None:
            return None
        self.i += len(word)
        return method(word)

    def group(self, _word: str) -> Compound:
        body = self.script(("}",))
        self.take("}")
        if self.peek_word() == "always":  # zsh: { ... } always { ... }
            self.i += 6
            self.blanks()
            self.take("{")
            body.items += self.script(("}",)).items
            self.take("}")
        return Compound("group", [body])

    def take(self, word: str) -> None:
        """Consume a reserved word that should be here."""
        self.skip_lines()
        if self.peek_word() == word:
            self.i += len(word)
        else:
            self.broken = True

    def body(self) -> Script:
        """`do ... done`, or zsh's and old bash's `{ ... }`."""
        while self.i < self.n and (self.s[self.i] in " \t\n" or self.s[self.i] == ";"):
            self.skip_lines()
            if self.s[self.i : self.i + 1] == ";":
                self.i += 1
        if self.peek_word() == "do":
            self.i += 2
            inner = self.script(("done",))
            self.take("done")
            return inner
        if self.peek_word() == "{":
            self.i += 1
            inner = self.script(("}",))
            self.take("}")
            return inner
        inner = self.script(("end", "done"))
        if self.peek_word() in ("end", "done"):
            self.i += len(self.peek_word())
        return inner

    def if_clause(self, _word: str) -> Compound:
        """parts: condition, body, condition, body, ..., else-body (when their number is odd)."""
        parts = []
        while True:
            parts.append(self.script(("then", "{")))
            if self.peek_word() == "{":
                self.i += 1
                parts.append(self.script(("}",)))
                self.take("}")
                self.blanks()
                word = self.peek_word()
                if word not in ("else", "elif"):
                    return Compound("if", parts)
            else:
                self.take("then")
                parts.append(self.script(("elif", "else", "fi")))
                word = self.peek_word()
            self.i += len(word) if word in ("elif", "else", "fi") else 0
            if word == "elif":
                continue
            if word == "else":
                parts.append(self.script(("fi",)))
                self.take("fi")
            elif word != "fi":
                self.broken = True
            return Compound("if", parts)

    def while_clause(self, word: str) -> Compound:
        condition = self.script(("do", "{"))
        return Compound(word, [condition, self.body()])

    def repeat_clause(self, _word: str) -> Compound:
        self.blanks()
        self.word()
        return Compound("while", [Script([]), self.body()])

    def for_clause(self, _word: str) -> Compound:
        self.blanks()
        s = self.s
        if s.startswith("((", self.i):
            end = self.math_end(self.i + 2)
            self.i = end + 2 if end is not None else self.n
            return Compound("while", [Script([]), self.body()])
        name = self.name()
        words: list[Word] | None = None
        self.skip_lines()
        if self.peek_word() == "in":
            self.i += 2
            words = self.word_list()
        elif s.startswith("(", self.i):
            self.i += 1
            words = self.array_words()
        node = Compound("for", [self.body()], words, name)
        if words is None:
            node.words = None  # over "$@"
        return node

    def name(self) -> str:
        j = self.i
        while j < self.n and self.s[j] in NAME:
            j += 1
        name, self.i = self.s[self.i : j], j
        return name

    def word_list(self) -> list[Word]:
        words = []
        while True:
            self.blanks()
            if self.i >= self.n or self.s[self.i] in ";&|\n)":
                return words
            word = self.word()
            if not word.parts:
                self.i += 1
                self.broken = True
                continue
            words.append(word)

    def case_clause(self, _word: str) -> Compound:
        self.blanks()
        subject = self.word()
        self.skip_lines()
        self.take("in")
        parts = []
        patterns = []
        while True:
            self.skip_lines()
            if self.i >= self.n or self.peek_word() == "esac":
                break
            if self.s[self.i] in ";(":
                self.i += 1
                continue
            start = self.i
            alternatives = []
            while self.i < self.n and self.s[self.i] not in ")\n":
                if self.s[self.i] in "| \t;&<>(":
                    self.i += 1
                    continue
                alternatives.append(self.word())
            self.i += 1
            parts.append(self.script((";;", "esac")))
            patterns.append(alternatives)
            while self.i < self.n and self.s[self.i] in ";&|":
                self.i += 1
            if self.i == start:
                self.i += 1
        self.take("esac")
        node = Compound("case", parts, [subject])
        node.name = patterns
        return node

    def function(self, _word: str) -> Compound:
        self.blanks()
        name = self.word().literal() or ""
        self.blanks()
        if self.s.startswith("(", self.i):
            end = self.s.find(")", self.i)
            self.i = end + 1 if end >= 0 else self.n
        return self.function_body(name)

    def function_body(self, name: str) -> Compound:
        self.skip_lines()
        if self.i >= self.n:
            self.broken = True
            return Compound("function", [Script([])], name=name)
        return Compound("function", [Script([Pipeline([self.command()], False)])], name=name)

    def double_bracket(self, _word: str) -> Compound:
        words = []
        while self.i < self.n:
            self.skip_lines()
            if self.s.startswith("]]", self.i):
                self.i += 2
                return Compound("test", [], words)
            word = self.word()
            if word.parts:
                words.append(word)
            elif self.i < self.n:
                words.append(Word([(LIT, self.s[self.i])]))
                self.i += 1
        self.broken = True
        return Compound("test", [], words)

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
