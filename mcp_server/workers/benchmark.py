"""The benchmark worker: base and adapter on the same test rows, paired."""

from __future__ import annotations

import math
import statistics
import types
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.generate import batch_generate, stream_generate
from mlx_lm.tuner.datasets import CacheDataset, load_local_dataset
from mlx_lm.tuner.utils import load_adapters

from mcp_server.errors import DataError, ModelError
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.report import BenchmarkReport, Comparison, Measured, Sample, judge, summarize
from mcp_server.evaluation.statistics import paired_interval
from mcp_server.workers import job
from mcp_server.workers.batches import batch_of
from mcp_server.workers.loading import load_model

_SHOWN_SAMPLES = 5
_SHOWN_CHARACTERS = 300


class _Bench:
    """The test set and the way each model is measured on it."""

    def __init__(self, worker: job.WorkerJob, options: BenchmarkOptions, tokenizer: Any) -> None:
        self._worker = worker
        self._options = options
        self._tokenizer = tokenizer
        config = types.SimpleNamespace(mask_prompt=options.mask_prompt)
        try:
            _, _, test = load_local_dataset(Path(options.data), tokenizer, config)
        except ValueError as error:
            raise DataError(f"the test set in {options.data} can't be used: {error}") from error
        self._rows = CacheDataset(test)
        self.prompts, self.references = _questions(test, tokenizer, options.num_prompts)

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens)

    def losses(self, model: nn.Module, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Summed loss (nats) and number of counted tokens of every row, in the file's order. Both (rows,)."""
        model.eval()
        sums, counts = np.zeros(len(self._rows)), np.zeros(len(self._rows))
        size = self._options.batch_size
        for start in range(0, len(self._rows), size):
            self._worker.check_stop()
            rows = range(start, min(start + size, len(self._rows)))
            batch, lengths = batch_of(self._rows, list(rows), self._options.max_seq_length)
            row_sums, row_counts = _row_losses(model, batch, lengths)
            sums[start : start + len(rows)] = np.array(row_sums)
            counts[start : start + len(rows)] = np.array(row_counts)
            self._worker.events.write("progress", name=f"loss of the {name}", step=rows[-1] + 1, total=len(self._rows))
        return sums, counts

    def answers(self, model: nn.Module, name: str) -> list[str]:
        """Greedy answers to the prompts."""
        if not self.prompts:
            return []
        self._worker.phase(f"answers of the {name}")
        response = batch_generate(model, self._tokenizer, self.prompts, max_tokens=self._options.max_tokens)
        return [text.strip() for text in response.texts]

    def speed(self, model: nn.Module, name: str) -> dict[str, float]:
        """Medians over the timed trials, after one warm-up."""
        trials = self._options.speed_trials
        if not trials or not self.prompts:
            return {}
        self._worker.phase(f"speed of the {name}")
        finals = [self._generate_once(model) for _ in range(trials + 1)][1:]
        return {
            "prompt_tokens_per_second": round(statistics.median(final.prompt_tps for final in finals), 2),
            "generation_tokens_per_second": round(statistics.median(final.generation_tps for final in finals), 2),
            "peak_memory_gb": round(finals[-1].peak_memory, 3),
        }

    def _generate_once(self, model: nn.Module) -> Any:
        self._worker.check_stop()
        mx.reset_peak_memory()
        stream = stream_generate(model, self._tokenizer, self.prompts[0], max_tokens=self._options.max_tokens)
        return list(stream)[-1]

    def measure(self, model: nn.Module, name: str) -> tuple[Measured, np.ndarray, np.ndarray, list[str]]:
        sums, counts = self.losses(model, name)
        if not counts.sum():
            raise DataError(
                f"no answer token of the test set lies within max_seq_length={self._options.max_seq_length}; raise it"
            )
        loss = float(sums.sum() / counts.sum())
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss of the {name} is {loss}: its weights hold NaN or infinity; train or convert it again"
            )
        answers = self.answers(model, name)
        matches = [given == wanted for given, wanted in zip(answers, self.references, strict=True)]
        measured = Measured(
            loss=round(loss, 6),
            perplexity=round(math.exp(min(loss, 700)), 4),
            exact_match=round(sum(matches) / len(matches), 4) if matches else None,
            **self.speed(model, name),
        )
        return measured, sums, counts, answers


