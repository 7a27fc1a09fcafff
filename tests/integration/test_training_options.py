"""What a run can be asked for, and how it watches itself: real jobs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mcp.client import Client
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from mcp_server import launch
from mcp_server.demo import BASE
from mcp_server.errors import ArgumentError, JobError
from mcp_server.jobs.events import read_since
from mcp_server.jobs.recovery import Recovery, read
from mcp_server.pipelines.train import TrainConfig, TrainPipeline, TrainResult, register_backend
from mcp_server.server import build_server
from tests.exactness import losses
from tests.helpers import call, end_of, folder, refusal, training, wait_until
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


def rows(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def chat(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]}


def write_data(project: Path, train: str, valid: str | None = None) -> None:
    (project / "data/train.jsonl").write_bytes(train.encode())
    (project / "data/valid.jsonl").write_bytes((valid if valid is not None else train).encode())


async def result_of(client: Client, **changes: Any) -> dict[str, Any]:
    """The log of a training that was started with these changes and has ended."""
    started = await call(client, "start_lora_training", **training(**changes))
    return await end_of(client, started["job_id"])


async def test_rate_in_the_log_is_the_schedules(client: Client, project: Path):
    news = await result_of(client, lr_schedule="2:2e-4,2:1e-4,2:2e-5", iters=6, steps_per_report=1, val_batches=0)
    assert news["status"] == "completed", news
    events = read_since(folder(news["job_id"]).metrics, 0).events
    seen = [event["learning_rate"] for event in events if event["type"] == "train"]
    assert seen == pytest.approx([2e-4, 2e-4, 1e-4, 1e-4, 2e-5, 2e-5], rel=1e-6)


async def test_early_stopping_ends_the_run_and_publishes_the_best(client: Client, project: Path):
    """With next to no rate nothing is gained: the run ends after two validations that say so."""
    news = await result_of(
        client,
        learning_rate=1e-7,
        early_stopping_threshold=0.01,
        iters=200,
        steps_per_eval=4,
        steps_per_report=4,
        val_batches=-1,
        early_stopping_patience=2,
        save_every=4,
        batch_size=4,
    )
    assert news["status"] == "completed", news
    result = news["result"]
    assert result["stopped_early"] is True
    assert result["steps"] < 200
    assert result["weights_of_step"] == result["best_val_step"] <= result["steps"]
    best = folder(news["job_id"]).checkpoints / f"best-{result['best_val_step']:07d}/adapters.safetensors"
    assert (project / "adapters/test/adapters.safetensors").read_bytes() == best.read_bytes()


@pytest.mark.parametrize(
    ("stock", "symptom"),
    [
        (True, ("the loss became", "the weights hold")),
        (False, ("5 updates in a row were not finite", "the weights hold")),
    ],
)
async def test_run_that_becomes_nan_stops_soon_and_goes_back(
    client: Client, project: Path, stock: bool, symptom: tuple[str, ...]
):
    news = await result_of(
        client,
        stock=stock,
        lr_schedule="3:1e-3,397:1e38",
        iters=400,
        optimizer="sgd",
        save_every=1,
        steps_per_report=1,
        val_batches=0,
    )
    assert news["status"] == "failed", news
    assert "learning_rate" in news["why"]
    assert any(finding["symptom"].startswith(symptom) for finding in news["diagnosis"]), news["diagnosis"]
    assert news["step"] < 50
    published = project / "adapters/test/adapters.safetensors"
    good = folder(news["job_id"]).last_checkpoint()
    assert good is not None
    assert str(good) in news["why"]
    assert published.read_bytes() == (good / "adapters.safetensors").read_bytes()
    assert all(bool(np.isfinite(value).all()) for value in load_file(published).values())


async def test_weights_that_one_step_made_infinite_are_never_saved(client: Client, project: Path):
    """The step's own loss is finite, and no other step comes that would show it."""
    news = await result_of(client, iters=1, learning_rate=3e38, optimizer="adam", save_every=1, val_batches=0)
    assert news["status"] == "failed" and "NaN or infinity at step 1" in news["why"], news
    assert folder(news["job_id"]).last_checkpoint() is None
    assert not (project / "adapters/test/adapters.safetensors").exists()


