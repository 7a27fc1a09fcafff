"""One training in several processes: the same losses, the same end, nothing left behind."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.numpy import load_file

from mcp_server.jobs import lock, service
from mcp_server.jobs.store import JobFolder
from mcp_server.planning.plan import PlanRequest, draft
from mcp_server.planning.plan import finish as finish_plan
from mcp_server.settings import home
from tests.exactness import finish, losses, options, run, steps, weights
from tests.helpers import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WORDS = "a red cat sat by the long river and saw how the old moon rose over quiet hills"


def uneven_data(folder: Path, rows: int = 40) -> None:
    """Rows of text of very unequal length, so that ranks have unequal numbers of tokens."""
    dice = random.Random(5)
    folder.mkdir(parents=True)
    for name, count in (("train", rows), ("valid", 8)):
        lines = [
            {"text": " ".join(dice.choices(WORDS.split(), k=dice.choice((2, 3, 6, 12, 30))))} for _ in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def two(**changes: Any) -> dict[str, Any]:
    """A training by two ranks over the ring, dropout included."""
    return options("lora", "adam") | {"num_processes": 2, "backend": "ring"} | changes


def processes(job: JobFolder) -> list[psutil.Process]:
    """The process that watches the ranks, and the ranks in order."""
    worker = job.state().worker
    assert worker is not None
    watcher = psutil.Process(worker.pid)
    # Rank 0 has the job's folder as its last argument, the other "-".
    return [watcher, *sorted(watcher.children(), key=lambda child: child.cmdline()[-1] == "-")]


def gone(found: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in found)


def test_two_ranks_have_the_losses_and_weights_of_one_on_rows_of_unequal_length(project: Path):
    uneven_data(project / "uneven")
    chosen = options(
        "lora",
        "adam",
        data="uneven",
        mask_prompt=False,
        batch_size=4,
        max_seq_length=128,
        steps_per_report=1,
        lora_parameters={"rank": 4, "scale": 10.0, "dropout": 0.0},
    )
    one = run(**chosen, adapter_path="adapters/one")
    assert finish(one) == "completed", one.state().why
    pair = run(**chosen, num_processes=2, backend="ring", adapter_path="adapters/pair")
    assert service.view(pair).ranks == 2
    assert finish(pair) == "completed", pair.state().why
    expected, seen = losses(one), losses(pair)
    assert [(kind, step) for kind, step, _ in seen] == [(kind, step) for kind, step, _ in expected]
    assert len([kind for kind, _, _ in seen if kind == "train"]) == 24
    differences = [abs(a - b) for (_, _, a), (_, _, b) in zip(seen, expected, strict=True)]
    assert max(differences) < 1e-5
    final, other = (load_file(Path(job.spec().options["adapter_path"]) / "adapters.safetensors") for job in (one, pair))
    assert final.keys() == other.keys()
    assert max(float(abs(final[name] - other[name]).max()) for name in final) < 1e-5


def test_mlx_lms_own_plain_average_would_not_have_them(project: Path):
    """What the weighting is for: mlx-lm averages means over unequal numbers of tokens."""
    uneven_data(project / "uneven")
    chosen = options("lora", "adam", data="uneven", mask_prompt=False, batch_size=4, max_seq_length=128, iters=8)
    one = run(**chosen, stock=True, adapter_path="adapters/one")
    pair = run(**chosen, stock=True, num_processes=2, backend="ring", adapter_path="adapters/pair")
    assert finish(one) == finish(pair) == "completed"
    assert max(abs(a - b) for (_, _, a), (_, _, b) in zip(losses(pair), losses(one), strict=True)) > 1e-3


def test_killed_rank_is_a_failed_job_with_the_reason_and_the_resume_is_exact(project: Path):
    whole = run(**two(), adapter_path="adapters/whole")
    assert finish(whole) == "completed", whole.state().why
    job = run(**two(), adapter_path="adapters/killed")
    wait_until(lambda: steps(job) >= 9, "nine steps")
    found = processes(job)
    assert len(found) == 3
    found[2].kill()
    assert finish(job, 20) == "failed"
    why = job.state().why or ""
    assert "rank 1 was killed by SIGKILL" in why, why
    assert str(job.last_checkpoint()) in why
    wait_until(lambda: gone(found), "all ranks to be gone", seconds=10)
    assert not list(job.path.glob("rank-?")), "copies of rank 0's checkpoints are gone too"
    wait_until(lambda: lock.read_holder(str(home() / "gpu.lock")) is None, "the lock to be free", seconds=5)
    again = run(resume=job.job_id)
    assert again.spec().world is not None
    assert finish(again) == "completed", again.state().why
    assert losses(again) == losses(whole)
    assert weights(again) == weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["watcher", "rank 0", "runner and watcher"])
def test_whoever_is_killed_no_rank_is_left_and_the_machine_is_free(victim: str, project: Path):
    job = run(**two(iters=4000, val_batches=0), adapter_path="adapters/test")
    wait_until(lambda: steps(job) >= 6, "six steps")
    found = processes(job)
    runner = job.state().runner
    assert runner is not None
    if victim.startswith("runner"):
        psutil.Process(runner.pid).kill()
    found[1 if victim == "rank 0" else 0].kill()
    wait_until(lambda: gone(found), "all ranks to be gone", seconds=20)
    assert finish(job, 20) == ("lost" if victim.startswith("runner") else "failed")
    wait_until(lambda: lock.read_holder(str(home() / "gpu.lock")) is None, "the lock to be free", seconds=5)
    if victim == "rank 0":
        assert "rank 0 was killed by SIGKILL" in (job.state().why or "")


def test_pause_and_continue_of_two_ranks_equals_the_uninterrupted_run(project: Path):
    whole = run(**two(), adapter_path="adapters/whole")
    paused = run(**two(steps_per_report=1), adapter_path="adapters/paused")
    wait_until(lambda: steps(paused) >= 5, "five steps")
    service.ask_to_stop(paused, "pause")
    assert finish(paused) == "paused", paused.state().why
    assert not (project / "adapters/paused/adapters.safetensors").exists()
    last = run(resume=paused.job_id)
    assert finish(whole) == finish(last) == "completed", last.state().why
    assert weights(last) == weights(whole)


@pytest.mark.slow
def test_stopped_ranks_end_together_and_leave_the_adapter_of_their_last_step(project: Path):
    job = run(**two(iters=4000, val_batches=0), adapter_path="adapters/test")
    wait_until(lambda: steps(job) >= 6, "six steps")
    found = processes(job)
    service.ask_to_stop(job, "stop")
    assert finish(job) == "cancelled"
    assert "the adapter of that step" in (job.state().why or "")
    assert (project / "adapters/test/adapters.safetensors").exists()
    assert gone(found)


def test_best_checkpoint_test_loss_and_early_stop_are_decided_alike_by_all_ranks(project: Path):
    chosen = two(iters=200, steps_per_eval=2, early_stopping_patience=2, learning_rate=0.05, test=True, test_batches=2)
    job = run(**chosen, adapter_path="adapters/test")
    assert finish(job) == "completed", job.state().why
    outcome = job.outcome()
    assert outcome is not None and outcome.result is not None
    assert outcome.result["stopped_early"]
    assert outcome.result["weights_of_step"] == outcome.result["best_val_step"] < outcome.result["steps"]
    assert outcome.result["test_loss"] > 0
    assert outcome.result["ranks"] == 2


@pytest.mark.slow
def test_stop_before_the_first_step_leaves_nothing(project: Path):
    job = run(**two(), adapter_path="adapters/test")
    found = wait_until(lambda: job.state().worker and len(processes(job)) == 3 and processes(job), "both ranks")
    service.ask_to_stop(job, "stop")
    assert finish(job) == "cancelled", job.state().why
    assert gone(found)
    assert not (project / "adapters/test").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fine_tune_type", ["lora", "full"])
def test_all_ranks_begin_with_the_weights_that_rank_0_was_given(fine_tune_type: str, project: Path):
    """Learning nothing, the result is the start; the others' copy of it shows in the loss, which is of all ranks."""
    chosen = options(fine_tune_type, "sgd", iters=4, lr_schedule=None, warmup=0, steps_per_report=1)
    first = run(**chosen | {"learning_rate": 0.05}, adapter_path="adapters/first")
    assert finish(first) == "completed", first.state().why
    plain = {"rank": 4, "scale": 10.0, "dropout": 0.0}
    again = chosen | {"resume_adapter_file": "adapters/first", "learning_rate": 1e-30, "lora_parameters": plain}
    one = run(**again, adapter_path="adapters/one")
    pair = run(**again, num_processes=2, backend="ring", adapter_path="adapters/pair")
    assert finish(one) == finish(pair) == "completed", pair.state().why
    assert max(abs(a - b) for (_, _, a), (_, _, b) in zip(losses(pair), losses(one), strict=True)) < 1e-5


