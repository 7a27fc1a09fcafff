"""Generation speed through mlx-lm's own ``stream_generate`` and ``batch_generate``, as ``mlx_lm.benchmark`` times it."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import batch_generate, stream_generate

from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.report import Speed, Spread
from mcp_server.workers import job
from mcp_server.workers.swapping import Swapper

_WARM_TOKENS = 4  # after each change of adapter: its weights are touched before the clock runs


@dataclass
class _Trials:
    prompt: list[float] = field(default_factory=list)
    generation: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    batch_prompt: list[float] = field(default_factory=list)
    batch_generation: list[float] = field(default_factory=list)


class Timer:
    """Timed generations of several models in turn, so that a machine that warms up or is busy for a while hits all alike."""

    def __init__(self, options: BenchmarkOptions, tokenizer: Any, window: int | None) -> None:
        """``window``: the model's context, tokens, which the prompts are kept within."""
        room = window or options.speed_prompt_tokens + options.speed_generation_tokens
        self.generation_tokens = min(options.speed_generation_tokens, max(room // 2, 2))
        self.prompt_tokens = min(options.speed_prompt_tokens, max(room - self.generation_tokens, 1))
        self._trials = options.speed_trials
        self._tokenizer = tokenizer
        self._batch_size = options.speed_batch_size
        mx.random.seed(options.seed)
        shape = (self._batch_size, self.prompt_tokens)
        self._prompts: Any = mx.random.randint(0, tokenizer.vocab_size, shape).tolist()

    def measure(self, worker: job.WorkerJob, swapper: Swapper, adapters: list[str | None]) -> list[Speed]:
        """The speed with each of ``adapters``: one warm-up of each, then rounds whose order turns round every time."""
        trials = [_Trials() for _ in adapters]
        with endless(self._tokenizer):
            for number in range(-1, self._trials):
                order = list(range(len(adapters)))
                for index in order if number % 2 == 0 else reversed(order):
                    worker.check_stop()
                    model = swapper.use(adapters[index])
                    self._stream(model, _Trials(), _WARM_TOKENS)
                    self._run(model, _Trials() if number < 0 else trials[index])
                worker.events.write("progress", name="speed", step=number + 2, total=self._trials + 1)
        return [self._speed(found) for found in trials]

    def _run(self, model: nn.Module, trial: _Trials) -> None:
        self._stream(model, trial, self.generation_tokens)
        if self._batch_size > 1:
            stats = batch_generate(model, self._tokenizer, self._prompts, max_tokens=self.generation_tokens).stats
            trial.batch_prompt.append(stats.prompt_tps)
            trial.batch_generation.append(stats.generation_tps)

    def _stream(self, model: nn.Module, trial: _Trials, tokens: int) -> None:
        mx.reset_peak_memory()
        first = 0.0
        last: Any = None
        started = time.perf_counter()
        for response in stream_generate(model, self._tokenizer, self._prompts[0], max_tokens=tokens):
            first = first or time.perf_counter() - started
            last = response
        trial.first.append(first)
        trial.prompt.append(last.prompt_tps)
        trial.generation.append(last.generation_tps)
        trial.peak.append(last.peak_memory)

    def _speed(self, trials: _Trials) -> Speed:
        batched = bool(trials.batch_prompt)
        return Speed(
            trials=self._trials,
            prompt_tokens=self.prompt_tokens,
            generation_tokens=self.generation_tokens,
            prompt_tokens_per_second=_spread(trials.prompt),
            generation_tokens_per_second=_spread(trials.generation),
            seconds_to_first_token=_spread(trials.first),
            peak_memory_gb=_rounded(max(trials.peak)),
            batch_size=self._batch_size if batched else None,
            batch_prompt_tokens_per_second=_spread(trials.batch_prompt) if batched else None,
            batch_generation_tokens_per_second=_spread(trials.batch_generation) if batched else None,
        )


@contextlib.contextmanager
def endless(tokenizer: Any) -> Generator[None]:
    """No token ends a generation, so that every trial has the same length."""
    kept = tokenizer.eos_token_ids
    tokenizer.eos_token_ids = ()
    try:
        yield
    finally:
        tokenizer.eos_token_ids = kept


def _spread(values: list[float]) -> Spread:
    return Spread(median=_rounded(statistics.median(values)), min=_rounded(min(values)), max=_rounded(max(values)))


def _rounded(value: float) -> float:
    """Three significant digits: more would be noise."""
    return float(f"{value:.3g}")