async def test_test_row_that_overflows_does_not_cost_the_adapter(client: Client, project: Path):
    """One token that only test.jsonl has is infinite in the base."""
    (project / "model").unlink()
    make_tiny_model(project / "model", tie=False)
    file, odd = project / "model/model.safetensors", "§"
    arrays = load_file(file)
    tokenizer = Tokenizer.from_file(str(project / "model/tokenizer.json"))
    first = tokenizer.encode(odd, add_special_tokens=False).ids[0]
    arrays["model.embed_tokens.weight"][first] = np.inf
    save_file(arrays, file, {"format": "pt"})
    test = project / "data/test.jsonl"
    row = {"messages": [{"role": "user", "content": f"a{odd}"}, {"role": "assistant", "content": "b"}]}
    test.write_text(test.read_text(encoding="utf-8") + json.dumps(row) + "\n", encoding="utf-8")
    news = await result_of(client, test=True, test_batches=-1)
    assert news["status"] == "completed", news
    assert "test_loss" not in news["result"]
    assert any(finding["symptom"].startswith("the test loss is nan") for finding in news["diagnosis"]), news
    assert load_file(project / "adapters/test/adapters.safetensors")


async def test_test_loss_after_training_equals_stock(client: Client, project: Path):
    news = await result_of(client, test=True, test_batches=-1, val_batches=0)
    assert news["status"] == "completed", news
    command = f"--model {BASE} --data data --adapter-path adapters/test --batch-size 2 --test-batches -1"
    done = subprocess.run(
        [sys.executable, "-m", "mlx_lm", "lora", "--test", *shlex.split(command)],
        capture_output=True,
        text=True,
        check=True,
        cwd=project,
    )
    stock = float(done.stdout.rpartition("Test loss ")[2].split(",")[0])
    assert news["result"]["test_loss"] == pytest.approx(stock, abs=1e-3)


async def test_mlx_lms_yaml_is_read_as_mlx_lm_reads_it_and_arguments_win(client: Client, project: Path):
    text = (
        "model: model\ndata: data\niters: 4\nbatch_size: 2\nnum_layers: 1\nlearning_rate: 1e-3\nsteps_per_report: 1\n"
    )
    (project / "lora.yaml").write_text(text + "val_batches: 1\nmax_seq_length: 64\nunknown_key: 5\n", encoding="utf-8")
    started = await call(client, "start_lora_training", config="lora.yaml", adapter_path="adapters/y", iters=3)
    assert started["iters"] == 3
    assert any("unknown_key" in warning for warning in started["warnings"])
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    assert news["learning_rate"] == pytest.approx(1e-3)


async def test_jobs_own_yaml_runs_in_stock_mlx_lm_with_the_same_result(client: Client, project: Path, tmp_path: Path):
    news = await result_of(client, lr_schedule="cosine", warmup=0.2, mask_prompt=True, val_batches=0, stock=True)
    assert news["status"] == "completed", news
    config = yaml.safe_load((folder(news["job_id"]).path / "config.yaml").read_text(encoding="utf-8"))
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump(config | {"adapter_path": str(tmp_path / "again")}), encoding="utf-8")
    (project / "data/valid.jsonl").unlink()  # stock has no way to leave validation out
    subprocess.run([sys.executable, "-m", "mlx_lm", "lora", "--config", str(file)], check=True, capture_output=True)
    ours, stock = project / "adapters/test/adapters.safetensors", tmp_path / "again/adapters.safetensors"
    assert ours.read_bytes() == stock.read_bytes()


async def test_out_of_memory_goes_one_rung_lower_and_finishes(project: Path, memory_group: Path):
    news, recovery = await _train_in_little_memory(project, memory_group, auto_recover=True)
    assert news["status"] == "completed", news
    assert recovery.rungs, "it went down the ladder"
    assert recovery.splits > 1
    assert any("out-of-memory" in str(finding) or "did not fit" in str(finding) for finding in news["diagnosis"])
    assert news["result"]["recovered"] == recovery.rungs
    assert news["result"]["steps"] == 1


async def test_out_of_memory_without_recovery_fails_with_the_advice(project: Path, memory_group: Path):
    news, recovery = await _train_in_little_memory(project, memory_group, auto_recover=False)
    assert news["status"] == "failed"
    assert recovery.rungs == []
    assert "grad_checkpoint" in news["why"]


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group of the kernel's that counts and limits memory."""
    for root, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = root / f"mlx-training-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                break
            group.rmdir()
    else:
        pytest.skip("no memory control group can be made here (needs Linux, root and the memory controller)")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(encoding="utf-8").strip(), "the group to be empty")
    group.rmdir()


