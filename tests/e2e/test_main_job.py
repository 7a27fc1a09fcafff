"""The main job, as a person in Claude Code gets it: the specialist plans it, the real server runs it with real mlx-lm."""

from __future__ import annotations

import json

from mcp_server.demo import BASE, task

from .client import REPOSITORY, SPECIALIST, TOOL, Claude, agent_definition, ask
from .scripted_model import Request, Script, ask_agent, call_mcp

# Enough to learn the demo's house style for the most part, in seconds.
_TRAINING = {**task.TRAINING, "iters": 60, "steps_per_report": 10, "save_every": 30}


def specialist(request: Request) -> Script:
    platform = yield from ask("check_platform")
    assert platform["verdict"] != "not ready", platform["summary"]
    converted = yield from ask("convert_model", model=str(BASE), mlx_path="models/base-4bit", wait_seconds=120)
    assert converted["status"] == "completed", converted
    wanted = {**_TRAINING, "model": "models/base-4bit", "data": "data", "adapter_path": "adapters/house-style"}
    started = yield from ask("start_lora_training", **wanted)
    log = yield from ask("read_training_log", job_id=started["job_id"], wait_seconds=60, until="val")
    losses: list[list[float]] = log["train"]
    while not log["finished"]:
        log = yield from ask(
            "read_training_log", job_id=started["job_id"], since=log["cursor"], wait_seconds=60, until="end"
        )
        losses += log["train"]
    assert log["status"] == "completed", log
    seen = yield from call_mcp(f"{TOOL}read_training_log", job_id=started["job_id"], image=True)
    benchmark = yield from ask(
        "run_benchmark",
        model="models/base-4bit",
        adapter_path="adapters/house-style",
        data="data",
        num_prompts=20,
        max_tokens=32,
        wait_seconds=120,
    )
    yield json.dumps(
        {"job_id": started["job_id"], "losses": losses, "images": seen.image_types, "benchmark": benchmark}
    )


def test_the_specialist_converts_trains_follows_and_proves_that_the_adapter_is_better(
    claude: Claude, mlx_jobs: dict[str, str]
) -> None:
    task.write_dataset(claude.project / "data")
    _, body = agent_definition()
    marker = body[:200]

    def main(request: Request) -> Script:
        yield from call_mcp(f"{TOOL}list_jobs")
        request = yield ask_agent(SPECIALIST, "teach the model in models/ our house style and prove that it learned it")
        yield request.result.text

    session = claude.run(
        main=main,
        agents={marker: specialist},
        plugin_dirs=[REPOSITORY],
        allowed_tools=[f"{TOOL}*"],
        environment=mlx_jobs,
        timeout=240,
    )

    # The client may wrap and indent a subagent's report; the numbers in it are what counts.
    report = json.loads(next(line for line in session.answer.splitlines() if line.strip().startswith("{")))
    assert [step for step, _ in report["losses"]] == [10, 20, 30, 40, 50, 60]
    assert report["losses"][-1][1] < report["losses"][0][1] / 2
    assert report["images"] == ["image/png"], "the loss curve reaches the model as a picture"
    comparison = report["benchmark"]["report"]["comparison"]
    assert comparison["verdict"] == "better"
    assert comparison["interval_95"][1] < 0
    adapter = claude.project / "adapters" / "house-style"
    assert {"adapters.safetensors", "adapter_config.json"} <= {path.name for path in adapter.iterdir()}
    assert (claude.state / "jobs" / report["job_id"] / "exit.json").exists()
