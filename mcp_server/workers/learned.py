"""Quantization with the help of examples: mlx_lm.quant's own functions on the user's data.

Stock's command lines take a Hub data set (dwq) or download a text (awq, gptq, dynamic); the functions behind them take
tokens, so they are called here with the user's. Their ``tqdm`` is replaced for this process: it is the only place in their
loops where progress can be told and a stop be heard.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx_lm.quant import awq, dwq, dynamic_quant, gptq
from mlx_lm.utils import quantize_model, save

from mcp_server.conversion.options import ConvertOptions
from mcp_server.errors import DataError, ModelError
from mcp_server.workers.job import WorkerJob
from mcp_server.workers.loading import load_with_config, weights_of
from mcp_server.workers.text import Row, token_rows

_SAMPLES = {"dwq": 2048, "awq": 128}  # stock's defaults; the others take all
_GPTQ_FALLBACK = {"fallback_bits": 6, "fallback_group_size": 64}  # stock's, for embeddings
_MOST_HELD_OUT = 32  # of dwq's validation, as stock
Config = dict[str, Any]


def quantize_learned(worker: WorkerJob, options: ConvertOptions, source: Path, scratch: Path) -> list[str]:
    """Write the quantized model into ``scratch``; what the method said of itself. Raises DataError for too little data."""
    model, tokenizer, config = load_with_config(str(source), lazy=True)
    assert options.method is not None and options.calibration_data is not None
    mx.random.seed(options.learned.seed)
    rows = token_rows(Path(options.calibration_data), tokenizer, length=options.learned.max_seq_length)
    rows = _chosen(rows, options) if options.method == "dwq" else _packed(rows, options)
    said: list[str] = []
    for module in (awq, dwq, dynamic_quant, gptq):
        vars(module)["tqdm"] = _bar(worker, options.method, said)
    try:
        quantized, config = _METHODS[options.method](model, config, rows, options)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Stock has no checks of its own: what does not fit an architecture or a width fails somewhere inside.
        text = " ".join(str(error).split())[:300]
        raise ModelError(
            f"mlx-lm's {options.method} fails on this {config['model_type']} model: {type(error).__name__}: {text}; "
            "choose another method or q_group_size, or leave method out"
        ) from error
    worker.check_stop()
    save(str(scratch), str(source), quantized, tokenizer, config)
    return _notes(options.method, said)


def _chosen(rows: list[Row], options: ConvertOptions) -> list[Row]:
    """A random choice of rows, whole as they are."""
    order = np.random.default_rng(options.learned.seed).permutation(len(rows))
    wanted = (options.learned.num_samples or _SAMPLES["dwq"]) + _MOST_HELD_OUT
    return [rows[index] for index in order[:wanted].tolist()]


def _packed(rows: list[Row], options: ConvertOptions) -> list[Row]:
    """All tokens in one line cut into samples of one length, and a random choice of them, as mlx_lm.quant.utils does."""
    length = options.learned.max_seq_length
    tokens = [token for row in rows for token in row]
    samples = [tokens[start : start + length] for start in range(0, len(tokens) - length + 1, length)]
    if not samples:
        raise DataError(
            f"calibration_data {options.calibration_data} has {len(tokens)} tokens, fewer than one sample of {length}; "
            "give more, or lower max_seq_length in method_options"
        )
    order = np.random.default_rng(options.learned.seed).permutation(len(samples))
    wanted = options.learned.num_samples or _SAMPLES.get(str(options.method)) or len(samples)
    return [samples[index] for index in order[:wanted].tolist()]


def _awq(model: Any, config: Config, rows: list[Row], options: ConvertOptions) -> tuple[nn.Module, Config]:
    awq.awq_quantize(
        model,
        mx.array(rows),
        awq.AWQ_MODEL_CONFIGS[config["model_type"]],
        bits=options.bits,
        group_size=options.group_size,
        n_grid=options.learned.n_grid,
    )
    return model, awq.update_config(model, config)


def _gptq(model: Any, config: Config, rows: list[Row], options: ConvertOptions) -> tuple[nn.Module, Config]:
    quantized, quantization = gptq.gptq_quantize(
        model, mx.array(rows), options.bits, options.group_size, **_GPTQ_FALLBACK
    )
    return quantized, config | {"quantization": quantization}


def _dynamic(model: Any, config: Config, rows: list[Row], options: ConvertOptions) -> tuple[nn.Module, Config]:
    settings = options.learned
    widths: dict[str, Any] = {
        "low_bits": options.bits,
        "low_group_size": options.group_size,
        "high_bits": settings.high_bits,
        "high_group_size": options.group_size,
    }
    sensitivities = dict(
        dynamic_quant.estimate_sensitivities(
            model,
            mx.array(rows),
            **widths,
            batch_size=settings.batch_size,
            gradient_checkpoint=settings.grad_checkpoint,
        )
    )
    threshold = dynamic_quant.estimate_threshold(model, sensitivities, target_bpw=settings.target_bpw, **widths)

    def predicate(path: str, module: nn.Module) -> bool | dict[str, int]:
        if not hasattr(module, "to_quantized"):
            return False
        if sensitivities[path] > threshold:
            return {"bits": settings.high_bits, "group_size": options.group_size}
        return True

    return quantize_model(model, config, options.group_size, options.bits, quant_predicate=predicate)


def _dwq(model: Any, config: Config, rows: list[Row], options: ConvertOptions) -> tuple[nn.Module, Config]:
    settings = options.learned
    held_out = min(_MOST_HELD_OUT, max(settings.batch_size, len(rows) // 10))
    if len(rows) - held_out < settings.batch_size:
        raise DataError(
            f"calibration_data {options.calibration_data} has {len(rows)} samples, and dwq needs {2 * settings.batch_size}: "
            "a batch to learn and one to check; give more, or lower batch_size in method_options"
        )
    samples = [(row, 0) for row in rows]
    student = copy.deepcopy(model)
    _, config = quantize_model(student, config, options.group_size, options.bits)
    dwq.dwq_quantize(
        student,
        lambda batch, index, split: model(batch),  # noqa: ARG005 - stock's signature
        optimizers.Adam(learning_rate=settings.learning_rate, bias_correction=True),
        samples[held_out:],
        samples[:held_out],
        batch_size=settings.batch_size,
        max_seq_length=settings.max_seq_length,
        seed=settings.seed,
        dtype=_dtype(model),
        gradient_checkpoint=settings.grad_checkpoint,
    )
    return student, config


_METHODS: dict[str, Callable[[Any, Config, list[Row], ConvertOptions], tuple[nn.Module, Config]]] = {
    "awq": _awq,
    "gptq": _gptq,
    "dynamic": _dynamic,
    "dwq": _dwq,
}


def _dtype(model: nn.Module) -> mx.Dtype:
    """The type of the weights: stock's dwq would make the scales bfloat16 whatever the model is."""
    return next(value.dtype for value in weights_of(model).values() if mx.issubdtype(value.dtype, mx.floating))


