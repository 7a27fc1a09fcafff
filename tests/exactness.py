"""An interrupted run against an uninterrupted one: the same weights and the same reported losses, to the last bit."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import psutil

from mcp_server.jobs import service, store
from mcp_server.jobs.events import read_since, without_repeats
from mcp_server.jobs.store import JobFolder
from mcp_server.training.request import TrainingRequest
from mcp_server.training.start import start_training

OPTIONS: dict[str, Any] = {
    "model": "model",
    "data": "data",
    "num_layers": 2,
    "iters": 24,
    "batch_size": 2,
    "grad_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "lr_schedule": "cosine",
    "warmup": 0.2,
    "lora_parameters": {"rank": 4, "scale": 10.0, "dropout": 0.1},
    "mask_prompt": True,
    "max_seq_length": 64,
    "steps_per_report": 3,
    "steps_per_eval": 5,
    "save_every": 4,
    "val_batches": 2,
    "seed": 3,
}
FINE_TUNE_TYPES = ("lora", "dora", "full")
OPTIMIZERS = ("adam", "adamw", "muon", "sgd", "adafactor")
Seen = list[tuple[str, int, float]]


def options(fine_tune_type: str, optimizer: str, **changes: Any) -> dict[str, Any]:
    return OPTIONS | {"fine_tune_type": fine_tune_type, "optimizer": optimizer} | changes


def run(**arguments: Any) -> JobFolder:
    """A started training."""
    return store.get(start_training(TrainingRequest.model_validate(arguments)).job_id)


def finish(job: JobFolder, seconds: float = 100) -> str:
    """The status the job ends with."""
    deadline = time.monotonic() + seconds
    while not (state := service.reconcile(job)).finished:
        assert time.monotonic() < deadline, f"{job.job_id} still {state.status}"
        time.sleep(0.05)
    return state.status


def steps(job: JobFolder) -> int:
    """Steps that the log knows of."""
    return max((event.get("step", 0) for event in read_since(job.metrics, 0).events), default=0)


def kill_after(job: JobFolder, step: int, *, delay: float, runner_too: bool) -> bool:
    """SIGKILL the job's processes some time after ``step`` was reported; False when it ended before."""
    while steps(job) < step:
        if job.state().finished:
            return False
        time.sleep(0.002)
    time.sleep(delay)
    state = job.state()
    victims = [state.runner, state.worker] if runner_too else [state.worker]
    killed = False
    for identity in victims:
        if identity is not None and identity.alive():
            psutil.Process(identity.pid).kill()
            killed = True
    return killed


def losses(job: JobFolder) -> Seen:
    """Every reported loss of the trajectory that counts."""
    events = without_repeats(read_since(job.metrics, 0).events)
    return sorted((e["type"], e["step"], e["loss"]) for e in events if e["type"] in ("train", "val"))


def weights(job: JobFolder) -> bytes:
    return (Path(job.spec().options["adapter_path"]) / "adapters.safetensors").read_bytes()


def run_with_kills(
    chosen: dict[str, Any], name: str, kills: int, seed: int, seconds: float = 100
) -> tuple[JobFolder, int, int]:
    """A run that is killed ``kills`` times at random points and resumed each time: its last job, the kills that hit, and
    the resumes from a checkpoint (a run killed before its first begins anew, which must be exact too). No part of it may
    take longer than ``seconds``."""
    dice = random.Random(seed)
    job = run(**chosen, adapter_path=f"adapters/{name}")
    hits = resumes = 0
    for _ in range(kills):
        at = dice.randint(steps(job), chosen["iters"] - 3)
        hit = kill_after(job, at, delay=dice.uniform(0, 0.3), runner_too=dice.random() < 0.4)
        status = finish(job, seconds)
        if status == "completed":
            break
        assert hit, f"{job.job_id} {status} without being killed: {job.state().why}"
        hits += 1
        from_start = job.last_checkpoint() is None
        resumes += not from_start
        again = chosen | {"adapter_path": f"adapters/{name}", "overwrite": True}
        job = run(**again) if from_start else run(resume=job.job_id)
    assert finish(job, seconds) == "completed", job.state().why
    return job, hits, resumes
