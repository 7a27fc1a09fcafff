"""The conversion worker: ``mlx_lm.convert`` into a scratch folder, tried and measured, then renamed into place."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.convert import convert
from mlx_lm.generate import generate
from mlx_lm.utils import compute_bits_per_weight

from mcp_server.conversion.options import ConvertOptions
from mcp_server.conversion.provenance import write_provenance
from mcp_server.conversion.report import ConversionResult, summarize_conversion
from mcp_server.conversion.source import check_convertible, converted_bytes
from mcp_server.conversion.start import check_disk
from mcp_server.conversion.text import GENERAL_TEXT, name_of
from mcp_server.errors import ModelError, brief
from mcp_server.evaluation.statistics import loss_interval
from mcp_server.models.folder import size_bytes
from mcp_server.planning.budget import free_bytes
from mcp_server.workers import job
from mcp_server.workers.fetching import fetch, told_of_growth
from mcp_server.workers.learned import quantize_learned
from mcp_server.workers.loading import CODE, load_model, not_finite
from mcp_server.workers.publish import check_free, publish, room_for
from mcp_server.workers.text import Row, row_losses, token_rows

_PIECE = 256  # tokens of a row that perplexity is measured on
_MOST_TOKENS = 32_768
_LEAST_ROWS = 10  # for an interval


def convert_model(worker: job.WorkerJob) -> dict[str, Any]:
    """Convert as the spec says; the result for ``outcome.json``."""
    options = ConvertOptions.model_validate(worker.spec.options)
    assert options.mlx_path is not None and worker.spec.scratch is not None
    target, scratch = Path(options.mlx_path), Path(worker.spec.scratch)
    check_free(target, "mlx_path")  # before hours of work
    started = time.time()
    source = fetch(worker, options.model, options.revision)
    check_convertible(source, options)
    expected = converted_bytes(source, options)
    check_disk(target, expected, "mlx_path")
    worker.phase("converting", model=str(source))
    with room_for(scratch):
        with told_of_growth(worker, scratch, "writing", expected):
            notes = _convert(worker, options, source, scratch)
        result = _try(worker, options, source, scratch, notes)
        result.seconds = round(time.time() - started, 1)
        write_provenance(scratch, worker.spec, result, made_from={"model": options.model, "revision": options.revision})
        worker.check_stop()
        publish(scratch, target, "mlx_path")
    return result.model_dump()


def _convert(worker: job.WorkerJob, options: ConvertOptions, source: Path, scratch: Path) -> list[str]:
    if options.method is not None:
        return quantize_learned(worker, options, source, scratch)
    try:
        convert(
            hf_path=str(source),
            mlx_path=str(scratch),
            quantize=options.quantize,
            q_bits=options.q_bits,
            # mlx-lm's recipes do not fill in the default themselves.
            q_group_size=options.q_group_size or (64 if options.quant_predicate else None),
            q_mode=options.q_mode,
            dtype=options.dtype,
            dequantize=options.dequantize,
            quant_predicate=options.quant_predicate,
        )
    except ValueError as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise ModelError(f"{options.model} can't be converted: {CODE}") from error
        raise ModelError(f"{options.model} can't be converted so: {text}; change the options named") from error
    return []


def _try(
    worker: job.WorkerJob, options: ConvertOptions, source: Path, scratch: Path, notes: list[str]
) -> ConversionResult:
    """Load what was written, look for NaN, generate, and measure it and the original on the same text."""
    worker.phase("trying the result")
    model, tokenizer = load_model(str(scratch))
    _check_finite(model, options)
    notes = notes + _left_out(model, options)
    sample = generate(model, tokenizer, prompt="The capital of France is", max_tokens=8)
    text = Path(options.eval_data) if options.eval_data else GENERAL_TEXT
    rows = token_rows(text, tokenizer, length=_PIECE, limit=_MOST_TOKENS)
    sums, counts = _losses(worker, model, rows, "result")
    if not np.isfinite(sums).all():
        raise ModelError(
            f"the result's loss is not a number on {int((~np.isfinite(sums)).sum())} of {len(sums)} pieces of {name_of(text)}: "
            f"{options.model} overflows in {options.dtype or 'its own type'}; convert with dtype='bfloat16'"
        )
    bits = compute_bits_per_weight(model)
    del model
    mx.clear_cache()
    original, _ = load_model(str(source), lazy=True)
    source_bits = compute_bits_per_weight(original)
    source_sums = None
    if size_bytes(source) <= free_bytes():
        source_sums, _ = _losses(worker, original, rows, "original")
        if not np.isfinite(source_sums).all():
            source_sums = None
            notes.append("the original's loss is not a number here, so there is nothing to compare with")
    else:
        notes.append("the original does not fit into free memory, so its perplexity was not measured")
    result = ConversionResult(
        mlx_path=str(options.mlx_path),
        summary="",
        source_bytes=size_bytes(source),
        bytes=size_bytes(scratch),
        source_bits_per_weight=round(source_bits, 3),
        bits_per_weight=round(bits, 3),
        perplexity=_perplexity(sums, counts),
        measured_on=f"{int(counts.sum())} tokens of {name_of(text)}",
        sample=brief(sample, 200),
        notes=notes,
        seconds=0,
        **({} if source_sums is None else _change(source_sums, sums, counts)),
    )
    return result.model_copy(update={"summary": summarize_conversion(result)})


def _check_finite(model: nn.Module, options: ConvertOptions) -> None:
    bad = not_finite(model)
    if not bad:
        return
    names = bad[0] if len(bad) == 1 else f"{bad[0]} and {len(bad) - 1} more"
    hint = ", or its values are too large for float16 (dtype='bfloat16')" if options.dtype == "float16" else ""
    raise ModelError(
        f"{names} hold NaN or infinity: model {options.model} is damaged{hint}; download it again or choose another"
    )


def _left_out(model: nn.Module, options: ConvertOptions) -> list[str]:
    """Which layers were not quantized, which mlx-lm does not say. Raises ModelError when none was."""
    if not options.quantize:
        return []
    leaves = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
    left = [name for name, module in leaves if hasattr(module, "to_quantized")]
    if not any(hasattr(module, "scales") for _, module in leaves):
        raise ModelError(
            f"no layer of {options.model} could be quantized: no width is a multiple of the group size {options.group_size}; "
            "give a smaller q_group_size, or quantize=false"
        )
    shown = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
    return [f"{len(left)} layers keep their full precision: {shown}"] if left else []


def _losses(worker: job.WorkerJob, model: nn.Module, rows: list[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    def look(done: int) -> None:
        worker.check_stop()
        worker.events.write("progress", name=f"perplexity of the {name}", step=done, total=len(rows))

    worker.phase(f"perplexity of the {name}")
    return row_losses(model, rows, look=look)


def _perplexity(sums: np.ndarray, counts: np.ndarray) -> float:
    return round(math.exp(min(float(sums.sum() / counts.sum()), 700)), 4)


def _change(before: np.ndarray, after: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Perplexity before, and by how many percent it changed; of the ratio exp(difference of the mean losses)."""

    def percent(difference: float) -> float:
        return round(100 * math.expm1(min(difference, 700)), 3)

    found: dict[str, Any] = {
        "source_perplexity": _perplexity(before, counts),
        "perplexity_change_percent": percent(float((after - before).sum() / counts.sum())),
    }
    interval = loss_interval(after - before, counts, seed=0) if len(counts) >= _LEAST_ROWS else None
    if interval is not None:
        found["interval_95"] = (percent(interval[0]), percent(interval[1]))
    return found


if __name__ == "__main__":
    job.run(convert_model)
