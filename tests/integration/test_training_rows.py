"""What is trained: every row, every answer, and long rows as asked for. Real jobs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcp.client import Client
from safetensors.numpy import load_file

from mcp_server import launch
from mcp_server.jobs import service
from mcp_server.jobs.events import read_since
from tests import exactness
from tests.exactness import finish, losses, options, run, run_with_kills, weights
from tests.helpers import call, end_of, folder, refusal, training
from tests.templates import write_template
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


def chat(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}


def write_data(project: Path, rows: list[dict[str, Any]], valid: list[dict[str, Any]] | None = None) -> None:
    for name, content in (("train", rows), ("valid", valid or rows)):
        (project / f"data/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))


def fewer_rows(project: Path, count: int) -> None:
    file = project / "data/train.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:count]))


async def result_of(client: Client, **changes: Any) -> dict[str, Any]:
    """The log of a training that was started with these changes and has completed."""
    started = await call(client, "start_lora_training", **training(**changes))
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    return news


def phases(news: dict[str, Any]) -> list[dict[str, Any]]:
    return [e for e in read_since(folder(news["job_id"]).metrics, 0).events if e["type"] == "phase"]


@pytest.mark.parametrize("where", ["killed", "paused"])
def test_resume_within_an_epoch_with_a_small_last_batch_is_exact_to_the_bit(where: str, project: Path):
    fewer_rows(project, 9)  # an epoch is four batches of two and one of one
    chosen = options("lora", "adam", grad_accumulation_steps=1, steps_per_report=1, save_every=1)
    whole = run(**chosen, adapter_path="adapters/whole")
    assert finish(whole) == "completed", whole.state().why
    if where == "killed":
        last, hits, resumes = run_with_kills(chosen, "killed", kills=2, seed=11)
        assert hits >= 1
        assert resumes >= 1
    else:
        paused = run(**chosen, adapter_path="adapters/paused")
        while exactness.steps(paused) < 6:
            assert not paused.state().finished
        service.ask_to_stop(paused, "pause")
        assert finish(paused) == "paused"
        last = run(resume=paused.job_id)
        assert finish(last) == "completed", last.state().why
    assert losses(last) == losses(whole)
    assert weights(last) == weights(whole)


@pytest.mark.anyio
async def test_epoch_is_every_row_once(client: Client, project: Path):
    fewer_rows(project, 9)
    arguments = training(epochs=1, batch_size=4, steps_per_report=1)
    del arguments["iters"]
    started = await call(client, "start_lora_training", **arguments)
    assert started["iters"] == 3
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    one = news["result"]["trained_tokens"]
    twice = await result_of(client, iters=6, batch_size=4, adapter_path="adapters/twice")
    assert twice["result"]["trained_tokens"] == 2 * one
    stock = await result_of(client, iters=2, batch_size=4, stock=True, adapter_path="adapters/stock")
    assert stock["result"]["trained_tokens"] < one, "stock leaves the last row out"


@pytest.mark.anyio
async def test_validation_is_the_same_in_every_order_of_rows(client: Client, project: Path):
    """The mean over all rows: equal to stock's, which sees all of them when they fill its batches."""
    whole = await result_of(client, iters=2, val_batches=-1, steps_per_eval=2, batch_size=4, learning_rate=1e-7)
    stock = await result_of(
        client, iters=2, val_batches=-1, batch_size=4, learning_rate=1e-7, stock=True, adapter_path="adapters/stock"
    )
    assert whole["val"][0][1] == pytest.approx(stock["val"][0][1], abs=1e-5)
    some = await result_of(
        client, iters=4, val_batches=2, steps_per_eval=2, learning_rate=1e-12, adapter_path="adapters/some"
    )
    assert [loss for _, loss in some["val"]] == pytest.approx([some["val"][0][1]] * len(some["val"]), abs=1e-6)


