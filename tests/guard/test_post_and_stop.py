"""The post and stop hooks, each as its own process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.guard.corpus.files import GOOD
from tests.guard.tree import Tree, ask_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AGENT = "mlx-training:mlx-training-specialist"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "w").build()


def post(tree: Tree, path: str, text: str) -> dict[str, Any]:
    tree.write(path, text)
    payload = {
        "hook_event_name": "PostToolUse",
        "tool_name": "Write",
        "cwd": str(tree.root),
        "tool_input": {"file_path": str(tree.root / path)},
    }
    done = ask_hook(payload, tree.environment(), "post_tool_use.py")
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout) if done.stdout else {}


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("new/train.jsonl", GOOD + "{broken\n", "line 2 is not valid JSON"),
        ("new/train.jsonl", "", "IndexError"),
        ("new/valid.jsonl", GOOD + "\n" + GOOD, "line 2 is blank"),
        (
            "lora.yaml",
            'model: m\ntrain: true\niters: 10\nlearning_rate: "1e-5"\n',
            "line 4: learning_rate is '1e-5', but must be a number",
        ),
        ("lora.yaml", "model: m\ntrain: true\niters: many\n", "line 3: iters is 'many', but must be a whole number"),
        ("lora.yaml", "model: m\ntrain: true\niters: 10\nlora_layers: 4\n", "it calls it num_layers"),
        ("lora.yaml", "model: m\ntrain: true\niters: 10\nadaptr_path: x\n", "did you mean adapter_path?"),
        (
            "lora.yaml",
            "model: m\nnum_layers: 4\nlora_parameters:\n  rank: 8\n  alpha: 16\n",
            "lora_parameters has no scale",
        ),
        (
            "lora.yaml",
            "model: m\ntrain: true\niters: 10\nlr_schedule:\n  name: cosine\n  arguments: [1e-5]\n",
            "lr_schedule.name is 'cosine'",
        ),
        (
            "lora.yaml",
            "model: m\ntrain: true\niters: 10\nlr_schedule:\n  name: cosine_decay\n  arguments: ['1e-5', 10]\n",
            "is text, not a number",
        ),
        ("lora.yaml", "model: m\ntrain: true\niters: 10\n\tdata: x\n", "tab"),
        ("lora.yaml", "model: m\ntrain: true\niters: 10\niters: 20\n", "stands twice"),
        ("lora.yaml", "model: m\ntrain: yes please\niters: 10\n", "train is 'yes please', but must be true or false"),
        ("adapters/n/adapter_config.json", "{", "not valid JSON"),
        ("adapters/n/adapter_config.json", '{"peft_type": "LORA", "r": 8}', "PEFT"),
        (
            "adapters/n/adapter_config.json",
            '{"num_layers": "4", "lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.0}}',
            "num_layers is '4'",
        ),
    ],
)
def test_what_mlx_lm_could_not_use_goes_back_to_the_model(tree: Tree, path: str, text: str, expected: str) -> None:
    answer = post(tree, path, text)
    assert answer["decision"] == "block"
    assert expected in answer["reason"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("new/train.jsonl", GOOD * 3),
        (
            "lora.yaml",
            "model: m\ntrain: true  # go\ndata: 'my data'\niters: 1_000\nlearning_rate: 1.0e-5\nlora_parameters:\n  keys: [self_attn.q_proj]\n  rank: 8\n  scale: 20\n  dropout: 0.0\n",
        ),
        (
            "lora.yaml",
            "model: m\ntrain: true\niters: 10\nlr_schedule:\n  name: cosine_decay\n  warmup: 10\n  arguments:\n    - 0.00001\n    - 100\n",
        ),
        ("docker.yaml", "services:\n  model: x\n  train: y\n"),
        ("config.yaml", "model: gpt\ntemperature: hot\n"),
        ("notes.txt", "iters: many\n"),
        (
            "adapters/n/adapter_config.json",
            '{"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.0}}',
        ),
        ("package.json", "{"),
    ],
)
def test_good_files_and_other_peoples_files_pass_in_silence(tree: Tree, path: str, text: str) -> None:
    assert post(tree, path, text) == {}


def test_a_bare_exponent_is_remarked_on_since_only_mlx_lm_reads_it_as_a_number(tree: Tree) -> None:
    answer = post(tree, "lora.yaml", "model: m\ntrain: true\niters: 10\nlearning_rate: 1e-5\n")
    assert "1.0e-5" in answer["hookSpecificOutput"]["additionalContext"]
    assert "decision" not in answer


def test_the_defaults_of_the_installed_mlx_lm_are_known_keys() -> None:
    import re
    from importlib.util import find_spec

    found = find_spec("mlx_lm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("mlx-lm is not installed here (uv sync --extra mlx)")
    text = (Path(found.submodule_search_locations[0]) / "lora.py").read_text()
    block = text[text.index("CONFIG_DEFAULTS") : text.index("def build_parser")]
    keys = set(re.findall(r'^    "(\w+)":', block, re.M))
    import sys

    from tests.guard.tree import PLUGIN

    sys.path.insert(0, str(PLUGIN / "hooks"))
    from guard.lora_config import KEYS

    assert len(keys) > 20
    assert keys <= set(KEYS)


class Stop:
    """A specialist that started jobs, about to stop."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.transcript = tree.base / "agent.jsonl"
        self.lines: list[dict[str, Any]] = []

    def started(
        self, job: str, *, error: bool = False, tool: str = "mcp__plugin_mlx-training_mlx__start_lora_training"
    ) -> None:
        use = f"toolu_{len(self.lines)}"
        self.lines.append(
            {"message": {"role": "assistant", "content": [{"type": "tool_use", "id": use, "name": tool, "input": {}}]}}
        )
        text = json.dumps({"job_id": job, "adapter_path": "adapters/x"})
        self.lines.append(
            {
                "message": {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": use,
                            "is_error": error,
                            "content": [{"type": "text", "text": text}],
                        }
                    ],
                }
            }
        )

    def job(
        self,
        job: str,
        status: str,
        kind: str = "train",
        adapter: str = "/a/x",
        why: str = "",
        adapters: list[str] | None = None,
    ) -> None:
        folder = self.tree.home / ".mlx-training/jobs" / job
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps({"status": status, "why": why}))
        (folder / "spec.json").write_text(
            json.dumps({"kind": kind, "options": {"adapter_path": adapter, "adapters": adapters}})
        )

    def asks(self, report: str, agent_type: str = AGENT, active: bool = False, **more: object) -> str:
        last = {"message": {"role": "assistant", "content": [{"type": "text", "text": report}]}}
        self.transcript.write_text("".join(json.dumps(line) + "\n" for line in [*self.lines, last]))
        payload = {
            "hook_event_name": "SubagentStop", "agent_type": agent_type, "agent_id": "a1", "session_id": "s1", "stop_hook_active": active,
            "agent_transcript_path": str(self.transcript), "last_assistant_message": report, "cwd": str(self.tree.root), **more,
        }  # fmt: skip
        done = ask_hook(payload, self.tree.environment(), "subagent_stop.py")
        assert (done.returncode, done.stderr) == (0, b"")
        if not done.stdout:
            return ""
        answer = json.loads(done.stdout)
        assert answer["decision"] == "block"
        return answer["reason"]