async def _train_in_little_memory(project: Path, group: Path, *, auto_recover: bool) -> tuple[dict[str, Any], Recovery]:
    """A real want of memory: worker and runner in a group that may use little more than a small batch needs."""
    # A large vocabulary makes the logits by far the largest arrays: 123 MB each for 16 rows of 64 tokens.
    make_tiny_model(project / "wide", hidden=32, layers=1, vocab=30_000)
    text = " ".join(["word"] * 40)
    write_data(project, rows(*[chat(text, text) for _ in range(16)]))
    arguments = training(model="wide", iters=1, max_seq_length=64, val_batches=1, auto_recover=auto_recover)
    async with Client(build_server()) as client:
        small = start_in(group, arguments | {"batch_size": 1, "adapter_path": "adapters/small"})
        assert (await end_of(client, small))["status"] == "completed"
        first = (group / "memory.limit_in_bytes").exists()
        peak = int((group / ("memory.max_usage_in_bytes" if first else "memory.peak")).read_text(encoding="utf-8"))
        limit = group / ("memory.limit_in_bytes" if first else "memory.max")
        limit.write_text(str(peak + 200_000_000), encoding="utf-8")
        job_id = start_in(group, arguments | {"batch_size": 16})
        news = await end_of(client, job_id)
    return news, read(folder(job_id))


