"""The conversion worker: ``mlx_lm.convert`` into a scratch folder, tried, then renamed into place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlx.core as mx
from huggingface_hub import snapshot_download
from mlx_lm.convert import convert
from mlx_lm.generate import generate
from mlx_lm.utils import compute_bits_per_weight

from mcp_server.conversion.options import ConvertOptions
from mcp_server.conversion.start import ConversionResult
from mcp_server.errors import ModelError, PathError
from mcp_server.models.folder import size_bytes
from mcp_server.workers import job
from mcp_server.workers.loading import load_model

_PATTERNS = ["*.json", "*.safetensors", "*.py", "*.model", "*.tiktoken", "tiktoken.model", "*.txt", "*.jinja"]


def convert_model(worker: job.WorkerJob) -> dict[str, Any]:
    """Convert as the spec says; the result for ``outcome.json``."""
    options = ConvertOptions.model_validate(worker.spec.options)
    assert options.mlx_path is not None and worker.spec.scratch is not None
    target, scratch = Path(options.mlx_path), Path(worker.spec.scratch)
    started = time.time()
    source = _fetch(worker, options.model)
    worker.phase("converting", model=str(source))
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
        raise ModelError(f"{options.model} can't be converted so: {error}; change the options named") from error
    worker.phase("trying the result")
    model, tokenizer = load_model(str(scratch))
    sample = generate(model, tokenizer, prompt="The capital of France is", max_tokens=8)
    bits = compute_bits_per_weight(model)
    mx.clear_cache()
    worker.check_stop()
    if target.exists():
        raise PathError(f"mlx_path {target} came into being while the job ran; start again with a new name")
    scratch.rename(target)
    return ConversionResult(
        mlx_path=str(target),
        source_bytes=size_bytes(source),
        bytes=size_bytes(target),
        bits_per_weight=round(bits, 3),
        sample=sample[:200],
        seconds=round(time.time() - started, 1),
    ).model_dump()


def _fetch(worker: job.WorkerJob, model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    worker.phase("downloading", model=model)
    try:
        return Path(snapshot_download(model, allow_patterns=_PATTERNS))
    except Exception as error:
        # huggingface_hub raises a dozen types; all mean that the model did not arrive.
        text = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model {model!r} could not be downloaded: {text}; check the id, your login and the network"
        ) from error


if __name__ == "__main__":
    job.run(convert_model)
