"""Coverage-guided fuzzing of the reader and the walk: `python tests/guard/fuzz_coverage.py -max_total_time=120`.

Needs atheris (a development tool, Linux and macOS x86_64); all other arguments go to libFuzzer. Any exception but the
two that mean "too large", any invalid answer, and any input that takes over two seconds ends the run with the input.
"""

# pyright: reportUnusedImport=false, reportMissingModuleSource=false, reportAttributeAccessIssue=false

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "hooks")]

import atheris

from tests.guard.tree import Tree

if "GATE_FUZZ_TREE" not in os.environ:
    tree = Tree(Path(tempfile.mkdtemp(prefix="gate-coverage-")) / "w").build()
    environment = {**tree.environment(), "GATE_FUZZ_TREE": str(tree.root)}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)

with atheris.instrument_imports(include=["guard"]):
    import guard.effects.builtins
    import guard.effects.files
    import guard.effects.output
    import guard.effects.python_code
    import guard.effects.shells
    import guard.effects.walker
    import guard.effects.wrappers
    import guard.gate
    import guard.prefilter
    import guard.shell.reader  # noqa: F401

from tests.guard.fuzz import check

CWD = os.environ["GATE_FUZZ_TREE"]


def one(data: bytes) -> None:
    problem = check(data.decode("utf-8", "replace"), CWD)
    if problem:
        raise AssertionError(problem)


def seeds() -> str:
    """The corpora, one file a command."""
    from tests.guard import corpus, second

    folder = Path(tempfile.mkdtemp(prefix="gate-seeds-"))
    for number, case in enumerate([*corpus.cases(), *second.cases()]):
        (folder / str(number)).write_text(case[2].replace("{root}", CWD))
    return str(folder)


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-max_len=400", "-timeout=10", seeds()], one)
    atheris.Fuzz()
