"""Compound commands: groups, conditions, loops, cases, functions, `[[ ]]`, in bash's and zsh's forms."""

from __future__ import annotations

from .nodes import LIT, Compound, Pipeline, Script, Word
from .words import NAME, WordReader

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from .nodes import Simple


class CompoundReader(WordReader):
    """The part of the reader that knows reserved words; `Reader` adds scripts and simple commands."""

    def command(self) -> Simple | Compound:  # given by Reader
        raise NotImplementedError

    def skip_lines(self) -> None:  # given by Reader
        raise NotImplementedError

    def blanks(self) -> None:  # given by Reader
        raise NotImplementedError

    def peek_word(self) -> str:  # given by Reader
        raise NotImplementedError

    def array_words(self) -> list[Word]:  # given by Reader
        raise NotImplementedError

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
