"""The best weights that are published are those that the records name, whatever the disk and a resume leave of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.nn as nn
import pytest

from mcp_server.jobs.events import read_since
from mcp_server.jobs.store import JobFolder
from mcp_server.workers import checkpoints
from tests.exactness import finish, options, run, weights

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

# Each validation is better than the one before: after steps 3, 7 and 11.
GAINING = options(
    "lora", "adam", lr_schedule=None, warmup=0, iters=12, save_every=4, steps_per_eval=4, val_batches=-1,
    load_best_model_at_end=True, grad_accumulation_steps=1,
)  # fmt: skip


def result(job: JobFolder) -> dict[str, Any]:
    outcome = job.outcome()
    assert outcome is not None and outcome.result is not None
    return outcome.result


def alerts(job: JobFolder, kind: str) -> list[str]:
    return [e["message"] for e in read_since(job.metrics, 0).events if e["type"] == "alert" and e["kind"] == kind]


def test_best_that_the_disk_did_not_take_is_not_named_as_what_is_published(project: Path):
    job = run(**GAINING)
    job.checkpoints.mkdir(exist_ok=True)
    for step in (7, 11):  # the name is a file's: no folder can be put there
        (job.checkpoints / f"best-{step:07d}").touch()
    assert finish(job) == "completed", job.state().why
    found = result(job)
    assert (found["best_val_step"], found["weights_of_step"]) == (11, 3)
    assert weights(job) == (job.checkpoints / "best-0000003/adapters.safetensors").read_bytes()
    record = json.loads((Path(found["adapter_path"]) / "provenance.json").read_text(encoding="utf-8"))
    assert record["results"]["weights_of_step"] == 3
    assert len(alerts(job, "checkpoint-failed")) == 2
    assert alerts(job, "best-lost") == [
        "the best weights, of step 11, could not be kept: published are those of step 3"
    ]


def test_best_that_was_not_beside_the_checkpoint_is_not_named_as_what_is_published(project: Path, tmp_path: Path):
    first = run(**GAINING)
    assert finish(first) == "completed", first.state().why
    shutil.copytree(first.checkpoints / "0000008", tmp_path / "taken-away")
    again = run(resume=str(tmp_path / "taken-away"), learning_rate=0.3, iters=10, adapter_path="adapters/ruined")
    assert finish(again) == "completed", again.state().why
    assert (result(again)["best_val_step"], result(again)["weights_of_step"]) == (7, 9)
    assert weights(again) == (again.checkpoints / "best-0000009/adapters.safetensors").read_bytes()
    assert "of step 7, could not be kept: published are those of step 9" in alerts(again, "best-lost")[0]


def test_best_of_a_later_step_goes_when_a_run_goes_on_from_before_it(tmp_path: Path):
    """After an out-of-memory rows may be cut: what was best then need not come again."""
    checkpoints.save_best(tmp_path, 400, 0.5, nn.Linear(2, 2), {})
    checkpoints.carry_best(tmp_path, tmp_path, 200, 300)
    assert checkpoints.best(tmp_path) is None
    assert checkpoints.beats_best(tmp_path, 0.9)
