"""Symptom → likely cause → remedy, from the data of this run. The table of the seed's "Common Issues & Solutions", and more."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field

from mcp_server.errors import brief
from mcp_server.jobs.events import Event

_MOST_SYMPTOM = 120  # characters; the alert itself says it in full


class Finding(BaseModel):
    """One symptom of this run."""

    symptom: str
    cause: str = Field(description="The likely cause")
    remedy: str


# By the kind of an alert: cause and remedy.
KNOWN: dict[str, tuple[str, str]] = {
    "not-finite": (
        "a step's gradients overflowed (rate too high), or a batch had no token to learn (prompt longer than max_seq_length)",
        "halve learning_rate, add warmup, look for odd rows with inspect_dataset; then resume from the last good checkpoint",
    ),
    "skipped-step": (
        "an odd batch, or 16-bit numbers that overflowed; the update was left out and the weights are as before it",
        "a few are harmless; when they recur, set max_grad_norm=1, halve learning_rate, look at the rows with inspect_dataset",
    ),
    "half-update": (
        "the run that this one goes on from ended amid an accumulation: its iters is no multiple of grad_accumulation_steps",
        "harmless; give iters that is a multiple of grad_accumulation_steps where runs are to be compared step by step",
    ),
    "divergence": (
        "learning rate too high for this model or data",
        "stop, halve learning_rate, use warmup=0.1 with lr_schedule='cosine'; then start anew or resume an earlier checkpoint",
    ),
    "loss-spike": (
        "an odd batch (very long, wrong language, garbage) or a rate near its limit",
        "one spike is harmless; when they recur, lower learning_rate and look at the rows with inspect_dataset",
    ),
    "overfitting": (
        "the model learns the rows by heart: too many passes for so little data, or too much capacity",
        "use the best checkpoint (early_stopping_patience=3), fewer iters, smaller rank or num_layers, dropout 0.05, more data",
    ),
    "plateau": (
        "it has learnt what it can at this rate, or the rate is too low",
        "stop it, benchmark the best checkpoint; if the loss is still high, raise learning_rate or num_layers",
    ),
    "slow-down": (
        "the machine is hot, on battery, or swapping, or another program uses the GPU",
        "plug in, close other programs, look at get_metal_memory; speed comes back by itself",
    ),
    "stalled": (
        "the worker has written nothing for long: swapping, a sleeping machine, or a hung GPU",
        "look at get_metal_memory; if it stays so, stop_job and resume from the last checkpoint",
    ),
    "memory-pressure": (
        "the run and the other programs need more memory than there is",
        "close other programs, or stop and resume with half the batch_size, grad_checkpoint=true or a 4-bit model",
    ),
    "out-of-memory": (
        "activations and logits of the largest batch did not fit",
        "batch_size 1, grad_checkpoint=true, smaller max_seq_length, a 4-bit model, fewer num_layers",
    ),
    "gpu-watchdog": (
        "macOS ended a GPU command that held up the display for too long",
        "turn the display off or work over ssh, lower max_seq_length or batch_size; AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1 helps some",
    ),
    "checkpoint-failed": ("the disk is full or can't be written", "free disk space; the last checkpoint is intact"),
    "best-lost": (
        "the disk was full at the best validation, or the run went on from a checkpoint without the best weights beside it",
        "the best checkpoint left is published; run_benchmark compares it with the job's others, more iters may find a better",
    ),
    "rows-cut": (
        "rows are longer than max_seq_length",
        "raise max_seq_length if memory allows, or excess_length_strategy='split'",
    ),
    "rows-dropped": (
        "rows, or their prompts, are longer than max_seq_length",
        "raise max_seq_length if memory allows; excess_length_strategy='split' keeps long answers in windows",
    ),
    "padding": (
        "short and long rows share batches",
        "length_bucketing=true, or batch_size 1: with grad_accumulation_steps it has the same effect and pads nothing",
    ),
    "on-cpu": (
        "mlx runs on the CPU here, not on the GPU",
        "check_platform says why; expect it to be tens of times slower",
    ),
}

# What back ends and libraries print when memory ends or the watchdog strikes, by the kind of alert they mean.
# Metal's texts are from ml-explore/mlx issues 3267, 1231 and mlx's allocator; none was produced on a Mac here.
_TEXTS = (
    ("gpu-watchdog", re.compile(r"ImpactingInteractivity|kIOGPUCommandBufferCallbackErrorTimeout|GPU Timeout", re.I)),
    (
        "out-of-memory",
        re.compile(
            r"unable to allocate|out of memory|outofmemory|insufficient memory|bad_alloc|cannot allocate memory"
            r"|resource limit \(\d+\) exceeded|\[malloc|cudaMalloc|greater than the maximum allowed buffer size",
            re.I,
        ),
    ),
)


def kind_of_failure(text: str) -> str | None:
    """The kind of alert that an error text means, or None."""
    return next((kind for kind, pattern in _TEXTS if pattern.search(text)), None)


def diagnose(events: list[Event], why: str | None, *, limit: int = 5) -> list[Finding]:
    """What this run's alerts, and the reason it failed, mean; newest symptom of each kind."""
    alerts: dict[str, str] = {}
    for event in events:
        if event["type"] == "alert" and event.get("kind") in KNOWN:
            alerts[str(event["kind"])] = str(event.get("message") or event["kind"])
    kind = kind_of_failure(why or "")
    if kind is not None:
        alerts.setdefault(kind, str(why))
    return [
        Finding(symptom=brief(symptom, _MOST_SYMPTOM), cause=KNOWN[kind][0], remedy=KNOWN[kind][1])
        for kind, symptom in list(alerts.items())[:limit]
    ]


def remedy(kind: str) -> str:
    """What to do about an alert of this kind."""
    return KNOWN[kind][1]
