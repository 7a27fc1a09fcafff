"""A job in plain words."""

from __future__ import annotations

import time
from pathlib import Path

from mcp_server.reports.facts import JobFacts
from mcp_server.reports.markup import Html, element
from mcp_server.training.options import TrainingOptions

_ENDS = {
    "completed": "",
    "failed": "It failed",
    "cancelled": "It was stopped",
    "paused": "It is paused",
    "lost": "It was lost",
    "queued": "It waits in line",
}


def summary(facts: JobFacts) -> str:
    """What was done and what came of it, from the job's own numbers."""
    view, options = facts.view, facts.options
    if facts.spec.kind == "benchmark":
        measured = facts.benchmarks[0].report if facts.benchmarks else None
        text = (
            measured.summary if measured else f"A benchmark of {view.adapter_path or facts.spec.options.get('model')}."
        )
    elif isinstance(options, TrainingOptions):
        text = _training(facts, options)
    else:
        text = f"A job of the kind {facts.spec.kind}."
    end = _ENDS.get(view.status, "")
    if end:
        text += f" {end}: {view.why.rstrip('.')}." if view.why else f" {end}."
    return text


def _training(facts: JobFacts, options: TrainingOptions) -> str:
    history, result = facts.history, facts.result
    kind = {"lora": "LoRA", "dora": "DoRA", "full": "full fine-tuning"}[options.fine_tune_type]
    rank = f" of rank {options.lora_parameters.rank}" if options.fine_tune_type != "full" else ""
    layers = "all layers" if options.num_layers == -1 else f"the last {options.num_layers} layers"
    running = facts.view.status in ("working", "queued")
    done = history.train[-1][0] if history.train else 0
    steps = f"step {done:,} of {options.iters:,}" if running else f"{done:,} of {options.iters:,} steps"
    text = f"{kind}{rank} on {layers} of {Path(options.model).name}, {steps}."
    if len(history.train) > 1:
        first, last = history.train[0][1], history.train[-1][1]
        verb = "fell" if last < first else "rose" if last > first else "stayed"
        text += f" The training loss {verb} from {first:.4g} to {last:.4g}."
    if facts.best is not None:
        step, loss = facts.best
        text += f" The lowest validation loss was {loss:.4g} at step {step:,}."
        if (kept := result.get("weights_of_step")) is not None:
            text += f" The adapter holds the weights of step {kept:,}."
    if facts.benchmarks and (measured := facts.benchmarks[0].report) is not None and measured.comparison is not None:
        text += f" {measured.summary.rstrip('.')}."
        if (own := facts.own_line) is not None and own.adapter_path != measured.adapter_path:
            text += f" This training's own adapter, {own.name}: loss {own.loss:.4g}, {own.verdict}."
    elif facts.view.status == "completed":
        text += " It has not been benchmarked against its base, so nothing is proved yet."
    return text


def badge(word: str) -> Html:
    """A status or verdict, coloured by itself."""
    return element("span", word, style=f"badge {word.split()[0]}")


def clock(seconds: float) -> str:
    """A time of day for people, local."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def bytes_text(value: float) -> str:
    """Bytes in the unit that reads best (powers of ten)."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} B"
