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


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf .claude",
        "mv .claude .claude.bak",
        "git clean -fdx .claude",
        "python3 -c \"import shutil; shutil.rmtree('.claude')\"",
        "mkdir t && mv .claude t/ && rm -rf t",
    ],
)
@pytest.mark.parametrize("file", ["mlx-training.yaml", "settings.json"])
def test_a_folder_that_holds_the_settings_stays(command: str, file: str, tree: Tree) -> None:
    assert judged(tree, command) == "allow"
    text = "protect: [corpora/]\n" if file.endswith("yaml") else '{"enabledPlugins": {"mlx-training@m": true}}'
    git(tree, "rm", "-rfq", "--cached", ".claude")
    tree.write(".claude/" + file, text)
    assert judged(tree, command) == "deny"
    assert judged(tree, "rm -rf .claude/commands && cp -r .claude /tmp/copy") == "allow"


def test_settings_are_not_brought_from_elsewhere(tree: Tree) -> None:
    tree.write("cfg/mlx-training.yaml", "off: [artefacts]\n")
    tree.write("tree/.claude/mlx-training.yaml", "off: [artefacts]\n")
    subprocess.run(["tar", "-cf", "../cfg.tar", "mlx-training.yaml"], cwd=tree.root / "cfg", check=True)
    subprocess.run(["tar", "-czf", "../tree.tgz", ".claude"], cwd=tree.root / "tree", check=True)
    for command in (
        "ln -s ../cfg/mlx-training.yaml .claude/mlx-training.yaml",
        "cp -n cfg/mlx-training.yaml .claude/",
        "mv -n cfg/mlx-training.yaml .claude/",
        "cp -r cfg/. .claude/",
        "cp -rn cfg/. .claude",
        "cp -r tree/. .",
        "rsync -a cfg/ .claude/",
        "rsync -a --ignore-existing cfg/ .claude/",
        "tar xf cfg.tar -C .claude",
        "tar xzf tree.tgz",
        "curl -s https://example.com/x | tar xz -C .claude",
        "rm -rf .claude/x && mv .claude/settings.json /tmp/ && rmdir .claude && mv cfg .claude",
        "mkdir c && echo 'off: [artefacts]' > c/mlx-training.yaml && cp -r c/. .claude/",
        "python3 -c \"import os; os.symlink('../cfg/mlx-training.yaml', '.claude/mlx-training.yaml')\"",
        "python3 -c \"import shutil; shutil.copytree('cfg', '.claude', dirs_exist_ok=True)\"",
    ):
        assert judged(tree, command) == "deny", command
    for command in (
        "cp -r docs/. .claude/",
        "ln -s ../docs .claude/docs",
        "tar xf cfg.tar -C docs",
        "tar xzf docs.tgz",
        "mv cfg docs/",
        "cp -r .claude /tmp/claude-copy",
        "cp -r cfg cfg-2",
        "rsync -a cfg/ docs/",
    ):
        assert judged(tree, command) == "allow", command


def test_file_tools_are_held_to_where_variables_have_put_things(tree: Tree) -> None:
    jobs, cache = tree.base / "jobs-of-mine", tree.base / "cache"
    environment = {**tree.environment(), "MLX_TRAINING_HOME": str(jobs), "HF_HOME": str(cache)}
    for path in (jobs / "jobs/j1/state.json", jobs / "gpu.lock", cache / "hub/models--x/snapshots/a/code.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        payload = {"tool_name": "Write", "cwd": str(tree.root), "tool_input": {"file_path": str(path), "content": "x"}}
        assert decision(ask_hook(payload, environment)) == "deny"
    payload = {
        "tool_name": "Write",
        "cwd": str(tree.root),
        "tool_input": {"file_path": str(tree.root / "a.py"), "content": "x"},
    }
    assert decision(ask_hook(payload, environment)) == "allow"


def test_an_archive_is_compared_without_the_folders_that_its_members_lose(tree: Tree) -> None:
    with zipfile.ZipFile(tree.root / "run.zip", "w") as archive:
        archive.writestr("run/best/adapters.safetensors", "weights")
    assert judged(tree, "unzip -o run.zip -d adapters/my-lora") == "allow"
    assert judged(tree, "unzip -oj run.zip -d adapters/my-lora") == "ask"
    subprocess.run(["tar", "-czf", "new.tgz", "-C", "adapters/old", "."], cwd=tree.root, check=True)
    assert judged(tree, "tar -xzf new.tgz -C adapters/my-lora --strip-components=1") == "ask"
    assert judged(tree, "tar -xzf new.tgz -C adapters/my-lora --strip-components=2") == "allow"
    assert judged(tree, "7z e run.zip -oadapters/my-lora") == "ask"
    assert judged(tree, "7z x run.zip -oadapters/my-lora") == "allow"
    code = "from zipfile import ZipFile; ZipFile('run.zip').extractall('adapters/my-lora')"
    assert judged(tree, f'python3 -c "{code}"') == "allow"