@pytest.fixture
def stop(tree: Tree) -> Stop:
    return Stop(tree)


def test_a_silent_failure_holds_back_once_with_the_reason(stop: Stop) -> None:
    stop.started("train-1")
    stop.job("train-1", "failed", why="NaN in step 7")
    assert "train-1 failed (NaN in step 7)" in stop.asks("All is well.")
    assert stop.asks("All is well.", active=True) == ""


def test_a_reported_failure_passes(stop: Stop) -> None:
    stop.started("train-1")
    stop.job("train-1", "failed", why="x")
    assert stop.asks("The training failed with NaN.") == ""


def test_a_running_job_must_be_named_or_its_following_explained(stop: Stop) -> None:
    stop.started("train-1")
    stop.job("train-1", "working")
    assert stop.asks("Job train-1 is on its way.") == ""
    assert stop.asks("Follow it with read_training_log.") == ""
    assert "still working" in stop.asks("It is on its way.")
    assert stop.asks("It is on its way.") == ""


def test_an_adapter_is_compared_with_its_base_before_the_end(stop: Stop) -> None:
    stop.started("train-1")
    stop.job("train-1", "completed", adapter="/a/x")
    stop.job("benchmark-0", "completed", "benchmark", adapter="/a/other")
    stop.job("benchmark-1", "failed", "benchmark", adapter="/a/x")
    assert "never compared" in stop.asks("Done.")
    assert stop.asks("Done.") == ""


