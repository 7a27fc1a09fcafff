"""A training that can't be lost: killed, stopped or paused, it goes on as if nothing had happened."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path

import pytest
from mcp.client import Client

from mcp_server.adapters.listing import AdapterRequest, list_adapters
from mcp_server.errors import ArgumentError, JobError, PathError
from mcp_server.jobs import recovery, service
from mcp_server.jobs.events import read_since
from mcp_server.jobs.recovery import Recovery
from mcp_server.training.request import TrainingRequest, resolve
from mcp_server.training.start import start_training
from tests import exactness
from tests.exactness import finish, kill_after, losses, options, run, run_with_kills, weights
from tests.helpers import call, end_of, in_short, refusal, training

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


@pytest.mark.parametrize(
    ("fine_tune_type", "optimizer"),
    in_short([("lora", "adam"), ("dora", "adafactor"), ("full", "muon")], ("lora", "adam")),
)
def test_killed_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    fine_tune_type: str, optimizer: str, project: Path
):
    chosen = options(fine_tune_type, optimizer)
    whole = run(**chosen, adapter_path="adapters/whole")
    assert finish(whole) == "completed", whole.state().why
    resumed, hits, resumes = run_with_kills(chosen, "killed", kills=3, seed=random.Random(optimizer).randrange(10**6))
    assert hits >= 1
    assert resumes >= 1
    assert losses(resumed) == losses(whole)
    assert weights(resumed) == weights(whole)


def test_pause_and_continue_equals_the_uninterrupted_run(project: Path):
    chosen = options("lora", "adamw", steps_per_report=1, grad_accumulation_steps=6)
    whole = run(**chosen, adapter_path="adapters/whole")
    finish(whole)
    paused = run(**chosen, adapter_path="adapters/paused")
    while exactness.steps(paused) < 7:
        assert not paused.state().finished
    service.ask_to_stop(paused, "pause")
    assert finish(paused) == "paused"
    last = paused.last_checkpoint()
    assert last is not None and int(last.name) % 6 == 0, "half an update can't be saved, so it is not stopped there"
    assert not (project / "adapters/paused/adapters.safetensors").exists(), "a paused run has no adapter yet"
    last = run(resume=paused.job_id)
    assert finish(last) == "completed", last.state().why
    assert losses(last) == losses(whole)
    assert weights(last) == weights(whole)


def test_pause_that_can_not_save_a_checkpoint_keeps_the_adapter_and_promises_nothing(project: Path):
    job = run(**training(iters=4000, steps_per_report=1, val_batches=0, save_every=4000))
    (job.path / "checkpoints").write_text("in the way of the folder")
    while exactness.steps(job) < 3:
        assert not job.state().finished
    service.ask_to_stop(job, "pause")
    assert finish(job) == "cancelled"
    why = job.state().why
    assert why is not None and "no checkpoint could be saved" in why and "continue" not in why
    assert (project / "adapters/test/adapters.safetensors").exists()


@pytest.mark.anyio
async def test_stopped_run_is_continued_through_the_tool_and_its_old_adapter_kept(client: Client, project: Path):
    started = await call(
        client, "start_lora_training", **training(iters=60, steps_per_report=1, val_batches=0, save_every=60)
    )
    await call(client, "read_training_log", job_id=started["job_id"], wait_seconds=60, until="any")
    stopped = await call(client, "stop_job", job_id=started["job_id"])
    assert stopped["status"] == "cancelled"
    first = (project / "adapters/test/adapters.safetensors").read_bytes()
    view = await call(client, "stop_job", job_id=started["job_id"], action="continue")
    assert view["job_id"] != started["job_id"]
    news = await end_of(client, view["job_id"])
    assert news["status"] == "completed", news
    assert [step for step, _ in news["train"]] == sorted({step for step, _ in news["train"]})
    assert news["train"][0][0] == 1, "the curve is whole, from the first run on"
    kept = list((project / "adapters/test/previous").glob("*/adapters.safetensors"))
    assert [file.read_bytes() for file in kept] == [first]
    assert (project / "adapters/test/adapters.safetensors").read_bytes() != first


def test_continuation_never_takes_the_place_of_another_runs_adapter_unasked(project: Path):
    """A paused run has published nothing, so the name of its adapter is free and another run may have taken it since."""
    paused = run(**training(iters=400, steps_per_report=1, val_batches=0))
    while exactness.steps(paused) < 4:
        assert not paused.state().finished
    service.ask_to_stop(paused, "pause")
    assert finish(paused) == "paused"
    checkpoint = paused.last_checkpoint()
    assert checkpoint is not None
    other = run(**training(iters=2, val_batches=0, seed=9))
    assert finish(other) == "completed", other.state().why
    dear = weights(other)
    longer = {"resume": paused.job_id, "iters": int(checkpoint.name) + 2}
    with pytest.raises(PathError, match=f"holds the adapter of {other.job_id} by now"):
        run(**longer)
    assert weights(other) == dear
    first = run(**longer, overwrite=True)
    assert finish(first) == "completed", first.state().why
    assert [file.read_bytes() for file in (project / "adapters/test/previous").glob("*/adapters.safetensors")] == [dear]
    again = run(**longer)
    assert finish(again) == "completed", "what a continuation published is the run's own"


@pytest.mark.anyio
async def test_continue_that_is_asked_for_twice_trains_once(client: Client, project: Path):
    """Two sessions do so, and so does a client that calls again when an answer took long."""
    started = await call(client, "start_lora_training", **training(iters=4000, steps_per_report=1, val_batches=0))
    await call(client, "read_training_log", job_id=started["job_id"], wait_seconds=60, until="any")
    await call(client, "stop_job", job_id=started["job_id"], action="pause")
    going = await call(client, "stop_job", job_id=started["job_id"], action="continue")
    text = await refusal(client, "stop_job", job_id=started["job_id"], action="continue")
    assert f"job {going['job_id']}, which is " in text and "already makes" in text
    assert len((await call(client, "list_jobs"))["jobs"]) == 2
    await call(client, "stop_job", job_id=going["job_id"], action="kill")


def test_more_iterations_may_be_added_to_a_finished_run(project: Path):
    chosen = options("lora", "adam", lr_schedule=None, warmup=0, iters=8)
    short = run(**chosen, adapter_path="adapters/short")
    finish(short)
    longer = run(resume=short.job_id, iters=16)
    assert finish(longer) == "completed", longer.state().why
    whole = run(**chosen | {"iters": 16}, adapter_path="adapters/whole")
    finish(whole)
    assert weights(longer) == weights(whole)


def test_named_schedule_of_a_resumed_run_follows_its_new_rate_and_length(project: Path):
    chosen = options("lora", "adam", iters=8, grad_accumulation_steps=1, steps_per_report=1)
    first = run(**chosen, adapter_path="adapters/first")
    assert finish(first) == "completed", first.state().why
    longer = run(resume=first.job_id, iters=16, learning_rate=5e-4, warmup=0)
    assert finish(longer) == "completed", longer.state().why
    reported = {e["step"]: e["learning_rate"] for e in read_since(longer.metrics, 0).events if e["type"] == "train"}
    expected = {step: 5e-4 * (1 + math.cos(math.pi * (step - 1) / 16)) / 2 for step in range(9, 17)}
    assert {step: reported[step] for step in expected} == pytest.approx(expected, rel=1e-4)


def test_run_that_could_not_publish_goes_on_from_the_path_that_its_message_names(project: Path):
    chosen = options("lora", "adam", iters=8)
    first = run(**chosen, adapter_path="adapters/first")
    assert finish(first) == "completed", first.state().why
    whole = weights(first)
    (project / "adapters/first/adapters.safetensors").unlink()
    last = first.last_checkpoint()
    assert last is not None and last.name == "0000008"
    with pytest.raises(ArgumentError, match="larger iters"):
        run(resume=str(last))
    first.write_state(first.state().model_copy(update={"status": "failed"}))
    again = run(resume=str(last))
    assert finish(again) == "completed", again.state().why
    assert weights(again) == whole


def test_run_that_ended_amid_an_update_is_resumed_and_saved_at_whole_updates(project: Path):
    """Ten steps are two updates of four and a rest; from there on the trainer counts anew."""
    chosen = options("lora", "adam", lr_schedule=None, warmup=0, iters=10, grad_accumulation_steps=4, save_every=2)
    first = run(**chosen, adapter_path="adapters/first")
    assert finish(first) == "completed", first.state().why
    longer = run(resume=first.job_id, iters=22, save_total_limit=9, adapter_path="adapters/longer")
    assert finish(longer) == "completed", longer.state().why
    saved = sorted(path.name for path in longer.checkpoints.glob("0*"))
    assert saved == ["0000014", "0000018", "0000022"]
    raised = [event for event in read_since(longer.metrics, 0).events if event["type"] == "alert"]
    assert [(e["kind"], e["step"]) for e in raised] == [("half-update", 10)] and "of the 2 steps" in raised[0][
        "message"
    ]
    again = run(resume=str(longer.checkpoints / saved[0]), adapter_path="adapters/again")
    assert finish(again) == "completed", again.state().why
    assert not [event for event in read_since(again.metrics, 0).events if event["type"] == "alert"]
    assert losses(again) == losses(longer)
    assert weights(again) == weights(longer)


def test_speed_of_a_resumed_run_is_that_of_the_steps_it_did(project: Path):
    first = run(**training(iters=150, save_every=150, val_batches=0))
    assert finish(first) == "completed", first.state().why
    longer = run(resume=first.job_id, iters=152, adapter_path="adapters/longer")
    assert finish(longer) == "completed", longer.state().why
    outcome = longer.outcome()
    assert outcome is not None and outcome.result is not None
    reported = [event for event in read_since(longer.metrics, 0).events if event["type"] == "train"][-2:]
    tokens = reported[1]["trained_tokens"] - reported[0]["trained_tokens"]
    listed = next(one for one in list_adapters(AdapterRequest()).adapters if one.path == "adapters/longer")
    speed, seconds = listed.tokens_per_second, outcome.result["seconds"]  # rounded to a tenth
    assert speed is not None
    assert speed * (seconds - 0.06) <= tokens <= speed * (seconds + 0.06)


def test_best_weights_and_the_patience_of_a_run_outlive_its_resume(project: Path):
    """A rate too small to gain anything, then one that ruins the weights: the best is that of the first run."""
    chosen = options(
        "lora", "adam", lr_schedule=None, warmup=0, iters=12, learning_rate=1e-9, save_every=3, steps_per_eval=4,
        val_batches=-1, early_stopping_patience=4, early_stopping_threshold=0.01,
    )  # fmt: skip
    first = run(**chosen, adapter_path="adapters/first")
    assert finish(first) == "completed", first.state().why
    saved = [event["step"] for event in read_since(first.metrics, 0).events if event["type"] == "checkpoint"]
    assert saved == [4, 6, 10, 12], "every third step, at the end of the update that it falls into"
    assert sorted(path.name for path in first.checkpoints.glob("0*")) == ["0000006", "0000010", "0000012"]
    again = run(resume=first.job_id, iters=40, learning_rate=0.3)
    assert finish(again) == "completed", again.state().why
    outcomes = [outcome.result or {} for job in (first, again) if (outcome := job.outcome())]
    rates = [event["learning_rate"] for event in read_since(again.metrics, 0).events if event["type"] == "train"]
    assert rates[0] == pytest.approx(1e-9) and rates[-1] == pytest.approx(0.3)
    assert [result["steps"] for result in outcomes] == [12, 19], "two validations without gain before, two after"
    assert outcomes[1]["stopped_early"]
    assert outcomes[1]["best_val_step"] == outcomes[1]["weights_of_step"] == outcomes[0]["best_val_step"]
    best = next(first.checkpoints.glob("best-*/adapters.safetensors"))
    assert weights(again) == best.read_bytes()


def test_resume_from_a_checkpoint_folder_that_was_moved(project: Path, tmp_path: Path):
    chosen = options("lora", "adam", iters=8)
    first = run(**chosen, adapter_path="adapters/first")
    finish(first)
    shutil.copytree(first.checkpoints / "0000004", tmp_path / "taken-away")
    again = run(resume=str(tmp_path / "taken-away"), adapter_path="adapters/again")
    assert finish(again) == "completed", again.state().why
    assert weights(again) == weights(first)


def test_run_that_fails_after_a_moved_checkpoint_goes_back_to_it_and_says_why(project: Path, tmp_path: Path):
    chosen = options("lora", "sgd", lr_schedule=None, warmup=0, iters=4, val_batches=0)
    first = run(**chosen, adapter_path="adapters/first")
    finish(first)
    shutil.copytree(first.checkpoints / "0000004", tmp_path / "good-one")
    again = run(
        resume=str(tmp_path / "good-one"), iters=40, learning_rate=1e38, save_every=99, adapter_path="adapters/again"
    )
    assert finish(again) == "failed"
    assert "good-one; halve learning_rate" in (again.state().why or "")
    assert weights(again) == weights(first)
    record = json.loads((project / "adapters/again/provenance.json").read_text(encoding="utf-8"))
    assert record["results"]["weights_of_step"] == 4


def test_recovery_from_out_of_memory_outlives_a_resume(project: Path):
    first = run(**options("lora", "adam", iters=8), adapter_path="adapters/first")
    finish(first)
    recovery.write(first, Recovery(splits=2, rungs=["batch_size 2 in 2 parts of 1"]))
    started = start_training(TrainingRequest(resume=first.job_id, iters=12))
    assert any("goes on as that one did: batch_size 2 in 2 parts" in warning for warning in started.warnings)
    again = exactness.store.get(started.job_id)
    assert finish(again) == "completed", again.state().why
    outcome = again.outcome()
    assert outcome is not None and outcome.result is not None
    assert outcome.result["recovered"] == ["batch_size 2 in 2 parts of 1"]


def test_changes_that_break_exactness_are_named_and_impossible_ones_refused(project: Path):
    first = run(**options("lora", "adam", iters=8), adapter_path="adapters/first")
    finish(first)
    started = start_training(TrainingRequest(resume=first.job_id, iters=16, learning_rate=5e-4, batch_size=4))
    assert [w.split()[0] for w in started.warnings[:3]] == ["batch_size", "learning_rate", "lr_schedule"]
    assert finish(exactness.store.get(started.job_id)) == "completed"
    for change, word in (
        ({"optimizer": "sgd"}, "optimizer"),
        ({"num_layers": 1}, "num_layers"),
        ({"lora_parameters": {"rank": 16}}, "lora_parameters"),
        ({"iters": 8}, "larger iters"),
    ):
        with pytest.raises(ArgumentError, match=word):
            resolve(TrainingRequest.model_validate({"resume": first.job_id, "iters": 16} | change))
    with pytest.raises(JobError, match="list_jobs"):
        resolve(TrainingRequest(resume="train-none"))
    with pytest.raises(PathError, match=r"no checkpoint\.json"):
        resolve(TrainingRequest(resume="data"))


def test_changed_data_is_named_when_a_run_goes_on(project: Path):
    first = run(**options("lora", "adam", iters=8), adapter_path="adapters/first")
    finish(first)
    lines = (project / "data/train.jsonl").read_text(encoding="utf-8").splitlines()
    (project / "data/train.jsonl").write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    started = start_training(TrainingRequest(resume=first.job_id, iters=12))
    assert any("changed since the checkpoint" in warning for warning in started.warnings)
    assert finish(exactness.store.get(started.job_id)) == "completed"


def test_kill_in_the_middle_of_saving_leaves_only_whole_checkpoints(project: Path):
    chosen = options("lora", "adam", iters=400, grad_accumulation_steps=1, save_every=1, val_batches=0)
    job = run(**chosen, adapter_path="adapters/saving")
    assert kill_after(job, 12, delay=0.05, runner_too=True)
    finish(job)
    found = sorted(path for path in job.checkpoints.iterdir() if not path.name.startswith("."))
    assert found
    for path in found:
        assert json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))["step"] == int(path.name)
        assert (path / "adapters.safetensors").stat().st_size > 0
        assert (path / "optimizer.safetensors").stat().st_size > 0
    assert len(found) <= 4, "old checkpoints are pruned"
