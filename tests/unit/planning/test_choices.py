"""The recipe, the ladder, row lengths, rough times, and the budget of a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest

from mcp_server.demo import BASE
from mcp_server.errors import DataError
from mcp_server.jobs import lock
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.store import JobState
from mcp_server.models.shape import from_config
from mcp_server.planning import budget as budgets
from mcp_server.planning import recipe, rows, time
from mcp_server.planning.budget import TIGHT, Budget
from mcp_server.planning.check import Expectation, judge
from mcp_server.planning.ladder import fits, shrink, smallest_harm
from mcp_server.planning.rows import RowLengths
from mcp_server.platform import memory as machine_memory
from mcp_server.training.options import TrainingOptions
from tests import shapes
from tests.recorded import make_job

SHAPE = from_config(shapes.CONFIGS["llama-3.2-1b"])


def lengths(count: int = 5000, longest: int = 900, **changes: Any) -> RowLengths:
    plain: dict[str, Any] = {
        "rows": count,
        "valid_rows": 100,
        "test_rows": 0,
        "format": "chat",
        "longest": longest,
        "p50": 200,
        "p90": 400,
        "p99": 600,
        "mean": 230.0,
        "counted_by": "the model's tokenizer",
    }
    return RowLengths.model_validate(plain | changes)


def budget(gigabytes: float, free: float | None = None) -> Budget:
    size = int(gigabytes * 1e9)
    return Budget(
        backend="apple-silicon",
        chip="Apple M3 Max",
        total=size,
        limit=size,
        limit_from="the test",
        free=int((free if free is not None else gigabytes) * 1e9),
        facts={"gpu_cores": 40},
    )


def expected(gigabytes: float, free: float | None = None, **changes: Any) -> Expectation:
    chosen = {"model": "m", "data": "d", "batch_size": 4, "num_layers": 16, "iters": 100} | changes
    return Expectation(SHAPE, TrainingOptions.model_validate(chosen), 928, budget(gigabytes, free))


def written(count: int, goal: recipe.Goal = "good", **changes: Any) -> recipe.Recipe:
    arguments: dict[str, Any] = {"fine_tune_type": "lora", "max_seq_length": None, "longest_context": 32768} | changes
    found = arguments.pop("lengths", None) or lengths(count)
    return recipe.write(model="m", data="d", shape=SHAPE, lengths=found, goal=goal, **arguments)


@pytest.mark.parametrize(
    ("count", "goal", "batch", "rate", "layers", "iters"),
    [
        (300, "fast", 1, 2e-5, 4, 200),
        (300, "good", 1, 2e-5, 6, 500),
        (300, "best", 1, 2e-5, 8, 500),
        (5_000, "fast", 2, 1e-5, 8, 500),
        (5_000, "best", 4, 1e-5, 16, 1000),
        (50_000, "good", 6, 5e-6, 16, 2000),
        (50_000, "best", 8, 5e-6, 16, 2000),
    ],
)
def test_recipe_follows_the_seeds_table(
    count: int, goal: recipe.Goal, batch: int, rate: float, layers: int, iters: int
):
    options = written(count, goal).options
    assert (options.batch_size, options.learning_rate) == (batch, rate)
    assert (options.num_layers, options.iters) == (layers, iters)


def test_recipe_fits_itself_to_the_data():
    few = written(6000, lengths=lengths(6000, valid_rows=2)).options
    assert few.batch_size == written(6000).options.batch_size > 2, "a small valid.jsonl is one small batch"
    assert few.val_batches == 1
    none = written(6000, lengths=lengths(6000, valid_rows=0))
    assert none.options.val_batches == 0
    assert "prepare_dataset" in none.reasons["val_batches"]
    text = written(300, lengths=lengths(300, format="text")).options
    assert text.mask_prompt is False
    assert written(300).options.max_seq_length == 929
    assert written(300, lengths=lengths(300, 50_000)).options.max_seq_length == 4097
    assert written(300, longest_context=512).options.max_seq_length == 512
    assert written(300, fine_tune_type="full").options.learning_rate == 1e-5


def test_ladder_gives_up_what_harms_least_first():
    roomy = expected(400, stock=True)
    assert shrink(roomy, lengths()) is not None
    whole = roomy.peak / 1e9
    found = [shrink(expected(whole * share, stock=True), lengths()) for share in (2.0, 0.9, 0.3, 0.18)]
    given_up = [set(step.changes) if step is not None else None for step in found]
    batch = {"grad_checkpoint", "batch_size", "grad_accumulation_steps", "iters", "val_batches"}
    assert given_up[:3] == [set(), {"grad_checkpoint"}, batch]
    assert given_up[3] is not None
    assert batch | {"max_seq_length"} <= given_up[3]


def test_smaller_batches_keep_the_update_and_the_rows_seen():
    whole = expected(400, stock=True).peak / 1e9
    found = shrink(expected(0.3 * whole, stock=True), lengths())
    assert found is not None
    options = found.expected.options
    assert options.batch_size < 4
    assert options.batch_size * options.grad_accumulation_steps == 4
    assert options.batch_size * options.iters == 400


@pytest.mark.parametrize(("wanted", "rows"), [(25, 100), (-1, -1), (0, 0)])
def test_smaller_batches_validate_on_as_many_rows(wanted: int, rows: int):
    whole = expected(400, stock=True).peak / 1e9
    found = shrink(expected(0.3 * whole, stock=True, val_batches=wanted), lengths())
    assert found is not None
    options = found.expected.options
    assert options.batch_size < 4
    assert (options.val_batches * options.batch_size if wanted > 0 else options.val_batches) == rows


def test_plan_fits_even_if_the_estimate_errs_as_far_as_it_has_been_seen_to():
    """Just below 85 % of the limit, but for a model that was never measured the error may be larger than the rest."""
    wanted = expected(400)
    wanted.error = 0.5
    wanted.budget = budget(wanted.peak / 1e9 / 0.84)
    assert wanted.peak < TIGHT * wanted.budget.limit
    assert wanted.high > wanted.budget.limit
    assert not fits(wanted) and fits(wanted, tight=True)
    wanted.error = 0.1
    assert fits(wanted)
    wanted.budget = budget(wanted.peak / 1e9 / 0.86)
    assert not fits(wanted)


def test_full_fine_tuning_cut_to_lora_learns_at_loras_rate():
    wanted = written(5000, fine_tune_type="full").options
    whole = Expectation(SHAPE, wanted, 928, budget(400)).peak / 1e9
    found = smallest_harm(Expectation(SHAPE, wanted, 928, budget(0.4 * whole)), lengths())
    assert found is not None
    options = found.expected.options
    assert (options.fine_tune_type, options.learning_rate) == ("lora", written(5000).options.learning_rate)


def test_ladder_says_when_nothing_fits():
    assert smallest_harm(expected(2.0), lengths()) is None
    least = min(step.expected.peak for size in (3.4, 3.6, 4.0) if (step := smallest_harm(expected(size), lengths())))
    barely = expected(1.02 * least / 1e9)
    assert shrink(barely, lengths()) is None
    found = smallest_harm(barely, lengths())
    assert found is not None
    assert judge(found.expected).verdict == "tight"


@pytest.mark.parametrize(
    ("gigabytes", "free", "verdict"), [(400, 400, "fits"), (400, 5, "not now"), (5, 5, "does not fit")]
)
def test_verdicts(gigabytes: float, free: float, verdict: str):
    assert judge(expected(gigabytes, free)).verdict == verdict


def test_rough_time_grows_with_the_work_and_shrinks_with_the_chip():
    def seconds(cores: int = 40, tokens: int = 512, **changes: Any) -> float:
        options = expected(64, **changes).options
        here = budget(64).model_copy(update={"facts": {"gpu_cores": cores}})
        found = time.rough_step_seconds(SHAPE, options, tokens, here)
        assert found is not None
        return found

    assert seconds(cores=80) == pytest.approx(seconds(cores=40) / 2)
    assert seconds(tokens=1024) > 1.9 * seconds(tokens=512)
    assert seconds(grad_checkpoint=True) > seconds()
    assert seconds(num_layers=4) < seconds(num_layers=16)
    unknown = budget(64).model_copy(update={"chip": "Apple Q7"})
    assert time.rough_step_seconds(SHAPE, expected(64).options, 512, unknown) is None


def test_row_lengths_by_the_models_tokenizer_and_without_it(tmp_path: Path):
    messages = [{"role": "user", "content": "How much is the lamp?"}, {"role": "assistant", "content": "42"}]
    long = [messages[0] | {"content": "How much is the lamp? " * 50}, messages[1]]
    lines = [json.dumps({"messages": messages})] * 99 + [json.dumps({"messages": long})]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n\n")
    counted = rows.read(tmp_path, BASE)
    assert (counted.rows, counted.valid_rows, counted.format) == (100, 0, "chat")
    assert counted.counted_by == "the model's tokenizer"
    assert counted.longest > 5 * counted.p50 > 0
    assert counted.p99 >= counted.p90 >= counted.p50
    guessed = rows.read(tmp_path, None)
    assert guessed.counted_by == "characters"
    assert guessed.longest == pytest.approx(counted.longest, rel=0.6)


def test_data_that_is_not_there_or_empty(tmp_path: Path):
    with pytest.raises(DataError, match="prepare_dataset"):
        rows.read(tmp_path, None)
    (tmp_path / "train.jsonl").write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        rows.read(tmp_path, None)


def test_rows_with_names_of_their_own_are_measured_and_those_of_no_format_refused(tmp_path: Path):
    row = {"q": "How much is the lamp?", "a": "42"}
    (tmp_path / "train.jsonl").write_text("\n" + json.dumps(row) + "\n")
    named = rows.read(tmp_path, BASE, {"q": "prompt", "a": "completion"})
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": row["q"], "completion": row["a"]}))
    assert (named.format, named.longest) == ("completions", rows.read(tmp_path, BASE).longest)
    (tmp_path / "train.jsonl").write_text("\n" + json.dumps(row))
    with pytest.raises(
        DataError, match=r"train.jsonl:2 has the keys a, q; .* prompt_feature .* prepare_dataset\(source='"
    ):
        rows.read(tmp_path, BASE)
    with pytest.raises(DataError, match="expected 'messages', or 'q' and 'completion', or 'text'"):
        rows.read(tmp_path, BASE, {"q": "prompt"})
    (tmp_path / "train.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"not valid JSON.*; correct it, or"):
        rows.read(tmp_path, BASE)


@pytest.mark.parametrize(
    ("told", "limit_gib", "source"),
    [
        ({}, 64 * 3 / 4, "usual share"),
        ({"working_set_bytes": 50 * 2**30}, 50, "recommended working set"),
        ({"working_set_bytes": 50 * 2**30, "wired_limit_bytes": 56 * 2**30}, 56, "wired_limit"),
        ({"memory_bytes": "?", "working_set_bytes": 50 * 2**30}, 50, "recommended"),
    ],
)
def test_limit_of_a_mac(
    told: dict[str, Any], limit_gib: float, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mac = {"system": "Darwin", "machine": "arm64", "chip": "Apple M3 Max", "memory_bytes": 64 * 2**30}
    (tmp_path / "facts.json").write_text(
        json.dumps(mac | {"translated": 0, "container": False, "macos": "26.1"} | told)
    )
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(tmp_path / "facts.json"))
    found = budgets.read("apple-silicon")
    assert found.limit == limit_gib * 2**30
    assert source in found.limit_from


def test_memory_of_our_own_running_job_will_be_free_when_the_next_ones_turn_comes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    facts = {"system": "Linux", "memory_bytes": 64 * 10**9, "available_bytes": 10**9}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(tmp_path / "facts.json"))
    assert budgets.read("linux-cpu").free == 10**9
    job = make_job(status="working")
    worker = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=PIPE, stdout=PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()
    job.write_state(JobState(status="working", worker=ProcessIdentity.of(worker.pid)))
    descriptor = lock.acquire(str(home / "gpu.lock"))
    assert descriptor is not None
    try:
        lock.write_holder(descriptor, {"job_id": job.job_id, "pid": worker.pid})
        own = psutil.Process(worker.pid).memory_info().rss
        assert budgets.read("linux-cpu").free == pytest.approx(10**9 + own, abs=own / 2)
    finally:
        os.close(descriptor)
        worker.kill()
        worker.wait()
    assert budgets.read("linux-cpu").free == 10**9


def test_on_cuda_our_own_jobs_memory_is_what_it_says_of_the_gpu(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    facts = {"system": "Linux", "memory_bytes": 64 * 10**9, "available_bytes": 60 * 10**9}
    facts |= {"gpu_memory_bytes": 80 * 10**9, "gpu_free_bytes": 0}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(tmp_path / "facts.json"))
    assert budgets.read("linux-cuda").free == 0
    job = make_job(status="working")
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=PIPE)
    job.write_state(JobState(status="working", worker=ProcessIdentity.of(worker.pid)))
    event = {
        "type": "memory",
        "step": 1,
        "active_bytes": 50 * 10**9,
        "peak_bytes": 60 * 10**9,
        "cache_bytes": 9 * 10**9,
    }
    job.metrics.write_text(json.dumps(event) + "\n")
    descriptor = lock.acquire(str(home / "gpu.lock"))
    assert descriptor is not None
    try:
        lock.write_holder(descriptor, {"job_id": job.job_id, "pid": worker.pid})
        assert budgets.read("linux-cuda").free == 59 * 10**9
    finally:
        os.close(descriptor)
        worker.kill()
        worker.wait()


def memory_events(held: list[int]) -> list[dict[str, Any]]:
    return [
        {"type": "memory", "step": 10 * number, "active_bytes": value, "cache_bytes": 0}
        for number, value in enumerate(held, start=1)
    ]


def test_trend_of_a_job():
    steady = machine_memory.trend(memory_events([5, *[10**9] * 9]), 10**10)
    assert steady is not None
    assert (steady.direction, steady.mb_per_100_steps) == ("steady", 0.0)
    growing = machine_memory.trend(memory_events([0, *[10**9 + number * 10**8 for number in range(10)]]), 3 * 10**9)
    assert growing is not None
    assert growing.direction == "growing"
    assert growing.mb_per_100_steps == pytest.approx(1000)
    assert growing.steps_until_full == 110
    assert machine_memory.trend(memory_events([1, 2, 3]), 10) is None
