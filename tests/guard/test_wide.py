"""Where a search comes to a bound, what is protected beyond it is still found, or the user is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guard.test_contract import copy_of_hooks, reason, run_in
from tests.guard.tree import Tree, ask_hook, bash, decision


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("wide") / "w").build()
    fill(tree.root / "photos", 3100)
    tree.write("photos/later/adapters.safetensors", "weights")
    fill(tree.root / "many", 320)
    tree.write("many/z/adapters.safetensors", "weights")
    for number in range(6):
        fill(tree.root / f"d{number}", 3100)
    tree.write("d5/adapters.safetensors", "weights")
    fill(tree.root / "plain", 3100)
    return tree


def fill(folder: Path, number: int) -> None:
    folder.mkdir()
    for k in range(number):
        (folder / f"{k:05d}.jpg").touch()


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf photos",
        "rm -rf d0 d1 d2 d3 d4 d5",
        "find many -type f -exec rm {} +",
        "find many -type f -exec rm {} \\;",
        "find many -type f -delete",
        'find many -type f | while read -r f; do rm "$f"; done',
        'for f in many/*; do rm -rf "$f"; done',
        'for f in $(ls many); do rm -rf "many/$f"; done',
        "ls many | xargs -I{} rm -rf many/{}",
        "ls many | parallel rm -rf many/{}",
    ],
)
def test_what_lies_beyond_thousands_of_other_files_is_found(tree: Tree, command: str) -> None:
    assert decision(ask_hook(bash(command, tree), tree.environment())) == "deny"


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf plain",
        "find plain -type f -delete",
        'for f in plain/*; do rm -rf "$f"; done',
        "find . -name '*.pyc' -delete",
        "ls plain | xargs -I{} rm -rf plain/{}",
    ],
)
def test_many_plain_files_may_go(tree: Tree, command: str) -> None:
    assert decision(ask_hook(bash(command, tree), tree.environment())) == "allow"


def test_a_deletion_too_wide_to_be_searched_is_asked_about_whatever_it_is_called(tree: Tree, tmp_path: Path) -> None:
    hooks = copy_of_hooks(tmp_path)
    protected = hooks / "guard/protected.py"
    protected.write_text(protected.read_text().replace("MAX_LOOKED = 200_000", "MAX_LOOKED = 2_000"))
    search = hooks / "guard/effects/search.py"
    search.write_text(search.read_text().replace("MAX_VISITS = 20_000", "MAX_VISITS = 300"))
    for command in ("rm -rf plain", "find plain -type f -delete", "find plain -name '*.jpg' -exec rm {} +"):
        done = run_in(hooks, bash(command, tree), tree)
        assert decision(done) == "ask"
        assert "could be searched" in reason(done)
    for command in ("rm -rf build", "rm -rf node_modules", "find . -name '*.py' -exec wc -l {} +", 'rm -rf "$X/plain"'):
        assert decision(run_in(hooks, bash(command, tree), tree)) == "allow"
