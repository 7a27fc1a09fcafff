"""Breaks the product on purpose, one place at a time, and looks whether a test notices.

    uv run python scripts/mutate.py [WORD ...]      only the breaks whose file or sentence holds one of the words

The breaks are in ``tests/mutations.yaml``. Each is made alone in a copy of the working tree; the tests that should notice
run there until the first fails. Each test is first run on the whole copy: one that fails anyway proves nothing.
Exit code 1 when a break survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests/mutations.yaml"
_PASSED, _FAILED = 0, 1  # pytest's exit codes; with any other the tests could not be run


class Mutation(BaseModel):
    """One break: ``old`` stands exactly once in ``file``. ``tests`` as pytest takes them."""

    model_config = ConfigDict(extra="forbid")

    breaks: str
    file: str
    old: str
    new: str
    tests: list[str]

    def applied(self, text: str) -> str:
        """``text`` with the break. Raises ValueError when the list no longer fits the code."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file} holds the old text {count} times, not once: {self.breaks}")
        return text.replace(self.old, self.new)


def read() -> list[Mutation]:
    """The list."""
    return TypeAdapter(list[Mutation]).validate_python(yaml.safe_load(LIST.read_text(encoding="utf-8")))


def copy_tree(target: Path) -> None:
    """What git knows of the working tree, and what it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def write(file: Path, text: str) -> None:
    """Put ``text`` into ``file``. Byte code is known by size and second, which a quick change may leave as they were."""
    file.write_text(text, encoding="utf-8")
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
        compiled.unlink()


def run_tests(tree: Path, tests: list[str]) -> tuple[int, str]:
    """pytest's exit code, and the test that failed or the last line it said."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["it printed nothing"]
    failed = [line.removeprefix("FAILED ") for line in lines if line.startswith("FAILED ")]
    return done.returncode, (failed or lines)[-1]


def main(words: list[str]) -> int:
    """Make every chosen break; the exit code."""
    chosen = [each for each in read() if not words or any(word in each.file or word in each.breaks for word in words)]
    survived: list[Mutation] = []
    sound: set[str] = set()  # tests that pass on the code as it is
    with tempfile.TemporaryDirectory(prefix="mlx-training-mutate-") as scratch:
        tree = Path(scratch)
        copy_tree(tree)
        texts = {each.file: (tree / each.file).read_text(encoding="utf-8") for each in chosen}
        broken = [each.applied(texts[each.file]) for each in chosen]  # the whole list fits before anything is run
        for number, (mutation, text) in enumerate(zip(chosen, broken, strict=True), 1):
            begun = time.monotonic()
            if fresh := [test for test in mutation.tests if test not in sound]:
                code, said = run_tests(tree, fresh)
                if code != _PASSED:
                    raise SystemExit(f"on the code as it is a test does not pass: {said}")
                sound.update(fresh)
            write(tree / mutation.file, text)
            code, said = run_tests(tree, mutation.tests)
            write(tree / mutation.file, texts[mutation.file])
            if code not in (_PASSED, _FAILED):
                raise SystemExit(f"{mutation.file}: {mutation.breaks}: pytest ended with {code}: {said}")
            if code == _PASSED:
                survived.append(mutation)
            verdict = "SURVIVED" if code == _PASSED else "killed"
            detail = "" if code == _PASSED else f" by {said.partition(' - ')[0]}"
            took = f"{time.monotonic() - begun:.0f} s"
            print(f"{number}/{len(chosen)} {verdict} {mutation.file}: {mutation.breaks}{detail} ({took})", flush=True)
    print(f"{len(chosen)} breaks, {len(chosen) - len(survived)} killed, {len(survived)} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