@pytest.mark.anyio
async def test_every_answer_is_trained_and_counted(client: Client, project: Path):
    write_data(project, [chat("How much?", "Ten.", "Really?", "Yes, ten.", "Thanks", "Welcome.")] * 4)
    every = await result_of(client, assistant_only_loss=True, iters=1, batch_size=4)
    last = await result_of(client, mask_prompt=True, iters=1, batch_size=4, adapter_path="adapters/last")
    counts = [count_of("Ten.<|im_end|>"), count_of("Yes, ten.<|im_end|>"), count_of("Welcome.<|im_end|>")]
    assert every["result"]["trained_tokens"] == 4 * sum(counts)
    # mlx-lm's span goes on to the line break and one token of padding.
    assert last["result"]["trained_tokens"] == 4 * (counts[2] + 2)
    text = await refusal(
        client,
        "start_lora_training",
        **training(assistant_only_loss=True, mask_prompt=True, adapter_path="adapters/both"),
    )
    assert "give one of them" in text


def count_of(text: str) -> int:
    from tokenizers import Tokenizer

    from mcp_server.demo import BASE

    return len(Tokenizer.from_file(str(BASE / "tokenizer.json")).encode(text, add_special_tokens=False).ids)


@pytest.mark.anyio
async def test_row_that_can_not_be_masked_is_named_and_plain_text_refused(client: Client, project: Path):
    make_tiny_model(project / "odd")
    write_template(project / "odd", "chatml")
    (project / "odd/chat_template.jinja").write_text(
        "{% for m in messages[-2:] %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    )
    write_data(project, [chat("a", "b"), chat("a", "b", "c", "d")])
    started = await call(client, "start_lora_training", **training(model="odd", assistant_only_loss=True, batch_size=1))
    news = await end_of(client, started["job_id"])
    assert news["status"] == "failed"
    assert "train.jsonl:2 can't be masked: message 2 of 4" in news["why"]
    write_data(project, [{"text": "once upon a time"}, {"text": "there was"}])
    arguments = training(assistant_only_loss=True, adapter_path="adapters/text")
    assert "has no answers" in await refusal(client, "start_lora_training", **arguments)


@pytest.mark.anyio
async def test_prompt_that_fills_the_window_is_left_out_and_the_run_stays_finite(client: Client, project: Path):
    write_data(project, [chat("short", "answer"), chat("word " * 500, "answer"), chat("brief", "reply")])
    news = await result_of(client, mask_prompt=True, batch_size=1, max_seq_length=64)
    assert any("nothing would be learnt from 1 row" in alert and "train.jsonl:2" in alert for alert in news["alerts"])
    assert all(np.isfinite(loss) for _, loss in news["train"] + news["val"])
    saved = load_file(project / "adapters/test/adapters.safetensors")
    assert all(bool(np.isfinite(value).all()) for value in saved.values())
    started = await call(
        client,
        "start_lora_training",
        **training(mask_prompt=True, batch_size=1, max_seq_length=64, stock=True, adapter_path="adapters/stock"),
    )
    refused = await end_of(client, started["job_id"])
    assert refused["status"] == "failed"
    assert "train.jsonl:2" in refused["why"]
    assert "raise max_seq_length" in refused["why"]
    assert refused.get("train", []) == []
    assert not (project / "adapters/stock").exists()


@pytest.mark.anyio
async def test_rows_that_are_cut_are_said(client: Client, project: Path):
    write_data(project, [chat("word " * 200, "word " * 200)] * 3)
    news = await result_of(client, batch_size=1, max_seq_length=64, val_batches=0, iters=3)
    assert any("are cut" in alert for alert in news["alerts"])


@pytest.mark.anyio
async def test_long_rows_are_split_or_dropped_as_asked_and_said(client: Client, project: Path):
    write_data(project, [chat("a", "b"), chat("c", "d"), chat("word", "word " * 300)])
    short = {"max_seq_length": 64, "val_batches": 0, "batch_size": 1}
    split = await result_of(client, **short, iters=8, excess_length_strategy="split")
    assert any("1 longer than 64 tokens split into" in phase["name"] for phase in phases(split))
    assert not any("cut" in alert for alert in split.get("alerts", []))
    drop = await result_of(client, **short, iters=2, excess_length_strategy="drop", adapter_path="adapters/drop")
    assert any("1 of 3 rows of train are longer than 64 tokens and left out" in alert for alert in drop["alerts"])
    cut = await result_of(client, **short, iters=3, adapter_path="adapters/cut")
    tokens = {name: news["result"]["trained_tokens"] for name, news in (("split", split), ("drop", drop), ("cut", cut))}
    assert tokens["drop"] < tokens["cut"] < tokens["split"]
    write_data(project, [chat("word", "word " * 300)])
    arguments = training(**short, excess_length_strategy="drop", adapter_path="adapters/none")
    started = await call(client, "start_lora_training", **arguments)
    news = await end_of(client, started["job_id"])
    assert news["status"] == "failed"
    assert "every row of train is longer than max_seq_length=64" in news["why"]


@pytest.mark.anyio
async def test_padding_before_and_after_is_in_the_log(client: Client, project: Path):
    write_data(project, [chat("a", "b " * (1 + 60 * (n % 2))) for n in range(32)])
    news = await result_of(client, iters=8, batch_size=4, max_seq_length=256, val_batches=0)
    (told,) = [phase for phase in phases(news) if phase["name"].startswith("train:")]
    assert told["padding"] < told["padding_unsorted"]
    assert told["rows"] == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"test": True, "test_batches": -1},
        {"length_bucketing": False},
        {"stock": True, "batch_size": 2},
        {"num_processes": 2, "backend": "ring"},
    ],
    ids=["bucketed", "stock's batches", "stock", "two ranks"],
)
@pytest.mark.anyio
async def test_splits_smaller_than_a_batch_train_and_validate_on_every_row_with_a_warning(
    changes: dict[str, Any], client: Client, project: Path
):
    rows = [chat("a", "b c"), chat("d", "e"), chat("f", "g h i")]
    write_data(project, rows[: changes.get("batch_size", 3)], rows[:1])
    write_split = (project / "data/test.jsonl").write_text
    write_split(json.dumps(rows[1]) + "\n")
    chosen = training(batch_size=4, iters=4, steps_per_report=1, steps_per_eval=2) | changes
    started = await call(client, "start_lora_training", **chosen)
    few = [warning.partition(",")[0] for warning in started["warnings"] if "fewer than batch_size" in warning]
    assert few == [
        *(["train.jsonl has 3 rows"] if "stock" not in changes else []),
        "valid.jsonl has 1 row",
        *(["test.jsonl has 1 row"] if "test" in changes else []),
    ]
    assert started["epochs"] == 4
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    assert len(news["train"]) == 4
    assert len(news["val"]) == 3
    # Each step saw the same rows: all.
    assert news["result"]["trained_tokens"] % 4 == 0


def test_small_last_batch_in_parts_after_an_out_of_memory(project: Path):
    """The ladder's first rung on an epoch of a whole batch and one of a single row: the same losses."""
    fewer_rows(project, 5)
    chosen = training(batch_size=4, iters=4, steps_per_report=1, val_batches=0)
    whole = run(**chosen | {"adapter_path": "adapters/whole"})
    assert finish(whole) == "completed", whole.state().why
    for name in ("state.json", "outcome.json", "exit.json"):
        (whole.path / name).unlink(missing_ok=True)
    first = losses(whole)
    whole.metrics.unlink()
    shutil.rmtree(whole.checkpoints)
    (whole.path / "recovery.json").write_text(json.dumps({"splits": 2, "rungs": ["x"]}), encoding="utf-8")
    subprocess.run(launch.command(sys.executable, "mcp_server.workers.train", str(whole.path)), check=True)
    again = losses(whole)
    assert [(kind, step) for kind, step, _ in again] == [(kind, step) for kind, step, _ in first]
    assert [loss for *_, loss in again] == pytest.approx([loss for *_, loss in first], abs=1e-5)
