"""What Claude Code relies on: output, exit codes, failures, limits, the launcher, the settings."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guard.tree import PLUGIN, Tree, ask_hook, bash, decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("contract") / "w").build()


def reason(done: subprocess.CompletedProcess[bytes]) -> str:
    return json.loads(done.stdout)["hookSpecificOutput"]["permissionDecisionReason"]


def copy_of_hooks(folder: Path) -> Path:
    """A plugin folder of its own, to break."""
    shutil.copytree(PLUGIN / "hooks", folder / "hooks", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "hooks"


def run_in(
    hooks: Path, payload: dict[str, Any], tree: Tree, extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/bin/sh", str(hooks / "run"), "pre_tool_use.py"],
        input=json.dumps(payload).encode(), capture_output=True, env={**tree.environment(), **(extra or {})}, timeout=30, check=False,
    )  # fmt: skip


def test_an_exception_refuses_what_names_something_protected_and_is_silent_otherwise(
    tree: Tree, tmp_path: Path
) -> None:
    hooks = copy_of_hooks(tmp_path)
    (hooks / "guard/effects/walker.py").write_text("raise ZeroDivisionError\n")
    assert decision(run_in(hooks, bash("rm -rf adapters", tree), tree)) == "deny"
    assert decision(run_in(hooks, bash("rm -rf somewhere", tree), tree)) == "allow"


def test_a_call_that_takes_too_long_or_needs_too_wide_a_search_refuses(tree: Tree, tmp_path: Path) -> None:
    """Claude Code lets a call pass when its hook does not answer in time."""
    hooks = copy_of_hooks(tmp_path / "slow")
    gate = hooks / "guard/gate.py"
    gate.write_text(gate.read_text().replace("DEADLINE_SECONDS = 4", "DEADLINE_SECONDS = 1"))
    (hooks / "guard/effects/walker.py").write_text("import time\ntime.sleep(20)\n")
    done = run_in(hooks, bash("rm -rf adapters", tree), tree)
    assert decision(done) == "deny"
    assert "longer than 1 s" in reason(done)
    hooks = copy_of_hooks(tmp_path / "wide")
    protected = hooks / "guard/protected.py"
    protected.write_text(protected.read_text().replace("MAX_LOOKED = 200_000", "MAX_LOOKED = 4"))
    done = run_in(hooks, bash("rm -rf adapters", tree), tree)
    assert decision(done) == "deny"
    assert "too many folders" in reason(done)


@pytest.mark.parametrize("broken", ["guard/gate.py", "guard/prefilter.py"])
def test_a_module_that_can_not_be_imported_refuses_too(tree: Tree, tmp_path: Path, broken: str) -> None:
    hooks = copy_of_hooks(tmp_path)
    (hooks / broken).write_text("def (\n")
    done = run_in(hooks, bash("rm -rf adapters", tree), tree)
    assert done.returncode == 2
    assert b"SyntaxError" in done.stderr
    assert run_in(hooks, {"tool_name": "Bash", "cwd": "/", "tool_input": {"command": "rm x"}}, tree).returncode == 0


def test_a_killed_or_missing_interpreter_refuses(tree: Tree, tmp_path: Path) -> None:
    hooks = copy_of_hooks(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    suicide = tmp_path / "python"
    suicide.write_text("#!/bin/sh\nkill -9 $$\n")
    suicide.chmod(0o755)
    (data / "interpreter").write_text(f"{suicide}\n")
    done = run_in(hooks, bash("rm -rf adapters", tree), tree, {"CLAUDE_PLUGIN_DATA": str(data)})
    assert done.returncode == 2
    assert b"could not run" in done.stderr
    (data / "interpreter").write_text("/nonexistent\n")
    empty = tmp_path / "bin"
    empty.mkdir()
    (hooks / "run").write_text((hooks / "run").read_text().replace("/usr/bin/python3", "/nonexistent/python3"))
    done = run_in(hooks, bash("rm -rf adapters", tree), tree, {"CLAUDE_PLUGIN_DATA": str(data), "PATH": str(empty)})
    assert done.returncode == 2


def test_the_interpreter_of_session_start_is_used(tree: Tree, tmp_path: Path) -> None:
    data = tmp_path / "data"
    environment = {**tree.environment(), "CLAUDE_PLUGIN_DATA": str(data), "PATH": os.environ["PATH"]}
    subprocess.run(
        ["/bin/sh", str(PLUGIN / "hooks/run"), "session_start.py"], input=b"{}", env=environment, check=True, timeout=60
    )
    found = Path((data / "interpreter").read_text().strip())
    assert found.is_file()
    assert not found.is_symlink()
    assert "shims" not in str(found)
    assert list((data / "bytecode").rglob("guard/gate.*.pyc")), "byte code lies in the data folder, not in the plugin"
    done = run_in(PLUGIN / "hooks", bash("rm -rf adapters", tree), tree, {"CLAUDE_PLUGIN_DATA": str(data)})
    assert decision(done) == "deny"


def test_hooks_json_blocks_on_failure_and_names_files_that_exist() -> None:
    hooks = json.loads((PLUGIN / "hooks/hooks.json").read_text())["hooks"]
    assert set(hooks) == {"SessionStart", "PreToolUse", "PostToolUse", "SubagentStop", "Stop"}
    assert hooks["PreToolUse"][0]["matcher"] == "Bash|Write|Edit|MultiEdit|NotebookEdit"
    assert hooks["PreToolUse"][0]["hooks"][0]["onFailure"] == "block"
    for entries in hooks.values():
        for hook in entries[0]["hooks"]:
            assert hook["args"][0] == "${CLAUDE_PLUGIN_ROOT}/hooks/run"
            assert (PLUGIN / "hooks" / hook["args"][1]).is_file()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'{"tool_name": "Bash"}',
        b'{"tool_input": 3}',
        b'{"tool_name": "Bash", "tool_input": {"command": 7}}',
        b"\xff\xfe",
    ],
)
def test_input_that_is_no_tool_call_is_passed_over(tree: Tree, raw: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(PLUGIN / "hooks/pre_tool_use.py")],
        input=raw, capture_output=True, env=tree.environment(), timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_deleted_working_folder_does_not_matter(tree: Tree, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone}; rmdir {gone}; exec {sys.executable} -I -S {PLUGIN}/hooks/pre_tool_use.py"
    payload = json.dumps(bash("rm -rf adapters", tree)).encode()
    done = subprocess.run(
        ["sh", "-c", script], input=payload, capture_output=True, env=tree.environment(), timeout=30, check=False
    )
    assert decision(done) == "deny"


HOSTILE = {
    "unclosed substitutions": "rm -rf adapters " + "$(" * 10_000,
    "unclosed quotes and substitutions": '"$(echo ' * 10_000,
    "backticks": "`" * 10_001,
    "parentheses": "(" * 10_000,
    "parameters": "${" * 10_000,
    "ten megabytes": "rm -rf adapters " + "x" * 10_000_000,
    "ten megabytes of quotes": "'" * 10_000_000,
    "deep braces": "rm " + "{a,{b," * 60 + "c" + "}" * 120,
    "wide braces": "rm adapters" + "{a,b}" * 40,
    "long sequence": "rm {1..999999999}",
    "nested loops": "for a in {1..300}; do for b in {1..300}; do for c in {1..300}; do rm $a$b$c; done; done; done",
    "recursive function": "f() { f; f; }; f",
    "recursive eval": "x='eval \"$x\"'; eval \"$x\"",
    "many heredocs": "cat " + "<<A " * 5000 + "\nx",
    "many commands": "rm a;" * 19_000,
    "many globs": "rm -rf /**/**/**/**/x",
    "nested wrappers": "sudo " * 5000 + "rm -rf adapters",
    "nested conditions": "if " * 5000,
    "nested Python": "python3 -c \"" + "(" * 5000 + '"',
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_answered_within_250_ms(tree: Tree, name: str) -> None:
    command = HOSTILE[name]
    payload = bash(command, tree)
    best = 9.0
    for _ in range(3):  # processor time, not wall time: the machine may be busy with other things
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = ask_hook(payload, tree.environment())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    found = decision(done)  # pyright: ignore[reportPossiblyUnboundVariable]
    assert found in ("allow", "deny")
    if "adapters" in command:
        assert found == "deny"
    assert best < 0.25


def test_settings_widen_and_switch_off_but_the_agent_can_not_write_them(tree: Tree) -> None:
    gold = tree.root / "corpora/gold.txt"
    tree.write("corpora/gold.txt", "gold")
    command = "rm -rf corpora"
    assert decision(ask_hook(bash(command, tree), tree.environment())) == "allow"
    settings = tree.root / ".claude/mlx-training.yaml"
    settings.write_text("# ours\nprotect:\n  - corpora\noff: [hub]\nplatforms: [linux-cpu]\n")
    try:
        assert decision(ask_hook(bash(command, tree), tree.environment())) == "deny"
        assert decision(ask_hook(bash("hf upload me/x .", tree), tree.environment())) == "allow"
        write = {"tool_name": "Write", "cwd": str(tree.root), "tool_input": {"file_path": str(gold), "content": "x"}}
        assert decision(ask_hook(write, tree.environment())) == "deny"
        disable = {
            "tool_name": "Edit",
            "cwd": str(tree.root),
            "tool_input": {"file_path": str(settings), "old_string": "hub", "new_string": "artefacts"},
        }
        assert decision(ask_hook(disable, tree.environment())) == "deny"
    finally:
        settings.unlink()


@pytest.mark.parametrize(
    ("facts", "platforms", "expected"),
    [
        ({"system": "Darwin", "machine": "x86_64"}, "", "Intel"),
        ({"system": "Darwin", "machine": "arm64", "translated": True}, "", "Rosetta"),
        ({"system": "Linux", "container": False, "cuda": False}, "", "not among the allowed"),
        ({"system": "Linux", "container": False, "cuda": False}, "linux-cpu", ""),
        ({"system": "Linux", "container": True, "cuda": False}, "", "container"),
        ({"system": "Linux", "container": True, "cuda": True}, "linux-cuda", ""),
        ({"system": "Windows"}, "", "Windows"),
    ],
)
def test_the_machine_is_judged_by_its_facts(
    tree: Tree, tmp_path: Path, facts: dict[str, Any], platforms: str, expected: str
) -> None:
    file = tmp_path / "facts.json"
    base = {"translated": False, "container": False, "macos": "26.1", "metal": True, "chip": "x", "memory_bytes": 1}
    file.write_text(json.dumps({**base, **facts}))
    environment = {**tree.environment(), "MLX_TRAINING_FACTS": str(file), "MLX_TRAINING_PLATFORMS": platforms}
    for _ in range(2):  # the second answer comes from the one that was kept
        done = ask_hook(bash("mlx_lm.generate --model m --prompt x", tree), environment)
        if expected:
            assert expected in reason(done)
        else:
            assert decision(done) == "allow"


@pytest.mark.parametrize(
    "command",
    [
        'echo "$(rm -rf models)"',
        'echo "freed $(pkill -9 -f lora | wc -l) jobs"',
        'echo "${X@P}"',
        "ls -la  # what's here?\nrm -rf models  # it's stale",
        "cd docs  # let's go\nrm -rf models # that's all",
        "ls;# it's\nrm -rf models;# it's",
    ],
)
def test_what_the_shell_runs_inside_quotes_or_after_a_comment_is_read_properly(command: str) -> None:
    assert not _prefilter().harmless(command)


@pytest.mark.parametrize(
    "command",
    [
        'echo "a; b (c) [d] {e}"',
        "echo 'costs $(5), no; really'",
        'git commit -m "fix issue#12 (at last)"',
        'echo "$HOME"',
    ],
)
def test_what_quotes_keep_is_settled_at_once(command: str) -> None:
    assert _prefilter().harmless(command)


def _prefilter() -> Any:
    sys.path.insert(0, str(PLUGIN / "hooks"))
    from guard import prefilter

    return prefilter


@pytest.mark.parametrize("token", ["ghp_" + "a1B2c3D4e" * 4, "AKIA" + "Q7ZPW3KD" * 2, "xoxb-" + "31415926535"])
def test_tokens_of_services_without_a_rule_are_not_kept_either(tree: Tree, tmp_path: Path, token: str) -> None:
    environment = {**tree.environment(), "CLAUDE_PLUGIN_DATA": str(tmp_path / "d")}
    ask_hook(bash(f"TOKEN={token} curl x; rm -rf adapters", tree), environment)
    text = (tmp_path / "d/guard.jsonl").read_text()
    assert json.loads(text)["decision"] == "deny" and token not in text


def test_the_audit_trail_is_redacted_bounded_and_json(tree: Tree, tmp_path: Path) -> None:
    from tests.guard.corpus.secrets import HF

    environment = {**tree.environment(), "CLAUDE_PLUGIN_DATA": str(tmp_path / "d")}
    ask_hook(bash(f"HF_TOKEN={HF} hf download x; rm -rf adapters", tree), environment)
    text = (tmp_path / "d/guard.jsonl").read_text()
    row = json.loads(text)
    assert row["decision"] == "deny"
    assert HF not in text
    assert "hf_[redacted]" in row["text"]
    (tmp_path / "d/guard.jsonl").write_text("x" * 1_100_000)
    ask_hook(bash("rm -rf adapters", tree), environment)
    assert (tmp_path / "d/guard.jsonl").stat().st_size < 5000
    assert (tmp_path / "d/guard.jsonl.1").stat().st_size == 1_100_000


def test_explain_comes_to_the_same_verdict_as_the_hook(tree: Tree) -> None:
    from tests.guard import corpus

    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from mcp_server.cli.guard import explain\n"
        "print(json.dumps([explain(c, sys.argv[2])['decision'] for c in json.load(sys.stdin)]))"
    )
    commands = [
        tree.fill(case[2])
        for case in corpus.cases()
        if case[3].get("state") != "training" and case[0] not in ("running_jobs",)
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, str(PLUGIN), str(tree.root)],
        input=json.dumps(commands).encode(), capture_output=True, env=tree.environment(), cwd=PLUGIN, timeout=120, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    labels = [
        case[1] for case in corpus.cases() if case[3].get("state") != "training" and case[0] not in ("running_jobs",)
    ]
    assert [pair for pair in zip(labels, told, commands) if pair[0] != pair[1]] == []


def test_shared_modules_stay_light() -> None:
    """The modules of mcp_server that the hooks import: standard library, on Python 3.9, nothing heavy."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import mcp_server.datasets.rows, mcp_server.jobs.lock, mcp_server.platform.facts\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(PLUGIN)], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        "pathlib",
        "typing",
        "dataclasses",
        "subprocess",
        "pydantic",
        "mlx",
        "psutil",
        "asyncio",
        "logging",
    }


