"""What makes a run faster, smaller or safer than stock mlx-lm: chosen, said, equal in result, resumed exactly."""

# pyright: basic
from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import pytest
from mcp.client import Client
from mlx_lm.tuner.datasets import load_dataset as load_rows

from mcp_server.jobs.events import read_since
from mcp_server.jobs.store import JobFolder
from mcp_server.training.options import TrainingOptions
from mcp_server.workers.batches import make_order
from mcp_server.workers.loading import load_model
from mcp_server.workers.losses import masked_loss
from mcp_server.workers.tokens import TokenRows
from tests.exactness import finish, losses, options, run, run_with_kills, weights
from tests.helpers import call, end_of, training
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]
EVERYTHING: dict[str, Any] = {"fused_loss": True, "max_grad_norm": 0.5, "skip_nonfinite": True}
POISON = "\u00a4"  # of no other row; its tokens' embeddings are NaN


def alerts(job: JobFolder, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_since(job.metrics, 0).events if e["type"] == "alert" and e["kind"] == kind]


def result(job: JobFolder) -> dict[str, Any]:
    outcome = job.outcome()
    assert outcome is not None and outcome.result is not None
    return outcome.result


def poisoned(project: Path, *, rows: int, bad: set[int]) -> dict[str, Any]:
    """A project whose model knows no embedding for POISON, which the rows ``bad`` hold."""
    from tokenizers import Tokenizer

    model = make_tiny_model(project / "poisoned", model_type="llama", tie=False)
    tokenizer: Any = Tokenizer.from_file(str(model / "tokenizer.json"))
    file = str(model / "model.safetensors")
    arrays: Any = mx.load(file)
    embeddings = arrays["model.embed_tokens.weight"]
    clean = set(tokenizer.encode("lamp and chair").ids)
    ids = [token for token in tokenizer.encode(POISON).ids if token not in clean]
    assert ids
    embeddings[mx.array(ids)] = float("nan")
    mx.eval(arrays)
    mx.save_safetensors(file, arrays, {"format": "pt"})
    data = project / "poisoned-data"
    data.mkdir()
    texts = ["lamp and chair" + POISON * (row in bad) for row in range(rows)]
    (data / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {
        "model": "poisoned",
        "data": "poisoned-data",
        "val_batches": 0,
        "num_layers": 1,
        "batch_size": 2,
        "max_seq_length": 64,
        "learning_rate": 1e-3,
        "steps_per_report": 1,
        "save_every": 4,
    }


def test_killed_and_resumed_run_with_everything_on_equals_the_uninterrupted_one_bit_for_bit(project: Path):
    chosen = options("lora", "adamw", **EVERYTHING)
    whole = run(**chosen, adapter_path="adapters/whole")
    assert finish(whole) == "completed", whole.state().why
    assert result(whole)["measures"]["fused_loss"] == "on: asked for"
    resumed, hits, resumes = run_with_kills(chosen, "killed", kills=2, seed=5)
    assert hits >= 1
    assert resumes >= 1
    assert losses(resumed) == losses(whole)
    assert weights(resumed) == weights(whole)


def test_fused_losses_equal_stock_ones(project: Path):
    chosen = options("lora", "adam", iters=12, lr_schedule=None, warmup=0, length_bucketing=False)
    if "length_bucketing" not in _option_names():
        chosen.pop("length_bucketing")
    fused = run(**chosen, fused_loss=True, adapter_path="adapters/fused")
    assert finish(fused) == "completed", fused.state().why
    stock = run(**chosen, stock=True, adapter_path="adapters/stock")
    assert finish(stock) == "completed", stock.state().why
    assert len(losses(stock)) > 4
    for (kind, step, ours), (same_kind, same_step, theirs) in zip(losses(fused), losses(stock), strict=True):
        assert (kind, step) == (same_kind, same_step)
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_reported_loss_is_the_batchs_own_mean_though_batches_are_weighted_by_their_tokens(project: Path):
    """A learning rate that changes nothing: the losses can be worked out beforehand."""
    lines = [json.dumps({"text": " ".join(["the lamp costs 42"] * (1 + 5 * (n % 3)))}) for n in range(12)]
    for split in ("train", "valid"):
        (project / "data" / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    chosen = options("lora", "sgd", iters=6, lr_schedule=None, warmup=0, learning_rate=1e-30, mask_prompt=False)
    chosen |= {"lora_parameters": {"rank": 4, "scale": 10.0, "dropout": 0.0}, "steps_per_report": 1}
    job = run(**chosen, adapter_path="adapters/still")
    assert finish(job) == "completed", job.state().why
    found = [loss for kind, _, loss in losses(job) if kind == "train"]
    settings = TrainingOptions.model_validate(job.spec().options)
    model, tokenizer = load_model(settings.model)
    data, _, _ = load_rows(SimpleNamespace(**settings.as_mlx_lm()), tokenizer)
    train_set = TokenRows(data, "train.jsonl", settings, tokenizer)
    order = make_order(train_set, settings)
    expected = [cast(float, masked_loss(model, *train_set.batch(batch))[0].item()) for batch in order.coming(6)]
    assert found == pytest.approx(expected, rel=1e-5)
    weights_of = {round(order.weight(batch), 2) for batch in order.coming(6)}
    assert len(weights_of) > 1


def _option_names() -> set[str]:
    from mcp_server.training.options import TrainingOptions

    return set(TrainingOptions.model_fields)


@pytest.mark.anyio
async def test_what_was_chosen_is_said_with_its_reason(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(iters=2, fused_loss=True))
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    said = next(phase for phase in news["phases"] if phase.startswith("measures: "))
    assert "fused_loss on" in said and "allocator_cache off" in said and "command_buffer_limits off" in said
    assert news["result"]["measures"]["command_buffer_limits"] == "off: not measured to pay on linux-cpu"


@pytest.mark.parametrize("accumulated", [1, 2])
def test_batch_that_is_not_finite_is_skipped_and_said(project: Path, accumulated: int):
    chosen = poisoned(project, rows=16, bad={5})
    job = run(**chosen, iters=8 * accumulated, grad_accumulation_steps=accumulated, adapter_path="adapters/a")
    assert finish(job) == "completed", job.state().why
    skipped = alerts(job, "skipped-step")
    assert len(skipped) == accumulated == result(job)["skipped_updates"], "each epoch meets the bad row once"
    assert all(alert["step"] % accumulated == 0 and "skipped" in alert["message"] for alert in skipped)
    seen = losses(job)
    assert len(seen) >= 7 * accumulated
    assert all(math.isfinite(loss) for _, _, loss in seen)
    adapter: Any = mx.load(str(project / "adapters/a/adapters.safetensors"))
    assert all(mx.all(mx.isfinite(array)).item() for array in adapter.values())
    assert any(mx.any(array != 0).item() for name, array in adapter.items() if name.endswith("lora_b"))


def test_run_that_is_never_finite_fails_after_five_updates(project: Path):
    job = run(**poisoned(project, rows=8, bad=set(range(8))), iters=20, adapter_path="adapters/a")
    assert finish(job) == "failed"
    assert "5 updates in a row were not finite, the last at step 5" in str(job.state().why)
    assert len(alerts(job, "skipped-step")) == 4


@pytest.mark.parametrize("changes", [{"stock": True}, {"skip_nonfinite": False}])
def test_without_the_guard_the_first_nan_ends_the_run(project: Path, changes: dict[str, Any]):
    chosen = poisoned(project, rows=8, bad=set(range(8)))
    job = run(**chosen, iters=20, adapter_path="adapters/a", **changes)
    assert finish(job) == "failed"
    assert "the loss became nan at step 1" in str(job.state().why)


def test_fused_loss_that_differs_is_dropped_with_a_note(project: Path):
    """On the first batch everything is NaN: nothing can be proved."""
    chosen = poisoned(project, rows=8, bad=set(range(8)))
    job = run(**chosen, iters=2, fused_loss=True, adapter_path="adapters/a")
    finish(job)
    phases = [event for event in read_since(job.metrics, 0).events if event["type"] == "phase"]
    (said,) = [event["measures"]["fused_loss"] for event in phases if "measures" in event]
    assert said.startswith("off: on the first batch its loss differs from stock's by nan")