def _bar(worker: WorkerJob, method: str, said: list[str]) -> type:
    """A stand-in for tqdm that writes progress events and hears a stop."""

    class Bar:
        def __init__(
            self, iterable: Iterable[Any], total: int | None = None, desc: str | None = None, **_: Any
        ) -> None:
            self._iterable = iterable
            self._total = total if total is not None else len(iterable) if hasattr(iterable, "__len__") else None  # type: ignore[arg-type]
            self._name = desc or method

        def __iter__(self) -> Iterator[Any]:
            for done, item in enumerate(self._iterable):
                worker.check_stop()
                total = {"total": max(self._total, done + 1)} if self._total else {}
                worker.events.write("progress", name=self._name, step=done, **total)
                yield item

        def set_description(self, desc: str | None = None, **_: Any) -> None:
            pass

        @staticmethod
        def write(text: str, **_: Any) -> None:
            said.append(text)
            print(text, flush=True)

    return Bar


def _notes(method: str, said: list[str]) -> list[str]:
    """What is worth telling of what the method printed."""
    losses = re.findall(r"Validation: it=\d+, loss=([-\d.naif]+)", "\n".join(said))
    if method == "dwq" and len(losses) > 1:
        learnt = float(losses[-1]) < float(losses[0])
        advice = "" if learnt else "; it learnt nothing: raise learning_rate in method_options, or give more samples"
        return [f"dwq: divergence from the original on held-out rows {losses[0]} → {losses[-1]} (at 3 digits){advice}"]
    reductions = [float(value) for value in re.findall(r"Loss reduction: (?:array\()?([\d.e-]+)", "\n".join(said))]
    if method == "awq" and reductions:
        kept = sum(value <= 1 for value in reductions)
        return [f"awq: the error of {kept} of {len(reductions)} blocks became smaller"]
    return []