def test_plan_for_two_ranks_can_be_started_as_it_is(project: Path):
    plan = finish_plan(draft(PlanRequest(model="model", data="data", goal="fast", num_processes=2)))
    assert plan.arguments is not None
    assert plan.arguments["num_processes"] == 2
    assert plan.arguments["batch_size"] % 2 == 0
    assert "on each of 2 ranks" in plan.summary
    job = run(**plan.arguments | {"iters": 2, "lr_schedule": None, "warmup": 0})
    assert finish(job) == "completed", job.state().why


def test_loss_that_is_no_number_ends_all_ranks_with_the_last_good_weights(project: Path):
    chosen = two(lr_schedule="3:1e-3,397:1e38", warmup=0, iters=400, optimizer="sgd", grad_accumulation_steps=1)
    job = run(**chosen | {"save_every": 1, "val_batches": 0}, adapter_path="adapters/test")
    found = wait_until(lambda: job.state().worker and len(processes(job)) == 3 and processes(job), "both ranks")
    assert finish(job) == "failed"
    why, good = job.state().why or "", job.last_checkpoint()
    assert good is not None
    assert f"back at the last good checkpoint, {good}" in why, why
    assert weights(job) == (good / "adapters.safetensors").read_bytes()
    assert gone(found)


def test_one_process_is_no_distributed_run_whatever_the_environment_says(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    # What `mlx.launch -n 1` of 0.32 sets, on which mlx itself then fails.
    (project / "empty").write_text("\n")
    monkeypatch.setenv("MLX_RANK", "0")
    monkeypatch.setenv("MLX_HOSTFILE", str(project / "empty"))
    job = run(**options("lora", "adam", num_processes=1, iters=4), adapter_path="adapters/test")
    assert job.spec().world is None
    assert finish(job) == "completed", job.state().why
