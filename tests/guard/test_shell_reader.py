"""The shell reader against two oracles, `bash -n` and tree-sitter-bash, and on generated commands."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tests.guard import corpus, second
from tests.guard.fuzz import Generator
from tests.guard.tree import PLUGIN

sys.path.insert(0, str(PLUGIN / "hooks"))

from guard.shell.nodes import Compound, Limit, Script, Simple, Word
from guard.shell.reader import Reader, parse

CASES = [case[2] for package in (corpus, second) for case in package.cases()]
# bash refuses these for reasons of its own settings (extended globs are off), or the reader reads zsh's form of them.
# Inside [[ ]] the reader keeps words alone.
SKIPPED = ("*(N)", ">!", "always", "[[")


def reader(text: str) -> Reader:
    Reader.count = 0
    found = Reader(text)
    found.script()
    return found


def bash_accepts(text: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).returncode == 0


def test_it_reads_to_the_end_whatever_bash_accepts() -> None:
    for text in CASES:
        found = reader(text)
        assert found.i >= found.n, text
        if bash_accepts(text):
            assert not found.broken, text


def test_generated_commands_that_bash_accepts_are_not_broken() -> None:
    generator = Generator(3, CASES)
    compared = 0
    surprises = []
    for _ in range(600):
        text = generator.script(0)
        if "\ud83d" in text or "\x00" in text or any(mark in text for mark in SKIPPED):
            continue
        try:
            found = reader(text)
        except Limit:
            continue
        if bash_accepts(text):
            compared += 1
            if found.broken:
                surprises.append(text)
    assert compared > 300
    # Some nests of heredocs in substitutions read otherwise than in bash; `broken` is a flag, the reading goes on.
    assert len(surprises) <= 0.01 * compared, surprises


def commands(node: Script) -> list[str]:
    """The first words of all simple commands, in the order of the text, substitutions included."""
    out: list[str] = []

    def word(each: Word) -> None:
        for part in each.parts:
            for item in part[1:]:
                if isinstance(item, Script):
                    script(item)
                elif isinstance(item, Word):
                    word(item)
        for inner in each.array or []:
            word(inner)

    def script(found: Script) -> None:
        for pipeline in found.items:
            for command in pipeline.commands:
                visit(command)

    def visit(command: Simple | Compound) -> None:
        if isinstance(command, Simple):
            for _, _, value in command.assigns:
                word(value)
            if command.words:
                literal = command.words[0].literal()
                if literal:
                    out.append(literal)
            for each in command.words:
                word(each)
        elif isinstance(command, Compound):  # pyright: ignore[reportUnnecessaryIsInstance]
            for each in command.words or []:
                word(each)
            for part in command.parts:
                script(part)
        for redirect in command.redirects:
            for each in (redirect.target, redirect.body):
                if each is not None:
                    word(each)

    script(node)
    return out


def test_tree_sitter_finds_the_same_commands() -> None:
    language = pytest.importorskip(
        "tree_sitter_bash", reason="install tree-sitter and tree-sitter-bash (development dependencies) for this oracle"
    )
    tree_sitter = pytest.importorskip("tree_sitter")
    parser = tree_sitter.Parser(tree_sitter.Language(language.language()))
    agreed = disagreed = 0
    surprises = []
    for text in CASES:
        tree = parser.parse(text.encode())
        if tree.root_node.has_error or not bash_accepts(text):
            continue
        names = []
        stack = [tree.root_node]
        while stack:
            node = stack.pop()
            if node.type == "command_name":
                name = node.text.decode()
                if all(c.isalnum() or c in "./_-:" for c in name):
                    names.append(name)
            stack.extend(reversed(node.children))
        mine = [name for name in commands(parse(text)) if all(c.isalnum() or c in "./_-:" for c in name)]
        # tree-sitter has node types of their own for these
        skip = {"export", "declare", "local", "readonly", "typeset", "unset", "test", "["}
        if sorted(n for n in names if n not in skip) == sorted(n for n in mine if n not in skip):
            agreed += 1
        else:
            disagreed += 1
            surprises.append((text, names, mine))
    assert agreed > 1000
    assert disagreed <= 0.01 * agreed, surprises[:20]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat <<EOF; rm x\nrm y\nEOF\nls", ["cat", "rm", "ls"]),
        ("cat <<'A' <<\"B\"\nrm 1\nA\nrm 2\nB\nls", ["cat", "ls"]),
        ("cat <<-E\n\trm\n\tE\nls", ["cat", "ls"]),
        ("cat <<EOF\r\nx\r\nEOF\r\nEOF\nls", ["cat", "EOF", "ls"]),  # the delimiter is EOF and a carriage return
        ("echo '<<EOF'\nrm x", ["echo", "rm"]),
        ('echo "<<EOF"\nrm x', ["echo", "rm"]),
        ("cat <<<EOF\nrm x", ["cat", "rm"]),
        ("((1<<2))\nrm x", ["rm"]),
        ("# <<EOF\nrm x", ["rm"]),
        ("echo a#b; rm x", ["echo", "rm"]),
        ("cat <<E\n$(rm x)\nE", ["cat", "rm"]),
        ("cat <<\\E\n$(rm x)\nE", ["cat"]),
        ("if a; then b; elif c; then d; else e; fi", ["a", "b", "c", "d", "e"]),
        ("for x in 1 2; do a; done; for ((i=0;i<2;i++)); do b; done", ["a", "b"]),
        ("case x in (a) b;; c|d) e;& *) f; esac", ["b", "e", "f"]),
        ("f() { a; }; function g { b; }; function h() ( c )", ["a", "b", "c"]),
        ("a && b || c; d & e | f |& g", list("abcdefg")),
        ("x=$(a $(b `c`)) y=${z:-$(d)} e", list("abcde")),
        ("diff <(a) <(b) > >(c)", ["diff", "a", "b", "c"]),
        ("[[ -n $(a) && b < c ]] && d", ["a", "d"]),
        ("time -p a; ! b; coproc c", ["a", "b", "c"]),
        ("{ a; } 2>&1 | (b)", ["a", "b"]),
        ("a \\\n b; c", ["a", "c"]),
        ("a=(x $(b) y); c", ["b", "c"]),
    ],
)
def test_commands_are_found_where_they_are_and_nowhere_else(text: str, expected: list[str]) -> None:
    assert sorted(commands(parse(text))) == sorted(expected)


@pytest.mark.parametrize(
    "text",
    [
        "'",
        '"',
        "`",
        "$(",
        "${",
        "$((",
        "((",
        "<<",
        "<<E",
        "a |",
        "a &&",
        ")",
        "}",
        "fi",
        "done",
        ";;",
        "if",
        "case x in",
        "for",
        "f()",
        "[[",
        "$'\\",
        "a=(",
        "\\",
    ],
)
def test_broken_text_is_read_without_an_exception(text: str) -> None:
    for prefix in ("", "rm x; ", "rm x\n"):
        assert "rm" in commands(parse(prefix + text)) or not prefix


def test_ansi_quotes_are_what_bash_makes_of_them() -> None:
    source = random.Random(5)
    for _ in range(200):
        raw = "".join(source.choice("abc\\x41\\n\\t\\101 '\"") for _ in range(8)).replace("'", "")
        shell = "printf %s $'" + raw + "'"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, check=False)
        if done.returncode or b"\0" in done.stdout:
            continue
        [pipeline] = parse(shell).items[:1]
        word = pipeline.commands[0].words[-1]  # pyright: ignore[reportOptionalSubscript]
        if reader(shell).broken:
            continue
        assert word.literal() == done.stdout.decode("latin-1"), shell
