"""Every kind of fine-tuning with every optimizer, killed at random points and resumed: bit for bit the uninterrupted run.

And power cuts: everything killed at random points, many times over; nothing is lost but the steps since the last checkpoint.
``make kills`` runs this; tests/integration/test_resume.py is its short form. Figures go to stdout (``pytest -s``).
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from mcp_server.jobs import lock
from tests.exactness import (
    FINE_TUNE_TYPES,
    OPTIMIZERS,
    finish,
    kill_after,
    losses,
    options,
    run,
    run_with_kills,
    steps,
    weights,
)
from tests.helpers import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
POWER_CUTS = int(os.environ.get("MLX_TRAINING_POWER_CUTS", "100"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("fine_tune_type", FINE_TUNE_TYPES)
def test_bit_exact(fine_tune_type: str, optimizer: str, project: Path, capsys: pytest.CaptureFixture[str]):
    chosen = options(fine_tune_type, optimizer)
    whole = run(**chosen, adapter_path="adapters/whole")
    assert finish(whole) == "completed", whole.state().why
    seed = random.Random(f"{fine_tune_type} {optimizer}").randrange(10**6)
    resumed, hits, resumes = run_with_kills(chosen, "killed", kills=5, seed=seed)
    difference = max(abs(a[2] - b[2]) for a, b in zip(losses(resumed), losses(whole), strict=True))
    with capsys.disabled():
        print(f"\n{fine_tune_type} {optimizer}: {hits} kills, {resumes} resumes, largest loss difference {difference}")
    assert losses(resumed) == losses(whole)
    assert weights(resumed) == weights(whole)
    assert resumes >= 3


def test_nothing_is_lost_in_power_cuts(project: Path, home: Path, capsys: pytest.CaptureFixture[str]):
    """Runner and worker die together at random points, also in the middle of a save (there is one every second step)."""
    dice = random.Random(1)
    chosen = options("lora", "adam", iters=100_000, save_every=2, steps_per_report=1, val_batches=0, lr_schedule=None)
    chosen |= {"warmup": 0, "save_total_limit": 2}
    job = run(**chosen, adapter_path="adapters/power")
    repeated: list[int] = []
    for _ in range(POWER_CUTS):
        start = steps(job)
        assert kill_after(job, start + dice.randint(1, 12), delay=dice.uniform(0, 0.12), runner_too=True)
        assert finish(job) == "lost"
        # A killed process of many threads lets go of its files when the last of them has gone, moments after it is dead.
        wait_until(lambda: lock.read_holder(str(home / "gpu.lock")) is None, "the lock to be free", seconds=5)
        reached, last = steps(job), job.last_checkpoint()
        for folder in job.checkpoints.glob("[0-9]*"):
            for name in ("adapters.safetensors", "optimizer.safetensors"):
                assert load_file(folder / name), f"{folder / name} does not load"
            assert json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))["step"] == int(folder.name)
        if last is None:
            job = run(**chosen | {"adapter_path": "adapters/power", "overwrite": True})
            continue
        repeated.append(reached - int(last.name))
        assert repeated[-1] <= 2 + 1, "at most the steps since the last checkpoint, and the one under way"
        job = run(resume=job.job_id)
    kill_after(job, steps(job), delay=0, runner_too=True)
    with capsys.disabled():
        print(f"\n{POWER_CUTS} power cuts: {len(repeated)} resumes, steps repeated at most {max(repeated)}")
