"""One training in several processes: the same losses, the same end, nothing left behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.numpy import load_file

from mcp_server import launch
from mcp_server.jobs import hosts, lock, service
from mcp_server.jobs.store import JobFolder
from mcp_server.jobs.world import Host, World
from mcp_server.planning.plan import PlanRequest, draft
from mcp_server.planning.plan import finish as finish_plan
from mcp_server.settings import home
from tests.exactness import finish, losses, options, run, steps, weights
from tests.helpers import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WORDS = "a red cat sat by the long river and saw how the old moon rose over quiet hills"


def write_rows(folder: Path, **splits: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def uneven_data(folder: Path, rows: int = 40) -> None:
    """Rows of text of very unequal length, so that ranks have unequal numbers of tokens."""
    dice = random.Random(5)

    def some(count: int) -> list[dict[str, Any]]:
        return [{"text": " ".join(dice.choices(WORDS.split(), k=dice.choice((2, 3, 6, 12, 30))))} for _ in range(count)]

    write_rows(folder, train=some(rows), valid=some(8))


def uneven_chats(folder: Path) -> None:
    """Chats of one to three turns of unequal length. Of batches of four the epoch's last has one row: fewer than ranks."""
    dice = random.Random(7)

    def chat() -> dict[str, Any]:
        turns = [(role, dice.choice((1, 3, 12))) for _ in range(dice.randint(1, 3)) for role in ("user", "assistant")]
        return {
            "messages": [{"role": role, "content": " ".join(dice.choices(WORDS.split(), k=n))} for role, n in turns]
        }

    write_rows(folder, train=[chat() for _ in range(13)], valid=[chat() for _ in range(5)])


def everything(**changes: Any) -> dict[str, Any]:
    """All that changes a loss or an update, on ``uneven_chats``, in 32 bits and without dropout."""
    return (
        options(
            "lora",
            "adam",
            data="uneven",
            mask_prompt=False,
            assistant_only_loss=True,
            fused_loss=True,
            max_grad_norm=0.5,
            batch_size=4,
            max_seq_length=128,
            val_batches=-1,
            steps_per_report=1,
            lora_parameters={"rank": 4, "scale": 10.0, "dropout": 0.0},
        )
        | changes
    )


