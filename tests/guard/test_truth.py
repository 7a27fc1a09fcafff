"""The labels are true: every shell case that can run here is run in a throw-away copy, and what it destroyed is compared.

"Destroyed" means that the content of a protected file, or a row of a data set, is found nowhere any more.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.guard import corpus, second
from tests.guard.tree import PLUGIN, Tree

sys.path.insert(0, str(PLUGIN))

from mcp_server.datasets.rows import check_line

DESTRUCTIVE = ("artefacts", "data_sets", "evasions", "python_code", "programs", "second")
PROTECTED = (".safetensors", "adapter_config.json", "config.json")
DATA = ("train.jsonl", "valid.jsonl", "test.jsonl")
CASES = [case for case in [*corpus.cases(), *second.cases()] if case[0] in DESTRUCTIVE and "run" not in case[3]]
# Inside a mount namespace: only the copy and /tmp can be written, and /dev is a private one (as root, `mv x /dev/null`
# would replace the machine's).
NAMESPACE = """
set -e
mount --bind {0} {0} && mount --bind /tmp /tmp
mkdir -p {0}/dev && mount -t tmpfs none {0}/dev && cd {0}/dev
mknod -m 666 null c 1 3 && mknod -m 666 zero c 1 5 && mknod -m 666 random c 1 8 && mknod -m 666 urandom c 1 9
ln -s /proc/self/fd fd && ln -s fd/0 stdin && ln -s fd/1 stdout && ln -s fd/2 stderr
cd / && mount --move {0}/dev /dev && rmdir {0}/dev
mount -o remount,ro,bind /
set +e
cd {1} && exec bash -c "$COMMAND"
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("truth") / "original").build()


def walls() -> bool:
    """Whether a mount namespace can be had. Without one nothing here is run: the commands are what the gate stops."""
    if not shutil.which("unshare"):
        return False
    test = "mount -t tmpfs none /mnt && mknod /mnt/null c 1 3"
    return (
        subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", test], capture_output=True, check=False
        ).returncode
        == 0
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not walls(), reason="needs a mount namespace (root on Linux) to run destructive commands in"),
]


def treasure(tree: Tree) -> tuple[set[str], set[str], bool]:
    """(contents of protected files, rows of data files, whether a data file holds rows that mlx-lm refuses)."""
    contents, rows, bad = set(), set(), False
    for path in sorted(tree.base.rglob("*")):
        if path.is_symlink() or not path.is_file() or "/.git/" in str(path):
            continue
        if path.name in DATA:
            lines = path.read_text(errors="replace").splitlines()
            rows.update(lines)
            bad = bad or any(problem.severity == "error" for line in lines for problem in check_line(line)[1])
        elif path.name.endswith(PROTECTED) and path.parent != tree.root:
            contents.add(hashlib.sha256(path.read_bytes()).hexdigest())
    return contents, rows, bad


def remains(tree: Tree) -> tuple[set[str], set[str]]:
    """Everything that is left in the copy and in the /tmp files that it names: (hashes, lines)."""
    places = [tree.base, *Path("/tmp").glob(f"*{tree.base.name}*")]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    hashes, lines = set(), set()
    for path in files:
        if path.is_file() and not path.is_symlink() and "/.git/" not in str(path):
            hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
            lines.update(path.read_text(errors="replace").splitlines())
    return hashes, lines


def kinds_of_change(script: str) -> str:
    """An edit of rows may leave them invalid; with a backup that is the user's own business."""
    return "edit" if script.startswith(("sed", "perl", "cp data/train.jsonl data/train.jsonl.bak")) else "other"


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: f"{CASES[n][0]}-{CASES[n][1]}-{n}")
def test_the_label_says_what_the_command_really_does(number: int, original: Tree, tmp_path: Path) -> None:
    _subject, label, command, _ = CASES[number]
    # The name marks what the command leaves in /tmp, and must fit nobody else's files: they are deleted by it.
    tree = Tree(tmp_path / f"gate-truth-{uuid.uuid4().hex}")
    shutil.copytree(original.base, tree.base, symlinks=True)
    contents, rows, _ = treasure(tree)
    script = tree.fill(command)
    environment = {**tree.environment(), "COMMAND": script}
    argv = ["unshare", "-m", "--propagation", "private", "bash", "-c", NAMESPACE.format(tree.base, tree.root)]
    done = subprocess.run(
        argv, cwd=tree.root, env=environment, capture_output=True, timeout=30, stdin=subprocess.DEVNULL, check=False
    )
    hashes, lines = remains(tree)
    _, _, bad = treasure(tree)
    for leftover in Path("/tmp").glob(f"*{tree.base.name}*"):
        if leftover != tmp_path:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    lost = bool(contents - hashes) or bool(rows - lines) or (bad and "edit" not in kinds_of_change(script))
    shown = f"{script!r}\nrc {done.returncode} {done.stderr.decode(errors='replace')[:300]}"
    assert lost == (label != "allow"), (
        f"labelled {label}, but {'destroyed something' if lost else 'destroyed nothing'}: {shown}"
    )