def benchmark(worker: job.WorkerJob) -> dict[str, Any]:
    """Measure as the spec says; the report for ``outcome.json``."""
    options = BenchmarkOptions.model_validate(worker.spec.options)
    worker.phase("loading model", model=options.model)
    model, tokenizer = load_model(options.model)
    bench = _Bench(worker, options, tokenizer)
    worker.phase("measuring the base")
    base, base_sums, counts, base_answers = bench.measure(model, "base")
    adapter: Measured | None = None
    comparison: Comparison | None = None
    adapter_answers: list[str] = []
    if options.adapter_path:
        worker.phase("measuring the adapter", adapter_path=options.adapter_path)
        _apply_adapter(model, options.adapter_path)
        adapter, adapter_sums, _, adapter_answers = bench.measure(model, "adapter")
        comparison = _compare(base_sums, adapter_sums, counts, options.seed)
    return BenchmarkReport(
        model=options.model,
        adapter_path=options.adapter_path,
        rows=len(counts),
        tokens=int(counts.sum()),
        base=base,
        adapter=adapter,
        comparison=comparison,
        summary=summarize(len(counts), base, adapter, comparison),
        samples=_samples(bench, base_answers, adapter_answers),
    ).model_dump(exclude_none=True)


def _apply_adapter(model: nn.Module, adapter_path: str) -> None:
    try:
        load_adapters(model, adapter_path)
    except (ValueError, KeyError, FileNotFoundError, RuntimeError) as error:
        text = " ".join(str(error).split())[:300]
        raise ModelError(
            f"adapter {adapter_path} does not fit this model: {text}; use the model it was trained on"
        ) from error
    model.eval()


def _compare(base: np.ndarray, adapter: np.ndarray, counts: np.ndarray, seed: int) -> Comparison:
    difference = adapter - base
    interval = paired_interval(difference, counts, seed=seed)
    return Comparison(
        loss_difference=round(float(difference.sum() / counts.sum()), 6),
        interval_95=(round(interval[0], 6), round(interval[1], 6)) if interval else None,
        win_rate=round(float((difference < 0).mean()), 4),
        verdict=judge(interval),
    )


def _row_losses(model: nn.Module, batch: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
    """``trainer.default_loss`` before its sum: per row, the summed loss and the number of tokens counted."""
    inputs, targets = batch[:, :-1], batch[:, 1:]
    steps = mx.arange(1, targets.shape[1] + 1)
    mask = mx.logical_and(steps >= lengths[:, 0:1], steps <= lengths[:, 1:])
    losses = nn.losses.cross_entropy(model(inputs), targets) * mask
    sums, counts = losses.astype(mx.float32).sum(axis=1), mask.sum(axis=1)
    mx.eval(sums, counts)
    return sums, counts


def _questions(test: Any, tokenizer: Any, limit: int) -> tuple[list[list[int]], list[str]]:
    """Prompts as token lists and the reference answers, of rows that end with an assistant's text."""
    prompts: list[list[int]] = []
    references: list[str] = []
    for index in range(len(test)):
        if len(prompts) == limit:
            break
        row = test[index]
        if "completion" in row and "prompt" in row:
            messages, answer = [{"role": "user", "content": row["prompt"]}], row["completion"]
        elif "messages" in row and row["messages"][-1]["role"] == "assistant":
            messages, answer = row["messages"][:-1], row["messages"][-1].get("content")
        else:
            continue
        if isinstance(answer, str):
            prompts.append(
                tokenizer.apply_chat_template(
                    messages, tools=row.get("tools"), add_generation_prompt=True, return_dict=False
                )
            )
            references.append(answer.strip())
    return prompts, references


def _samples(bench: _Bench, base: list[str], adapter: list[str]) -> list[Sample]:
    def cut(text: str) -> str:
        return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"

    return [
        Sample(
            prompt=cut(bench.decode(bench.prompts[index])),
            reference=cut(bench.references[index]),
            base=cut(base[index]),
            adapter=cut(adapter[index]) if adapter else None,
        )
        for index in range(min(_SHOWN_SAMPLES, len(base)))
    ]


if __name__ == "__main__":
    job.run(benchmark)
