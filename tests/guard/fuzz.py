"""Generated commands against the gate, in process: `python tests/guard/fuzz.py --count 100000 --seed 1`.

For each: no exception but the two that mean "too large", valid output, no hang, and what the prefilter lets go must
be what the whole gate lets go too. Nothing that is generated is ever run.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "hooks")]

PROGRAMS = ["rm -rf", "rm", "mv", "cp -r", "ls", "echo", "cat", "find", "git clean -fdx", "sed -i", "python3 -c", "bash -c", "xargs", "kill", "pkill -f",
            "tar -xf", "truncate -s 0", "tee", "docker run img", "mlx_lm.lora --train", "cd", "eval", "export", "read", "printf", "test", "sudo", "env",
            "timeout 3", "nohup", "base64 -d", "awk", "perl -e", "node -e", "rsync -a --delete", "dd", "ln -sf", "hf upload", "make", "source", "command"]  # fmt: skip
WORDS = ["adapters", "adapters/my-lora", "data/train.jsonl", "models", "*", "docs", "x", "$X", "${X:-y}", "$(echo adapters)", "`pwd`", "'a b'", '"$X"', "-rf",
         "--", "{a,b}", "[ab]*", "~", "..", "/", "$'\\x61'", "$((1+2))", "<(ls)", "-name", "-exec", "{}", "+", "\\;", "$@", "$1", "a=b", "*.jsonl", "?", "!x", "-"]  # fmt: skip
JOINS = [" ", "; ", " && ", " || ", " | ", " & ", "\n", " |& ", " # it's\n", ';# so "\n']
REDIRECTS = [
    "> x",
    ">> data/train.jsonl",
    "< files.txt",
    "2>&1",
    "&> log",
    "<<< hi",
    ">| y",
    "<<EOF\nbody $X\nEOF\n",
    "<<'E'\nrm -rf adapters\nE\n",
    "<<-T\n\tx\n\tT\n",
]
NOISE = [
    *list("'\"`$(){}[]<>|&;#!*?~\\\n\t =+-:/.,%^@"),
    "$(",
    "${",
    "<<",
    "\ue100",
    "\x00",
    "é",
    "�",
    "\r\n",
    "esac",
    "done",
    "fi",
    "then",
    "do",
]


class Generator:
    """Commands by grammar, and corpus cases mutated."""

    def __init__(self, seed: int, corpus: list[str]) -> None:
        self.random = random.Random(seed)
        self.corpus = corpus

    def command(self) -> str:
        kind = self.random.random()
        if kind < 0.55:
            return self.script(0)
        if kind < 0.9:
            return self.mutated(self.random.choice(self.corpus))
        return "".join(self.random.choice(NOISE + WORDS) for _ in range(self.random.randrange(1, 60)))

    def script(self, depth: int) -> str:
        choice = self.random.choice
        parts = [self.statement(depth) for _ in range(self.random.randrange(1, 4))]
        text = parts[0]
        for part in parts[1:]:
            text += choice(JOINS) + part
        return text

    def statement(self, depth: int) -> str:
        choice = self.random.choice
        kind = self.random.random()
        if depth > 3 or kind < 0.6:
            words = [choice(PROGRAMS)] + [self.word(depth) for _ in range(self.random.randrange(0, 4))]
            if self.random.random() < 0.3:
                words.append(choice(REDIRECTS))
            if self.random.random() < 0.15:
                words.insert(0, "X=" + self.word(depth))
            return " ".join(words)
        inner = self.script(depth + 1)
        return choice([
            "( {} )", "{{ {}; }}", "if {}; then {}; else ls; fi", "for i in a b; do {}; done", "while {}; do {}; done", "case x in x) {};; *) ls;; esac",
            "f() {{ {}; }}; f", "$( {} )", "bash -c '{}'", "eval \"{}\"", "! {}", "time {}", "bash <<EOF\n{}\nEOF", "python3 -c \"{}\"", "coproc {}", "[[ {} ]]",
        ]).replace("{{", "\0").replace("}}", "\1").replace("{}", inner).replace("\0", "{").replace("\1", "}")  # fmt: skip

    def word(self, depth: int) -> str:
        if self.random.random() < 0.08 and depth < 4:
            inside = "$(" + self.script(depth + 1) + ")"
            return inside if self.random.random() < 0.5 else f'"{inside}"'
        return self.random.choice(WORDS)

    def mutated(self, text: str) -> str:
        for _ in range(self.random.randrange(1, 5)):
            at = self.random.randrange(len(text) + 1)
            kind = self.random.randrange(4)
            if kind == 0:
                text = text[:at] + self.random.choice(NOISE) + text[at:]
            elif kind == 1:
                text = text[:at] + text[at + self.random.randrange(1, 4) :]
            elif kind == 2:
                other = self.random.choice(self.corpus)
                text = text[:at] + self.random.choice(JOINS) + other[: self.random.randrange(1, len(other) + 1)]
            else:
                text = text[:at] + text[at : at + 8] * 2 + text[at + 8 :]
        return text


def check(command: str, cwd: str) -> str:
    """What is wrong with the gate's answer to a command; empty when all is well."""
    from guard import gate, prefilter
    from guard.shell.nodes import Limit

    payload = {"tool_name": "Bash", "cwd": cwd, "tool_input": {"command": command}}
    raw = json.dumps(payload).encode()
    start = time.process_time()
    try:
        verdict, _ = gate.judge(payload)
    except (Limit, gate.Unjudged, RecursionError) as error:
        verdict = gate.failed(command, str(error))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    text = gate.answer(verdict)
    spent = time.process_time() - start
    if spent > 2:
        return f"took {spent:.1f} s of processor time"
    if text:
        answer = json.loads(text)["hookSpecificOutput"]
        if answer["permissionDecision"] not in ("deny", "ask") or not answer["permissionDecisionReason"]:
            return "answer " + text[:200]
        if prefilter.settled_raw(raw):
            return "the prefilter lets go what the gate stops: " + answer["permissionDecisionReason"][:200]
    cut = prefilter.command_of(raw)
    if cut is not None and cut.replace(" ", "\t") != command.replace(" ", "\t"):
        return f"the prefilter cut {cut!r}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cwd", help="a tree that is there already (internal)")
    chosen = parser.parse_args()
    if not chosen.cwd:
        from tests.guard.tree import Tree

        with tempfile.TemporaryDirectory(prefix="gate-fuzz-") as folder:
            tree = Tree(Path(folder) / "w").build()
            argv = [
                sys.executable,
                __file__,
                "--count",
                str(chosen.count),
                "--seed",
                str(chosen.seed),
                "--cwd",
                str(tree.root),
            ]
            return subprocess.run(argv, env=tree.environment(), cwd="/", check=False).returncode
    from tests.guard import corpus, second

    texts = [case[2].replace("{root}", chosen.cwd) for package in (corpus, second) for case in package.cases()]
    generator = Generator(chosen.seed, texts)
    start = time.perf_counter()
    slowest = 0.0
    bad = 0
    for number in range(chosen.count):
        command = generator.command()
        began = time.perf_counter()
        problem = check(command, chosen.cwd)
        slowest = max(slowest, time.perf_counter() - began)
        if problem:
            bad += 1
            print(f"{number}: {problem}\n    {command!r}", flush=True)
            if bad >= 20:
                break
    print(
        f"{number + 1} commands, {bad} problems, slowest {slowest * 1000:.0f} ms, {time.perf_counter() - start:.0f} s",  # pyright: ignore[reportPossiblyUnboundVariable]
        flush=True,
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