@pytest.mark.parametrize("status", ["completed", "working", "queued"])
def test_a_comparison_that_exists_satisfies_it(stop: Stop, status: str) -> None:
    stop.started("train-1")
    stop.job("train-1", "completed", adapter="/a/x")
    stop.job("benchmark-1", status, "benchmark", adapter="/a/x")
    assert stop.asks("Done.") == ""


def test_a_ranking_of_several_adapters_is_a_comparison_of_each(stop: Stop) -> None:
    stop.started("train-1")
    stop.job("train-1", "completed", adapter="/a/x")
    stop.job("benchmark-1", "completed", "benchmark", adapter="", adapters=["/a/y", "/a/x"])
    assert stop.asks("Done.") == ""


def test_each_thing_is_held_once_and_several_at_one_time(stop: Stop) -> None:
    stop.started("train-1")
    stop.started("train-2")
    stop.job("train-1", "lost")
    stop.job("train-2", "working")
    reason = stop.asks("Done.")
    assert "train-1" in reason
    assert "train-2" in reason
    stop.job("train-2", "completed")
    assert "never compared" in stop.asks("Done.")
    assert stop.asks("Done.") == ""


def test_other_agents_and_other_sessions_jobs_are_none_of_its_business(stop: Stop) -> None:
    stop.started("train-1")
    stop.started("train-2", error=True)
    stop.started("train-3", tool="mcp__other__start_something")
    for job in ("train-1", "train-2", "train-3", "train-9"):
        stop.job(job, "failed")
    assert stop.asks("Done.", agent_type="general-purpose") == ""
    assert "train-1" in (reason := stop.asks("Done."))
    assert not any(job in reason for job in ("train-2", "train-3", "train-9"))


def test_an_unwritable_memory_never_makes_a_loop(stop: Stop) -> None:
    stop.started("train-1")
    stop.job("train-1", "failed")
    blocker = stop.tree.base / "plugin-data"
    blocker.write_text("a file where the folder should be")
    assert stop.asks("Done.") != ""
    assert stop.asks("Done.", active=True) == ""


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "cut"])
def test_a_damaged_transcript_lets_go(stop: Stop, damage: str) -> None:
    stop.started("train-1")
    stop.job("train-1", "working")
    if damage == "missing":
        assert stop.asks("Job train-1", agent_transcript_path="/nonexistent") == ""
        return
    stop.asks("Job train-1")
    text = {"empty": "", "garbage": "\x00\x01{]\n", "cut": stop.transcript.read_text()[:90]}[damage]
    stop.transcript.write_text(text)
    stop.lines = []
    payload = {
        "agent_type": AGENT,
        "agent_id": "a2",
        "agent_transcript_path": str(stop.transcript),
        "last_assistant_message": "x",
    }
    assert ask_hook(payload, stop.tree.environment(), "subagent_stop.py").stdout == b""
