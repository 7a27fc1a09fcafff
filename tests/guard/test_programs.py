"""Programs whose effect hangs on more of the disk than the corpora's tree has."""

from __future__ import annotations

import subprocess
import zipfile

import pytest

from tests.guard.tree import Tree, ask_hook, bash, decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "w").build()


def judged(tree: Tree, command: str) -> str:
    return decision(ask_hook(bash(command, tree), tree.environment()))


def git(tree: Tree, *words: str) -> None:
    subprocess.run(["git", *words], cwd=tree.root, check=True, capture_output=True, env=tree.environment())


def test_git_rm_takes_what_is_tracked_alone(tree: Tree) -> None:
    tree.write("site/adapters/adapters.safetensors", "weights")
    tree.write("site/index.html", "<p>")
    git(tree, "add", "site/index.html")
    assert judged(tree, "cd site && git checkout -q --orphan gh-pages && git rm -rfq .") == "allow"
    git(tree, "add", "-f", "site/adapters")
    assert judged(tree, "cd site && git rm -rfq .") == "deny"


def test_a_worktree_goes_with_what_git_ignores_in_it(tree: Tree) -> None:
    git(tree, "worktree", "add", "-q", "../wt")
    assert judged(tree, "git worktree remove ../wt") == "allow"
    assert judged(tree, "git worktree remove --force ../wt") == "allow"
    tree.write("../wt/adapters/run/adapters.safetensors", "weights")
    assert judged(tree, "git worktree remove ../wt") == "deny"


def test_a_forced_removal_takes_what_is_not_committed(tree: Tree) -> None:
    git(tree, "worktree", "add", "-q", "../wt")
    tree.write("../wt/data/train.jsonl", "{}")
    assert judged(tree, "git worktree remove --force ../wt") == "deny"


def test_a_stash_that_is_dropped_takes_untracked_files_when_told_to(tree: Tree) -> None:
    tree.write("new/adapters.safetensors", "weights")
    git(tree, "checkout", "-q", "--", ".")
    assert judged(tree, "git stash && git stash drop") == "allow"
    assert judged(tree, "git stash -u && git stash drop") == "deny"


def test_an_archive_is_compared_without_the_folders_that_its_members_lose(tree: Tree) -> None:
    with zipfile.ZipFile(tree.root / "run.zip", "w") as archive:
        archive.writestr("run/best/adapters.safetensors", "weights")
    assert judged(tree, "unzip -o run.zip -d adapters/my-lora") == "allow"
    assert judged(tree, "unzip -oj run.zip -d adapters/my-lora") == "ask"
    assert judged(tree, "7z e run.zip -oadapters/my-lora") == "ask"
    assert judged(tree, "7z x run.zip -oadapters/my-lora") == "allow"
    code = "from zipfile import ZipFile; ZipFile('run.zip').extractall('adapters/my-lora')"
    assert judged(tree, f'python3 -c "{code}"') == "allow"
