"""No tool's result is long unasked: the worst that each can say stays under what the reader is willing to pay.

2,500 tokens. In the vocabulary that `benchmarks/context.py` counts with, these results have 3.1 to 4.3 characters a token
(2.8 for the shortest), so 7,500 characters are within it.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from mcp_server.jobs import store
from mcp_server.jobs.files import write_json
from mcp_server.jobs.store import JobFolder, JobSpec, JobState
from mcp_server.training.diagnose import KNOWN
from tests.helpers import call, end_of, refusal, training
from tests.unit.datasets.test_findings import LINES

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
MOST = 7500
LONG = "/Users/somebody/Documents/projects/support-assistant/experiments/2026-11"


def size(result: dict[str, Any]) -> int:
    """Characters as the model is shown them: compact JSON."""
    return len(json.dumps(result, separators=(",", ":"), ensure_ascii=False))


def job(name: str, created: float, **options: Any) -> JobFolder:
    spec = JobSpec(job_id=name, kind="train", created=created, project=LONG, python="python", options=options)
    folder = store.create(spec)
    folder.write_state(JobState(status="failed", why="out of memory in step 12: " + "x" * 3000, ended=created + 60))
    return folder


def a_bad_row(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content)).encode()


@pytest.mark.parametrize("model", [None, "model"])
async def test_a_big_data_set_with_every_fault(client: Client, project: Path, model: str | None) -> None:
    words = random.Random(0).choices(["stock", "parcel", "refund", "zażółć", "日本語", "offer", "ticket"], k=4000)
    folder = project / "a folder with a rather long name"
    folder.mkdir()
    for name in ("train", "valid", "test"):
        good = [
            {"messages": [{"role": "user", "content": " ".join(words[n : n + n % 900])}, {"role": "assistant", "content": "yes"}]}
            for n in range(1, 400)
        ]  # fmt: skip
        lines = [a_bad_row(row) for row in good] + [a_bad_row(content) for _, content, _ in LINES] * 20
        (folder / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    report = await call(client, "inspect_dataset", data=str(folder), **({"model": model} if model else {}))
    assert not report["ok"]
    assert len({found["code"] for found in report["findings"]}) >= 8
    assert size(report) <= MOST


async def test_preparing_many_files_of_which_much_is_dropped(client: Client, project: Path) -> None:
    source = project / "exports"
    source.mkdir()
    good = [
        {"prompt": f"What is {n} times {n * n}?", "completion": f"It is {n * n * n}, says row {n}."} for n in range(40)
    ]
    for number in range(60):
        lines = [a_bad_row(row) for row in good] + [a_bad_row(content) for _, content, _ in LINES]
        (source / f"export of the month number {number}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        (source / f"picture {number}.png").write_bytes(b"")
    report = await call(client, "prepare_dataset", source="exports", output="out")
    assert report["dropped"]
    assert size(report) <= MOST


async def test_two_hundred_jobs(client: Client, project: Path) -> None:
    for number in range(200):
        job(f"train-20261123-{number:06d}-abcd", time.time() - number, adapter_path=f"{LONG}/adapters/run-{number}")
    listed = await call(client, "list_jobs")
    assert listed["showing"] == "10 of 200 jobs"
    assert size(listed) <= MOST


async def test_a_log_with_every_alert_many_times(client: Client, project: Path) -> None:
    folder = job("train-alerts", time.time(), adapter_path=f"{LONG}/adapters/run")
    events: list[dict[str, Any]] = []
    for step in range(1, 5000):
        events.append({"type": "train", "time": 1.0 * step, "step": step, "total": 5000, "loss": 1.23456789})
        events.append({"type": "val", "time": 1.0 * step, "step": step, "loss": 2.3456789})
        events.append({"type": "phase", "time": 1.0 * step, "name": f"phase {step} of many, with words"})
        for kind in KNOWN:
            message = f"{kind} at step {step}: " + "the loss is far above the median of the last steps " * 4
            events.append({"type": "alert", "time": 1.0 * step, "step": step, "kind": kind, "message": message})
    folder.metrics.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    write_json(
        folder.path / "outcome.json",
        {"status": "failed", "result": {"adapter_path": f"{LONG}/adapters/run", "steps": 4}},
    )
    news = await call(client, "read_training_log", job_id="train-alerts")
    assert news["alerts"] and news["diagnosis"]
    assert size(news) <= MOST


async def test_a_benchmark_of_long_prompts_and_answers(client: Client, project: Path) -> None:
    long_row = {
        "messages": [
            {"role": "user", "content": "Tell me all about the lamp and the desk. " * 12},
            {"role": "assistant", "content": "The lamp is red and the desk is blue. " * 12},
        ]
    }
    (project / "data" / "test.jsonl").write_text("".join(json.dumps(long_row) + "\n" for _ in range(8)))
    started = await call(client, "start_lora_training", **training(val_batches=0))
    await end_of(client, started["job_id"])
    answer = await call(
        client, "run_benchmark", model="model", adapter_path="adapters/test", data="data", num_prompts=8, speed_trials=0
    )
    assert answer["status"] == "completed", answer
    assert size(answer) <= MOST


async def test_the_plan_and_the_rest_of_the_main_job(client: Client, project: Path) -> None:
    assert size(await call(client, "check_platform")) <= MOST
    assert size(await call(client, "get_metal_memory")) <= MOST
    plan = await call(client, "plan_training", model="model", data="data", goal="best", probe=True)
    assert plan["probe"]
    assert size(plan) <= MOST


async def test_the_whole_main_job_takes_few_calls_and_little_reading(client: Client, project: Path) -> None:
    sizes: list[int] = []

    async def ask(tool: str, **arguments: Any) -> dict[str, Any]:
        result = await call(client, tool, **arguments)
        sizes.append(size(result))
        return result

    await ask("check_platform")
    await ask("inspect_dataset", data="data", model="model", mask_prompt=True)
    plan = await ask("plan_training", model="model", data="data")
    started = await ask("start_lora_training", **plan["arguments"] | {"iters": 40, "steps_per_report": 1})
    news = await ask("read_training_log", job_id=started["job_id"], wait_seconds=60, until="val")
    while not news["finished"]:
        news = await ask(
            "read_training_log", job_id=started["job_id"], since=news["cursor"], wait_seconds=100, until="end"
        )
    assert news["status"] == "completed", news
    await ask("run_benchmark", model="model", adapter_path=started["adapter_path"], data="data", num_prompts=20)
    assert len(sizes) <= 10
    assert sum(sizes) <= 8000 * 3


async def test_errors_are_sentences_and_not_pages(client: Client, project: Path) -> None:
    many = {f"no_such_argument_{number}": "x" * 3000 for number in range(50)}
    for tool, arguments in (
        ("start_lora_training", many),
        ("prepare_dataset", {"source": "x" * 3000, "output": "y" * 3000}),
        ("run_benchmark", {"model": "z" * 3000, "data": "d" * 3000}),
        ("read_training_log", {"job_id": "j" * 3000}),
    ):
        assert len(await refusal(client, tool, **arguments)) <= MOST
    bad = b"\n".join(a_bad_row(content) for _, content, _ in LINES)
    (project / "data" / "train.jsonl").write_bytes(bad + b"\n" + b"x" * 100_000)
    assert len(await refusal(client, "start_lora_training", **training())) <= MOST