def start_in(group: Path, arguments: dict[str, Any]) -> str:
    """The id of a job started by a process of the group, and so run by workers of the group."""
    code = (
        "import json, os, pathlib, sys\n"
        "from mcp_server.training.request import TrainingRequest\n"
        "from mcp_server.training.start import start_training\n"
        "pathlib.Path(sys.argv[2], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "print(start_training(TrainingRequest.model_validate(json.loads(sys.argv[1]))).job_id)\n"
    )
    command = [sys.executable, "-c", code, json.dumps(arguments), str(group)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_batch_in_parts_gives_the_same_updates(client: Client, project: Path):
    """The ladder's first rung changes memory, not the training: losses agree to rounding."""
    started = await call(
        client, "start_lora_training", **training(batch_size=4, iters=4, val_batches=0, adapter_path="adapters/a")
    )
    whole = await end_of(client, started["job_id"])
    started = await call(
        client, "start_lora_training", **training(batch_size=4, iters=4000, val_batches=0, adapter_path="adapters/b")
    )
    job = folder(started["job_id"])
    await call(client, "stop_job", job_id=job.job_id, action="kill")
    # The same run again, with the rung that the runner would have written.
    state = job.spec().options | {"iters": 4}
    split = folder(started["job_id"])
    spec = json.loads((split.path / "spec.json").read_text(encoding="utf-8")) | {"options": state}
    for name in ("state.json", "outcome.json", "exit.json"):
        (split.path / name).unlink(missing_ok=True)
    # Before its first checkpoint it had reported already.
    reported = [{"type": "train", "step": step, "total": 4, "loss": 9.0, "time": 1.0} for step in (1, 2)]
    split.metrics.write_text("".join(json.dumps(event) + "\n" for event in reported), encoding="utf-8")
    shutil.rmtree(split.checkpoints, ignore_errors=True)
    (split.path / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    (split.path / "recovery.json").write_text(json.dumps({"splits": 2, "rungs": ["x"]}), encoding="utf-8")
    subprocess.run(launch.command(sys.executable, "mcp_server.workers.train", str(split.path)), check=True)
    expected, seen = losses(folder(whole["job_id"])), losses(split)
    assert [step for _, step, _ in seen] == [step for _, step, _ in expected]
    # Each part counts by its tokens.
    assert [loss for *_, loss in seen] == pytest.approx([loss for *_, loss in expected], abs=1e-5)


ODD = {
    "one row": rows(chat("How much?", "Ten.")),
    "all lengths": rows(*[chat("a " * n, "b " * n) for n in (1, 5, 20, 100, 1000, 10_000)]),
    "emoji and right to left": rows(*[chat("👩‍👩‍👧‍👦🏳️‍🌈", "שלום مرحبا ‮RTL‬")] * 4),
    "many turns": rows(*[chat("a", "b", "c", "d", "e", "f")] * 4),
    "tools": rows(
        *[
            {
                "messages": [
                    {"role": "user", "content": "weather?"},
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [{"type": "function", "function": {"name": "w"}}],
                    },
                    {"role": "tool", "content": "sunny"},
                    {"role": "assistant", "content": "Sunny."},
                ],
                "tools": [{"type": "function", "function": {"name": "w", "parameters": {}}}],
            }
        ]
        * 4
    ),
    "carriage returns": rows(*[chat("a", "b")] * 4).replace("\n", "\r\n"),
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_data_trains(name: str, client: Client, project: Path):
    write_data(project, ODD[name])
    news = await result_of(client, batch_size=1, iters=3, max_seq_length=512, val_batches=1)
    assert news["status"] == "completed", news


async def test_byte_order_mark_and_masked_text_are_refused_before_the_start(client: Client, project: Path):
    write_data(project, "\ufeff" + rows(chat("a", "b")))
    assert "train.jsonl:1" in await refusal(client, "start_lora_training", **training(batch_size=1))
    write_data(project, rows({"text": "once upon a time"}, {"text": "there was"}))
    assert "no prompt to mask" in await refusal(client, "start_lora_training", **training(mask_prompt=True))


async def test_own_names_of_data_fields_are_taken(client: Client, project: Path):
    write_data(project, rows(*[{"question": f"{n}?", "answer": f"{n}!"} for n in range(4)]))
    assert "question" in await refusal(client, "start_lora_training", **training())
    news = await result_of(client, prompt_feature="question", completion_feature="answer", val_batches=0, iters=2)
    assert news["status"] == "completed", news


async def test_start_from_an_adapters_weights(client: Client, project: Path):
    first = await result_of(client, val_batches=0)
    second = await result_of(client, val_batches=0, adapter_path="adapters/b", resume_adapter_file="adapters/test")
    assert second["status"] == "completed", second
    assert second["train"][0][1] < first["train"][0][1]
    text = await refusal(client, "start_lora_training", **training(adapter_path="c", resume_adapter_file="none"))
    assert "does not exist" in text


async def test_tracker_that_is_not_installed_is_named(client: Client, project: Path):
    news = await result_of(client, report_to="wandb")
    assert news["status"] == "failed"
    assert "wandb" in news["why"]
    assert "install" in news["why"]
    assert "mlflow" in await refusal(client, "start_lora_training", **training(adapter_path="d", report_to="mlflow"))


async def test_hub_data_that_can_not_be_had_are_named(client: Client, project: Path):
    news = await result_of(client, data="someone/some-data", val_batches=0)
    assert news["status"] == "failed"
    assert "someone/some-data" in news["why"] and "give a folder" in news["why"]


def test_python_api_trains_and_gives_a_typed_result(project: Path, capsys: pytest.CaptureFixture[str]):
    short = {name: value for name, value in training().items() if name not in ("model", "data")}
    config = TrainConfig(model="model", train_data=project / "data/train.jsonl", backend="mlx", **short)
    result = TrainPipeline(config).execute()
    assert result.steps == 6
    assert (result.adapter_path / "adapters.safetensors").exists()
    assert result.final_train_loss is not None
    assert "validation loss" in capsys.readouterr().err


def test_python_api_names_its_errors_and_takes_other_backends(project: Path):
    with pytest.raises(ArgumentError, match="backend='cuda'"):
        TrainPipeline(TrainConfig(backend="cuda"))
    with pytest.raises(ArgumentError, match="itres"):
        TrainPipeline(
            TrainConfig.model_validate({"model": "model", "train_data": project / "data", "itres": 5})
        ).execute()
    with pytest.raises(ArgumentError, match=r"rename the file to train\.jsonl"):
        TrainPipeline(TrainConfig(model="model", train_data=Path("rows.jsonl"))).execute()
    name = f"mine-{random.random()}"
    expected = TrainResult(job_id="x", adapter_path=Path("y"), steps=1)
    register_backend(name, lambda _: expected)
    assert TrainPipeline(TrainConfig(backend=name)).execute() == expected
    with pytest.raises(ArgumentError, match="already registered"):
        register_backend(name, lambda _: expected)


def test_python_api_raises_when_the_run_fails(project: Path):
    write_data(project, rows(chat("word " * 500, "answer"), chat("word " * 500, "answer")))
    short = training(mask_prompt=True, max_seq_length=64)
    del short["model"], short["data"]
    with pytest.raises(JobError, match="raise max_seq_length"):
        TrainPipeline(TrainConfig(model="model", train_data=project / "data", quiet=True, **short)).execute()


async def test_training_on_the_cpu_of_a_mac_by_mistake_is_said(
    client: Client, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    facts = {
        "system": "Darwin",
        "machine": "arm64",
        "translated": 0,
        "container": False,
        "macos": "26.1",
        "metal": True,
    }
    (tmp_path / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(tmp_path / "facts.json"))
    news = await result_of(client, val_batches=0, iters=2)
    assert any("on the CPU" in alert for alert in news["alerts"])
    assert any("check_platform" in finding["remedy"] for finding in news["diagnosis"])
