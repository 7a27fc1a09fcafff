"""What a resumed run is given: its own options, changed as the call says, and nothing changed in silence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import ArgumentError, JobError, PathError
from mcp_server.jobs import recovery, store
from mcp_server.jobs.files import write_json
from mcp_server.jobs.recovery import Recovery
from mcp_server.jobs.store import JobFolder, JobSpec, JobState, Status
from mcp_server.training.options import TrainingOptions
from mcp_server.training.request import TrainingRequest, resolve, resolve_length
from mcp_server.training.start import start_training

COSINE: dict[str, Any] = {"lr_schedule": "cosine", "warmup": 0.1}
PHASES: dict[str, Any] = {"lr_schedule": "400:2e-5,400:1e-5"}
OWN: dict[str, Any] = {"lr_schedule": {"name": "cosine_decay", "arguments": [3e-4, 700]}}


def ended(
    project: Path, *, step: int = 400, status: Status = "failed", job_id: str = "train-before", **asked: Any
) -> JobFolder:
    """A job that ended at the checkpoint of ``step``, recorded as a start and a worker do it."""
    chosen: dict[str, Any] = {"iters": 800, "learning_rate": 1e-3} | asked
    options = resolve_length(TrainingOptions(model=str(project / "model"), data=str(project / "data"), **chosen), None)
    options = options.model_copy(update={"adapter_path": str(project / "adapters" / job_id)})
    record = options.model_dump(mode="json")
    job = store.create(
        JobSpec(job_id=job_id, kind="train", created=time.time(), project=str(project), python="python", options=record)
    )
    job.write_state(JobState(status=status))
    checkpoint = job.checkpoints / f"{step:07d}"
    checkpoint.mkdir(parents=True)
    write_json(checkpoint / "checkpoint.json", {"step": step, "options": record})
    return job


def resumed(job: JobFolder, **asked: Any) -> tuple[TrainingOptions, list[str]]:
    """The options that a start goes on with, and its warnings."""
    resolved = resolve(TrainingRequest.model_validate({"resume": job.job_id} | asked))
    assert resolved.earlier is not None
    options = resolve_length(resolved.options, None)
    resolved.earlier.check_length(options.iters)
    return options, [*resolved.warnings, *resolved.earlier.changes(options)]


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("warmup", [0, 0.1, 30])
@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "exponential", "step", None])
def test_unchanged_run_keeps_its_schedule_to_the_last_bit(
    name: str | None, warmup: float, accumulation: int, project: Path
):
    chosen: dict[str, Any] = {
        "lr_schedule": name,
        "warmup": warmup if name else 0,
        "grad_accumulation_steps": accumulation,
    }
    job = ended(project, **chosen)
    options, warnings = resumed(job)
    assert options.model_dump(mode="json") == job.spec().options
    assert warnings == []


@pytest.mark.parametrize("asked", [PHASES, OWN])
def test_unchanged_run_keeps_phases_and_a_form_of_its_own(asked: dict[str, Any], project: Path):
    job = ended(project, **asked)
    options, warnings = resumed(job)
    assert options.model_dump(mode="json") == job.spec().options
    assert warnings == []


def test_new_rate_and_length_give_a_named_schedule_anew(project: Path):
    job = ended(project, **COSINE)
    options, warnings = resumed(job, learning_rate=5e-4)
    assert options.lr_schedule == {"name": "cosine_decay", "arguments": [5e-4, 720], "warmup": 80}
    assert [warning.split()[0] for warning in warnings] == ["learning_rate", "lr_schedule"]
    options, warnings = resumed(job, iters=1600)
    assert options.lr_schedule == {"name": "cosine_decay", "arguments": [1e-3, 1520], "warmup": 80}
    assert [warning.split()[0] for warning in warnings] == ["lr_schedule"]


def test_warm_up_can_be_changed_and_another_schedule_asked_for(project: Path):
    job = ended(project, **COSINE)
    assert resumed(job, warmup=0)[0].lr_schedule == {"name": "cosine_decay", "arguments": [1e-3, 800]}
    assert resumed(job, lr_schedule="linear")[0].lr_schedule == {
        "name": "linear_schedule", "arguments": [1e-3, 0.0, 720], "warmup": 80,
    }  # fmt: skip
    assert resumed(job, lr_schedule=None)[0].lr_schedule is None
    options, _ = resumed(job, lr_schedule="400:1e-4,800:1e-5")
    assert (options.iters, options.learning_rate) == (1200, 1e-4)
    plain = ended(project, job_id="train-plain")
    assert resumed(plain, iters=1600, save_every=2)[1] == []
    assert resumed(plain, warmup=100)[0].lr_schedule == {
        "name": "linear_schedule", "arguments": [1e-3, 1e-3, 1], "warmup": 100,
    }  # fmt: skip


def test_schedule_that_is_named_again_is_not_called_changed(project: Path):
    assert resumed(ended(project, **COSINE), **COSINE)[1] == []
    assert resumed(ended(project, job_id="train-phases", **PHASES), **PHASES)[1] == []


@pytest.mark.parametrize("asked", [PHASES, OWN])
@pytest.mark.parametrize("change", [{"learning_rate": 5e-6}, {"warmup": 0.1}])
def test_rate_that_would_change_nothing_is_refused(asked: dict[str, Any], change: dict[str, Any], project: Path):
    job = ended(project, **asked)
    with pytest.raises(ArgumentError, match=r"would change nothing.*give lr_schedule too"):
        resumed(job, **change)


@pytest.mark.parametrize("change", [{"max_grad_norm": 5.0}, {"skip_nonfinite": False}, {"fused_loss": False}])
def test_change_of_an_update_or_its_loss_is_named(change: dict[str, Any], project: Path):
    assert [warning.split()[0] for warning in resumed(ended(project), **change)[1]] == list(change)


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"optimizer": "adafactor"}, "learning_rate=1e-05 and lr_schedule"),
        ({"optimizer": "adafactor", "optimizer_config": {"adafactor": {"relative_step": False}}}, None),
        ({"optimizer_config": {"adamw": {"weight_decay": 0.1}}}, "settings for adamw, but the optimizer is adam:"),
        ({"optimizer_config": {"adamw": {}, "adam": {"eps": 1e-6}}}, None),
    ],
)
def test_settings_that_the_optimizer_does_not_look_at_are_named(asked: dict[str, Any], word: str | None, project: Path):
    warnings = resolve(TrainingRequest.model_validate({"model": "model", "data": "data"} | asked)).warnings
    assert len(warnings) == (word is not None)
    assert word is None or word in warnings[0]


def test_length_that_does_not_stretch_the_schedule_is_named(project: Path):
    options, warnings = resumed(ended(project, **OWN), iters=1600)
    assert options.lr_schedule == OWN["lr_schedule"]
    assert len(warnings) == 1 and "stays as it is" in warnings[0] and "from 800 to 1600" in warnings[0]
    with pytest.raises(ArgumentError, match="covers 800 iterations but the run has 1600"):
        resumed(ended(project, job_id="train-phases", **PHASES), iters=1600)


def test_checkpoint_beyond_the_length_asked_for_in_epochs_is_named(project: Path):
    job = ended(project, step=1200, iters=1300)
    resolved = resolve(TrainingRequest(resume=job.job_id, epochs=20))
    assert resolved.earlier is not None
    resolved.earlier.check_length(resolve_length(resolved.options, rows=400).iters)
    with pytest.raises(ArgumentError, match="at step 1200 and iters=100"):
        resolved.earlier.check_length(resolve_length(resolved.options, rows=20).iters)


@pytest.mark.parametrize("spelled", ["id", "absolute", "relative"])
def test_last_step_is_taken_up_again_unless_the_run_completed(spelled: str, home: Path, project: Path):
    def named(job: JobFolder) -> str:
        path = job.checkpoints / "0000800"
        return {"id": job.job_id, "absolute": str(path), "relative": f"../{path.relative_to(project.parent)}"}[spelled]

    failed, done = ended(project, step=800), ended(project, step=800, status="completed", job_id="train-done")
    assert resolve(TrainingRequest(resume=named(failed))).options.iters == 800
    with pytest.raises(ArgumentError, match="larger iters"):
        resolve(TrainingRequest(resume=named(done)))
    assert resolve(TrainingRequest(resume=named(done), iters=900)).options.iters == 900
    done.write_state(JobState(status="queued"))  # its runner is just being started
    with pytest.raises(JobError, match="still runs"):
        resolve(TrainingRequest(resume=named(done), iters=900))


def test_run_that_ended_before_a_checkpoint_of_its_own_goes_on_as_it_was_asked(project: Path):
    first, second = ended(project), ended(project, job_id="train-second", learning_rate=1e-4)
    spec = second.spec().model_copy(update={"resume_from": str(first.checkpoints / "0000400")})
    write_json(second.path / "spec.json", spec.model_dump())
    (second.checkpoints / "0000400" / "checkpoint.json").unlink()
    options, warnings = resumed(second)
    assert (options.learning_rate, options.adapter_path) == (1e-4, str(project / "adapters/train-second"))
    assert warnings == []


def test_model_and_data_are_compared_by_where_they_are(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    job = ended(project)
    assert resumed(job, model="model", data="data")[1] == []
    assert resumed(job, model="./model", data=str(project / "data/"))[1] == []
    repository = tmp_path / "hub/models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots").mkdir()
    (repository / "snapshots/abc").symlink_to((project / "model").resolve(), target_is_directory=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert resumed(job, model="org/tiny")[1] == []
    (project / "other").mkdir()
    with pytest.raises(ArgumentError, match="its state does not fit"):
        resumed(job, model="other")
    assert [warning.split()[0] for warning in resumed(job, data="other")[1]] == ["data"]


def test_weights_that_a_run_began_with_are_not_needed_to_go_on_and_others_are_refused(project: Path):
    job = ended(project, resume_adapter_file="/deleted/since/adapters.safetensors")
    assert resumed(job)[0].resume_adapter_file is None
    with pytest.raises(ArgumentError, match=r"would change nothing.*leave resume out"):
        resumed(job, resume_adapter_file="adapters/other")


def test_what_an_out_of_memory_led_to_is_carried_on_unless_the_call_changes_the_memory_needed(project: Path):
    job = ended(project, batch_size=4, max_seq_length=512)
    cut = Recovery(splits=4, grad_checkpoint=True, max_seq_length=256, rungs=["in 4 parts", "max_seq_length=256"])
    recovery.write(job, cut)
    for change, word in (({}, "goes on as that one did: in 4 parts"), ({"batch_size": 2}, "since batch_size changed")):
        resolved = resolve(TrainingRequest.model_validate({"resume": job.job_id} | change))
        assert resolved.earlier is not None
        carried, warnings = resolved.earlier.recovery_for(resolved.options)
        assert carried == (None if change else cut)
        assert len(warnings) == 1 and word in warnings[0]


def test_only_the_runs_own_adapter_may_be_there_without_overwrite(project: Path):
    job = ended(project, num_layers=1)
    for name in ("train-before", "another"):
        (project / "adapters" / name).mkdir(parents=True)
        (project / "adapters" / name / "adapters.safetensors").write_bytes(b"dear")
    with pytest.raises(PathError, match="never overwritten unless overwrite=true"):
        start_training(TrainingRequest(resume=job.job_id, adapter_path="adapters/another"))
    assert [folder.job_id for folder in store.all_folders()] == [job.job_id]


def test_link_to_an_empty_folder_is_no_place_for_an_adapter(project: Path):
    (project / "empty").mkdir()
    (project / "link").symlink_to("empty", target_is_directory=True)
    with pytest.raises(PathError, match=r"link to .*empty"):
        start_training(TrainingRequest(model="model", data="data", num_layers=1, adapter_path="link"))
    assert (project / "link").is_symlink() and (project / "empty").is_dir()