def test_the_unrelated_path_imports_one_module_of_ours() -> None:
    script = "import sys, json; sys.path.insert(0, sys.argv[1]); from guard.prefilter import settled_raw; print(settled_raw(sys.argv[2].encode())); print(*sorted(sys.modules))"
    raw = json.dumps({"tool_name": "Bash", "cwd": "/", "tool_input": {"command": "git commit -m 'a; b'"}})
    script = script.replace(", json", "")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(PLUGIN / "hooks"), raw],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    answer, modules = done.stdout.splitlines()
    assert answer == "True"
    assert {name for name in modules.split() if name.startswith("guard")} == {"guard", "guard.prefilter"}
    assert not {"re", "json", "os", "enum", "__future__"} & set(modules.split())


def test_it_runs_on_python_39(tree: Tree) -> None:
    old = next(iter(map(str, Path.home().glob(".pyenv/versions/3.9*/bin/python3.9"))), None) or shutil.which(
        "python3.9"
    )
    if old is None:
        pytest.skip("no Python 3.9 on this machine")
    for command, expected in (
        ("rm -rf adapters", "deny"),
        ("python3 -c \"import shutil; shutil.rmtree('models')\"", "deny"),
        ("ls", "allow"),
        ("mlx_lm.generate --model m", "allow"),
    ):
        payload = json.dumps(bash(command, tree)).encode()
        done = subprocess.run(
            [old, "-I", "-S", str(PLUGIN / "hooks/pre_tool_use.py")],
            input=payload,
            capture_output=True,
            env=tree.environment(),
            timeout=30,
            check=False,
        )
        assert decision(done) == expected
    compiled = subprocess.run(
        [old, "-m", "compileall", "-q", "-f", str(PLUGIN / "hooks")], capture_output=True, timeout=60, check=False
    )
    assert compiled.returncode == 0, compiled.stdout


def test_an_angle_bracket_that_never_closes_ends_the_reading_and_not_the_memory(tree: Tree) -> None:
    assert decision(ask_hook(bash("perl -e 'unlink <*.adapters'", tree), tree.environment())) == "allow"
