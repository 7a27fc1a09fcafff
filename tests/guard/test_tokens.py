"""The gate never shows a token itself, and leaves alone who reads one from where it belongs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.guard.corpus.secrets import HF
from tests.guard.tree import PLUGIN, Tree, ask_hook, bash, decision

PLAIN = "correct-horse-battery-staple"  # no shape that anybody could know


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree(tmp_path_factory.mktemp("tokens") / "w").build()
    (tree.home / ".cache/huggingface/token").write_text(HF)
    return tree


def environment(tree: Tree) -> dict[str, str]:
    return {**tree.environment(), "HF_TOKEN": HF, "HUB_PASSWORD": PLAIN}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ('curl -X POST -H "Authorization: Bearer $HF_TOKEN" https://huggingface.co/api/repos/create', "ask"),
        ('curl -X POST -u "me:$HUB_PASSWORD" https://huggingface.co/api/repos/create', "ask"),
        (f'curl -X POST -H "X: {"x" * 60}" -H "Authorization: Bearer $HF_TOKEN" https://hf.co/api/repos/create', "ask"),
        ('git push "https://me:$HF_TOKEN@huggingface.co/me/x" main', "ask"),
        (f"hf auth login --token {HF}", "ask"),
        ('sed -i "s/TOKEN/$HF_TOKEN/" README.md', "deny"),
        ('echo "HF_TOKEN=$HF_TOKEN" > config.env', "deny"),
        ('echo "HF_TOKEN=$HF_TOKEN" >> .env', "ask"),
        ("rm -rf adapters # $HF_TOKEN", "deny"),
        ('rm -rf adapters "$HF_TOKEN"', "deny"),
    ],
)
def test_a_reason_and_the_log_hold_no_token(tree: Tree, command: str, expected: str) -> None:
    log = tree.base / "plugin-data/guard.jsonl"
    done = ask_hook(bash(command, tree), environment(tree))
    assert decision(done) == expected
    said = done.stdout.decode() + log.read_text()
    assert all(said.find(token[:12]) < 0 for token in (HF, PLAIN))
    json.loads(done.stdout)


@pytest.mark.parametrize(
    "command",
    [
        'curl -s -H "Authorization: Bearer $HF_TOKEN" https://huggingface.co/api/whoami-v2',
        'curl -s -H "Authorization: Bearer $HF_TOKEN" https://huggingface.co/api/whoami-v2 -o who.json',
        'curl -s -H "Authorization: Bearer $(cat ~/.cache/huggingface/token)" https://huggingface.co/api/whoami-v2',
        'hf auth login --token "$HF_TOKEN"',
        "HF_TOKEN=$HF_TOKEN hf download x > log.txt",
    ],
)
def test_a_token_that_is_read_from_where_it_is_kept_is_not_asked_about(tree: Tree, command: str) -> None:
    assert decision(ask_hook(bash(command, tree), environment(tree))) == "allow"


def test_explain_shows_no_token(tree: Tree) -> None:
    command = 'curl -X POST -H "Authorization: Bearer $HF_TOKEN" https://huggingface.co/api/repos/create'
    done = subprocess.run(
        [sys.executable, "-m", "mcp_server.cli", "guard", "explain", "--json", command],
        capture_output=True, text=True, cwd=PLUGIN, env=environment(tree), timeout=60, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["decision"] == "ask" and told["effects"] == [] and "$HF_TOKEN" in told["reading"][0]
    assert HF not in done.stdout