def trained(job: JobFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of a job that must have completed, and its adapter's weights."""
    assert finish(job) == "completed", job.state().why
    outcome = job.outcome()
    assert outcome is not None and outcome.result is not None
    return outcome.result, load_file(Path(job.spec().options["adapter_path"]) / "adapters.safetensors")


def largest_difference(job: JobFolder, other: JobFolder) -> float:
    """Of all reported losses, training and validation, which must be at the same steps."""
    left, right = losses(job), losses(other)
    assert [(kind, step) for kind, step, _ in left] == [(kind, step) for kind, step, _ in right]
    return max(abs(a - b) for (_, _, a), (_, _, b) in zip(left, right, strict=True))


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


PLAIN = {"assistant_only_loss": False, "fused_loss": False, "max_grad_norm": None}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="everything on"),
        pytest.param({"assistant_only_loss": False, "mask_prompt": True}, id="last answer", marks=pytest.mark.slow),
        pytest.param(PLAIN | {"length_bucketing": False}, id="stock's batches", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_have_the_losses_and_weights_of_one_on_rows_of_unequal_length(changes: dict[str, Any], project: Path):
    uneven_chats(project / "uneven")
    chosen = everything(**changes)
    one = run(**chosen, adapter_path="adapters/one")
    expected, weights_of_one = trained(one)
    pair = run(**chosen, num_processes=2, backend="ring", adapter_path="adapters/pair")
    assert service.view(pair).ranks == 2
    result, found = trained(pair)
    assert len([kind for kind, _, _ in losses(one) if kind == "train"]) == 24
    assert largest_difference(one, pair) < 1e-5
    assert found.keys() == weights_of_one.keys()
    assert max(float(abs(found[name] - weights_of_one[name]).max()) for name in found) < 1e-5
    # A row that stands in for one that is missing counts nowhere.
    assert result["trained_tokens"] == expected["trained_tokens"]
    wanted = "on" if chosen["fused_loss"] else "off"
    assert {run["measures"]["fused_loss"].partition(":")[0] for run in (result, expected)} == {wanted}


@pytest.mark.slow
def test_batch_in_parts_on_two_ranks_has_the_losses_of_one_rank(project: Path):
    """After an out-of-memory each rank takes a batch in two parts; of the small batch most parts have no row."""
    uneven_chats(project / "uneven")
    chosen = everything(iters=8)
    one = run(**chosen, adapter_path="adapters/one")
    trained(one)
    pair = run(**chosen, num_processes=2, backend="ring", adapter_path="adapters/pair")
    trained(pair)
    for file in ("state.json", "outcome.json", "exit.json", "metrics.jsonl"):
        (pair.path / file).unlink()
    shutil.rmtree(pair.checkpoints)
    (pair.path / "recovery.json").write_text(json.dumps({"splits": 2, "rungs": ["x"]}), encoding="utf-8")
    subprocess.run(launch.command(sys.executable, "mcp_server.jobs.ranks", str(pair.path)), check=True)
    assert largest_difference(one, pair) < 1e-5


_CHOOSE = """
import json, sys
from mcp_server.jobs.world import World
from mcp_server.workers.losses import masked_loss
from mcp_server.workers.proof import choose_loss
from mcp_server.workers.ranks import Ranks
from tests.unit.test_fused_loss import batch, make, options
ranks = Ranks.join(World.model_validate_json(sys.argv[1]))
found = []
for odd in (None, 1, 0):  # the rank that trains its head, which the fused loss can't serve
    keys = ["lm_head", "self_attn.q_proj"] if ranks.number == odd else ["self_attn.q_proj"]
    model = make("llama", tie=False, lora_parameters={"rank": 4, "scale": 1.0, "keys": keys})
    loss, why = choose_loss(model, options(), batch(), ranks)
    found.append(["stock" if loss is masked_loss else "fused", why])
print(json.dumps(found))
"""


def test_where_the_fused_loss_fails_its_proof_on_one_rank_both_take_stocks(tmp_path: Path):
    world = World(engine="ring", hosts=[Host(name="this machine", ips=["127.0.0.1"])] * 2)
    ports = hosts.check(world, sys.executable, "", "").ports
    started: list[subprocess.Popen[str]] = []
    for rank in range(2):
        variables, files = world.protocol(rank, ports)
        for name, text in files.items():
            (tmp_path / name).write_text(text)
            variables[name] = str(tmp_path / name)
        command = [sys.executable, "-c", _CHOOSE, world.model_dump_json()]
        started.append(subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True))
    first, second = (json.loads(process.communicate(timeout=100)[0]) for process in started)
    assert [[loss for loss, _ in told] for told in (first, second)] == [["fused", "stock", "stock"]] * 2
    assert first[1][1] == second[2][1] == "off: another rank can't use it"
    for own in (first[2][1], second[1][1]):
        assert "is trained, which is outside the layers" in own


def test_mlx_lms_own_plain_average_would_not_have_them(project: Path):
    """What the weighting is for: mlx-lm averages means over unequal numbers of tokens."""
    uneven_data(project / "uneven")
    chosen = options("lora", "adam", data="uneven", mask_prompt=False, batch_size=4, max_seq_length=128, iters=8)
    one = run(**chosen, stock=True, adapter_path="adapters/one")
    pair = run(**chosen, stock=True, num_processes=2, backend="ring", adapter_path="adapters/pair")
    assert finish(one) == finish(pair) == "completed"
    assert largest_difference(one, pair) > 1e-3


def test_killed_rank_is_a_failed_job_with_the_reason_and_the_resume_is_exact(project: Path):
    uneven_chats(project / "uneven")
    dropout = {"rank": 4, "scale": 10.0, "dropout": 0.1}
    chosen = two(**everything(lora_parameters=dropout, steps_per_report=3))
    whole = run(**chosen, adapter_path="adapters/whole")
    assert finish(whole) == "completed", whole.state().why
    job = run(**chosen, adapter_path="adapters/killed")
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


@pytest.mark.slow
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
    assert largest_difference(one, pair) < 1e-5


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
