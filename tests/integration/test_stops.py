"""Where a training is asked to stop, what it then keeps, and what its records say of the data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from mcp.client import Client
from safetensors.numpy import load_file

from mcp_server.jobs import service
from mcp_server.jobs.events import read_since
from tests import exactness
from tests.exactness import finish, losses, options, run, weights
from tests.helpers import call, end_of, folder, training, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


def provenance(project: Path) -> dict[str, Any]:
    return json.loads((project / "adapters/test/provenance.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("amid", "stock"), [(0, False), pytest.param(11, True, marks=pytest.mark.slow)])
def test_pause_amid_a_validation_is_heard_and_equals_the_uninterrupted_run(project: Path, amid: int, stock: bool):
    """Also in stock's order, whose validation draws random numbers."""
    valid = project / "data/valid.jsonl"
    valid.write_text(valid.read_text(encoding="utf-8") * 20, encoding="utf-8")
    chosen = options(
        "lora", "adam", steps_per_report=1, steps_per_eval=12, val_batches=-1, iters=14, grad_accumulation_steps=1,
        save_every=100, stock=stock,
    )  # fmt: skip
    whole = run(**chosen, adapter_path="adapters/whole")
    assert finish(whole) == "completed", whole.state().why
    paused = run(**chosen, adapter_path="adapters/paused")

    def validates() -> bool:
        events = read_since(paused.metrics, 0).events
        done = [event["step"] for event in events if event["type"] in ("train", "val")]
        return max(done) >= amid if amid else any(event.get("name") == "training" for event in events)

    while not (exactness.steps(paused) >= amid and validates()):
        assert not paused.state().finished
    service.ask_to_stop(paused, "pause")
    assert finish(paused) == "paused", paused.state().why
    last = paused.last_checkpoint()
    assert last is not None and int(last.name) == amid
    validated = [event["step"] for event in read_since(paused.metrics, 0).events if event["type"] == "val"]
    assert validated == ([0] if amid else []), "half a validation is none"
    again = run(resume=paused.job_id)
    assert finish(again) == "completed", again.state().why
    assert losses(again) == losses(whole)
    assert weights(again) == weights(whole)


def test_stop_before_the_first_step_makes_no_adapter(project: Path):
    valid = project / "data/valid.jsonl"
    valid.write_text(valid.read_text(encoding="utf-8") * 100, encoding="utf-8")
    job = run(**training(val_batches=-1))
    while not any(event.get("name") == "training" for event in read_since(job.metrics, 0).events):
        assert not job.state().finished
    service.ask_to_stop(job, "stop")
    assert finish(job) == "cancelled"
    assert "before its first step" in (job.state().why or "")
    assert not (project / "adapters/test").exists()


@pytest.mark.anyio
async def test_stop_in_the_test_leaves_the_published_adapter_and_a_resume_tests_it(client: Client, project: Path):
    test = project / "data/test.jsonl"
    test.write_text(test.read_text(encoding="utf-8") * 100, encoding="utf-8")
    started = await call(client, "start_lora_training", **training(test=True, test_batches=-1, val_batches=0))
    job = folder(started["job_id"])

    def testing() -> bool:
        return any(event.get("name") == "testing" for event in read_since(job.metrics, 0).events)

    await anyio.to_thread.run_sync(wait_until, testing, "the test")
    view = await call(client, "stop_job", job_id=job.job_id)
    assert view["status"] == "cancelled", view
    assert "stopped as asked before the test was over" in view["why"] and "adapters/test" in view["why"]
    adapter = project / "adapters/test"
    record = json.loads((adapter / "provenance.json").read_text(encoding="utf-8"))
    assert record["results"]["steps"] == 6 and "test_loss" not in record["results"]
    assert load_file(adapter / "adapters.safetensors")

    test.write_text("".join(test.read_text(encoding="utf-8").splitlines(keepends=True)[:20]), encoding="utf-8")
    again = await call(client, "start_lora_training", resume=job.job_id)
    news = await end_of(client, again["job_id"])
    assert news["status"] == "completed", news
    record = json.loads((adapter / "provenance.json").read_text(encoding="utf-8"))
    assert record["results"]["test_loss"] == news["result"]["test_loss"]


def test_provenance_has_the_data_that_was_trained_on_though_they_were_edited_meanwhile(project: Path):
    file = project / "data/train.jsonl"
    digest = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    job = run(**training(iters=60))
    while exactness.steps(job) < 2:
        assert not job.state().finished
    file.write_text("edited\n", encoding="utf-8")
    assert finish(job) == "completed", job.state().why
    assert provenance(project)["data"]["files"]["train.jsonl"] == digest


def test_provenance_of_a_run_that_went_on_with_other_data_names_both(project: Path):
    file = project / "data/train.jsonl"
    first = run(**options("lora", "adam", iters=8), adapter_path="adapters/test")
    finish(first)
    before = provenance(project)["data"]
    assert "files_before_resume" not in before
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    again = run(resume=first.job_id, iters=12)
    assert finish(again) == "completed", again.state().why
    after = provenance(project)["data"]
    assert after["files"]["train.jsonl"] != before["files"]["train.jsonl"]
    assert after["files_before_resume"] == {"train.jsonl": before["files"]["train.jsonl"]}


def test_log_of_a_resumed_run_begins_where_it_goes_on(project: Path):
    """Not with what the run before did after the checkpoint: until the model is loaded nothing else says where it stands."""
    first = run(
        **options("lora", "adam", iters=8, grad_accumulation_steps=1, steps_per_report=1), adapter_path="adapters/first"
    )
    finish(first)
    again = run(resume=str(first.checkpoints / "0000004"), iters=10, adapter_path="adapters/again")
    assert finish(again) == "completed", again.state().why
    events = read_since(again.metrics, 0).events
    begun = next(at for at, event in enumerate(events) if event["type"] == "phase")
    assert [event["step"] for event in events[:begun] if event["type"] == "train"] == [1, 2, 3, 4]
    last = events[begun - 1]
    assert (last["type"], last["step"], last["total"]) == ("resume", 4, 10)
