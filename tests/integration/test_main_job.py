"""The main job on real parts: convert, train, follow, benchmark; and stock mlx-lm takes what comes out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
import pytest
from mcp import StdioServerParameters
from mcp.client import Client

from tests.helpers import call, end_of, training, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


def stdio(project: Path) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", "mcp_server"], env=dict(os.environ), cwd=project)


def mlx_lm(*arguments: str) -> str:
    """The output of stock mlx-lm's command line."""
    done = subprocess.run(
        [sys.executable, "-m", "mlx_lm", *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_both_protocol_eras_serve_the_tools_over_stdio(mode: Any, project: Path):
    async with Client(stdio(project), mode=mode) as client:
        assert client.protocol_version == {"legacy": "2025-11-25", "auto": "2026-07-28"}[mode]
        assert len((await client.list_tools()).tools) >= 8
        assert (await call(client, "check_platform"))["backend"] == "linux-cpu"
        assert (await call(client, "list_jobs")) == {"jobs": [], "showing": "0 of 0 jobs"}


async def test_main_job_over_stdio_ends_with_a_better_adapter(project: Path):
    async with Client(stdio(project)) as client:
        converted = await call(client, "convert_model", model="model", mlx_path="models/4bit", dtype="float32")
        assert converted["status"] == "completed", converted
        assert converted["result"]["bytes"] < converted["result"]["source_bytes"] / 4
        started = await call(
            client,
            "start_lora_training",
            **training(
                model="models/4bit",
                num_layers=2,
                iters=40,
                batch_size=8,
                learning_rate=2e-4,
                lora_parameters={"rank": 8, "scale": 10.0},
                mask_prompt=True,
                save_every=20,
                steps_per_eval=20,
                val_batches=-1,
            ),
        )
        assert started["status"] == "working"
        news = await end_of(client, started["job_id"])
        assert news["status"] == "completed", news
        assert news["val"][-1][1] < news["val"][0][1]
        assert news["result"]["steps"] == 40
        measured = await call(
            client, "run_benchmark", model="models/4bit", adapter_path="adapters/test", data="data", num_prompts=20
        )
        report = measured["report"]
        assert report["comparison"]["verdict"] == "better", report["summary"]
        assert report["base"]["exact_match"] <= 0.1
        assert report["adapter"]["exact_match"] >= 0.8
        jobs = await call(client, "list_jobs")
        assert {job["kind"] for job in jobs["jobs"]} == {"convert", "train", "benchmark"}


async def test_log_is_read_in_pieces_that_fit_together(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(iters=8, steps_per_report=1, val_batches=0))
    steps: list[int] = []
    cursor, finished, reads = 0, False, 0
    while not finished:
        news = await call(client, "read_training_log", job_id=started["job_id"], since=cursor, wait_seconds=30)
        steps += [step for step, _ in news["train"]]
        cursor, finished, reads = news["cursor"], news["finished"], reads + 1
    assert steps == list(range(1, 9))
    assert reads > 1
    again = await call(client, "read_training_log", job_id=started["job_id"])
    assert [step for step, _ in again["train"]] == steps
    assert again["result"]["final_train_loss"] > 0


async def test_waiting_reader_is_told_of_progress(client: Client, project: Path):
    told: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    started = await call(client, "start_lora_training", **training())
    result = await client.call_tool(
        "read_training_log",
        {"job_id": started["job_id"], "wait_seconds": 60, "until": "end"},
        progress_callback=hear,
    )
    assert not result.is_error
    assert told
    assert all(told)


async def test_adapter_and_checkpoints_load_in_stock_mlx_lm(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(val_batches=0))
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    prompt = ["--model", str(project / "model"), "--prompt", "How much is the lamp?", "--max-tokens", "4"]
    for adapter in (project / "adapters/test", Path(news["checkpoint"])):
        assert mlx_lm("generate", *prompt, "--adapter-path", str(adapter))
    provenance = json.loads((project / "adapters/test/provenance.json").read_text(encoding="utf-8"))
    assert provenance["job_id"] == started["job_id"]
    assert set(provenance["data"]["files"]) == {"train.jsonl", "valid.jsonl", "test.jsonl"}
    assert provenance["command"].startswith("mlx-training train --model ")


async def test_losses_and_weights_equal_stock_mlx_lm(client: Client, project: Path, tmp_path: Path):
    """Same options, same seed: with stock=true our loop is mlx-lm's own, so every number is the same."""
    options = training(
        stock=True,
        iters=12,
        lora_parameters={"rank": 4, "scale": 10.0, "dropout": 0.1},
        grad_accumulation_steps=2,
        mask_prompt=True,
        lr_schedule={"name": "cosine_decay", "arguments": [1e-3, 12], "warmup": 2},
        steps_per_report=3,
        steps_per_eval=4,
        val_batches=2,
        seed=7,
    )
    started = await call(client, "start_lora_training", **options)
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    ours = project / "adapters/test"
    config = json.loads((ours / "adapter_config.json").read_text(encoding="utf-8")) | {
        "adapter_path": str(tmp_path / "stock")
    }
    (tmp_path / "stock.json").write_text(json.dumps(config), encoding="utf-8")
    code = (
        "import json, sys, types, numpy as np\n"
        "from mlx_lm import lora\n"
        "from mlx_lm.tuner import callbacks\n"
        "seen = []\n"
        "class Keep(callbacks.TrainingCallback):\n"
        "    def __init__(self, **_): pass\n"
        "    def on_train_loss_report(self, info): seen.append(['train', info['iteration'], info['train_loss']])\n"
        "    def on_val_loss_report(self, info): seen.append(['val', info['iteration'], info['val_loss']])\n"
        "callbacks.SUPPORT_CALLBACK['keep'] = Keep\n"
        "lora.run(types.SimpleNamespace(**json.load(open(sys.argv[1])) | {'report_to': 'keep'}))\n"
        "print('SEEN', json.dumps(seen))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "stock.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.rpartition("SEEN ")[2])
    metrics = [
        json.loads(line)
        for line in (Path(os.environ["MLX_TRAINING_HOME"]) / "jobs" / started["job_id"] / "metrics.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    ours_seen = [[e["type"], e["step"], e["loss"]] for e in metrics if e["type"] in ("train", "val")]
    assert sorted(ours_seen) == sorted(seen)
    assert (ours / "adapters.safetensors").read_bytes() == (tmp_path / "stock/adapters.safetensors").read_bytes()


async def test_http_serves_loopback_for_tests(project: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mcp_server", "--http", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=project)
    try:
        await anyio.to_thread.run_sync(lambda: wait_until(lambda: listens(port), "the server to listen"))
        assert {connection.laddr.ip for connection in psutil.Process(server.pid).net_connections("tcp")} == {
            "127.0.0.1"
        }
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            assert (await call(client, "list_jobs"))["showing"] == "0 of 0 jobs"
    finally:
        server.kill()
        server.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
