"""The fusion worker: base + adapter into one model, as ``mlx_lm.fuse``, then compared with what it was made from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.generate import generate
from mlx_lm.gguf import convert_to_gguf
from mlx_lm.utils import compute_bits_per_weight, dequantize_model, save

from mcp_server.conversion.gguf import GGUF_NAME, check_gguf
from mcp_server.conversion.options import FuseOptions
from mcp_server.conversion.provenance import adapter_origin, write_provenance
from mcp_server.conversion.report import FusionResult, summarize_fusion
from mcp_server.conversion.source import fused_bytes, quantization_of
from mcp_server.conversion.start import check_disk
from mcp_server.conversion.text import GENERAL_TEXT, name_of
from mcp_server.errors import ModelError, brief
from mcp_server.jobs.files import read_json
from mcp_server.models.folder import check, size_bytes
from mcp_server.workers import effect, job
from mcp_server.workers.effect import Logits
from mcp_server.workers.fetching import fetch, told_of_growth
from mcp_server.workers.loading import (
    apply_adapter,
    load_model,
    load_with_config,
    not_finite,
    other_base,
    weights_of,
)
from mcp_server.workers.publish import check_free, publish, room_for
from mcp_server.workers.text import Row, token_rows

_PIECE = 256  # tokens of a row that is compared
_PROMPT_TOKENS = 16
_ANSWER_TOKENS = 24
# llama.cpp's names of a mixture's expert weights, stacked as mlx-lm holds them (gguf-py, constants.py: FFN_GATE_EXP and so
# on). mlx_lm.gguf knows only those of single experts, which mlx-lm's models no longer have.
_EXPERTS = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}


def fuse_adapter(worker: job.WorkerJob) -> dict[str, Any]:
    """Fuse as the spec says; the result for ``outcome.json``."""
    options = FuseOptions.model_validate(worker.spec.options)
    assert options.save_path is not None and options.model is not None and worker.spec.scratch is not None
    target, scratch = Path(options.save_path), Path(worker.spec.scratch)
    check_free(target, "save_path")  # before hours of work
    started = time.time()
    source = fetch(worker, options.model)
    check(source)
    if options.export_gguf:
        check_gguf(source, dequantize=options.dequantize)
    expected = fused_bytes(source, dequantize=options.dequantize, gguf=options.export_gguf)
    check_disk(target, expected, "save_path")
    fusion = _Fusion(worker, options, source)
    with room_for(scratch):
        with told_of_growth(worker, scratch, "writing", expected):
            fusion.write(scratch)
        result = fusion.compare(scratch)
        result.seconds = round(time.time() - started, 1)
        write_provenance(
            scratch,
            worker.spec,
            result,
            made_from={"model": options.model, **adapter_origin(Path(options.adapter_path))},
        )
        worker.check_stop()
        publish(scratch, target, "save_path")
    return result.model_dump(exclude_none=True)


class _Fusion:
    """One fusion: the model before, and what is measured of it."""

    def __init__(self, worker: job.WorkerJob, options: FuseOptions, source: Path) -> None:
        """Load base and adapter, and keep what they say to the text. Raises ModelError, DataError."""
        self._worker = worker
        self._options = options
        self._source = source
        worker.phase("loading the base", model=str(source))
        self._model, self._tokenizer, self._config = load_with_config(str(source))
        if bad := not_finite(self._model):
            raise ModelError(f"the base {source} holds NaN or infinity ({bad[0]}); download or convert it again")
        self._text = Path(options.eval_data) if options.eval_data else GENERAL_TEXT
        limit = effect.position_limit(effect.vocabulary_of(self._model))
        self._rows: list[Row] = token_rows(self._text, self._tokenizer, length=_PIECE, limit=limit)
        worker.phase("logits of the base")
        self._base = effect.logits_of(self._model, self._rows)
        worker.phase("logits of base + adapter")
        apply_adapter(self._model, options.adapter_path)
        self._adapted = effect.logits_of(self._model, self._rows)
        self._sample = self._answer(self._model)

    def write(self, scratch: Path) -> None:
        """Fuse as ``mlx_lm.fuse`` does, and write model, tokenizer and configuration."""
        self._worker.phase("fusing")
        model, dequantize = self._model, self._options.dequantize
        fused: Any = [(name, m.fuse(dequantize=dequantize)) for name, m in model.named_modules() if hasattr(m, "fuse")]
        if fused:
            model.update_modules(tree_unflatten(fused))
        if dequantize:
            dequantize_model(model)
            for name in ("quantization", "quantization_config"):
                self._config.pop(name, None)
        self._worker.phase("writing")
        save(str(scratch), str(self._source), model, self._tokenizer, self._config, donate_model=False)
        if self._options.export_gguf:
            self._worker.phase("writing GGUF")
            convert_to_gguf(scratch, gguf_weights(model), self._config, str(scratch / GGUF_NAME))
        del self._model, model
        mx.clear_cache()

    def compare(self, scratch: Path) -> FusionResult:
        """Load what was written with stock mlx-lm and hold it against base + adapter."""
        self._worker.phase("comparing")
        model, _ = load_model(str(scratch))
        if bad := not_finite(model):
            raise ModelError(f"the fused model holds NaN or infinity ({bad[0]}): fuse with dequantize=true")
        fused = effect.logits_of(model, self._rows)
        against = effect.change(self._adapted, fused)
        left = effect.kept(self._base, self._adapted, fused)
        measured_on = f"{sum(map(len, self._rows))} tokens of {name_of(self._text)}"
        adapter = read_json(Path(self._options.adapter_path) / "adapter_config.json") or {}
        sample = self._answer(model)
        return FusionResult(
            save_path=str(self._options.save_path),
            gguf_path=str(Path(str(self._options.save_path)) / GGUF_NAME) if self._options.export_gguf else None,
            summary=summarize_fusion(
                left.get("effect_kept"),
                left.get("relative_error"),
                against.top1_agreement,
                quantized=quantization_of(self._config) is not None,
                measured_on=measured_on,
            ),
            fine_tune_type=str(adapter.get("fine_tune_type", "lora")),
            bytes=size_bytes(scratch),
            bits_per_weight=round(compute_bits_per_weight(model), 3),
            fused_vs_adapted=against,
            adapted_vs_base=effect.change(self._base, self._adapted),
            **left,
            perplexity=self._perplexities(fused),
            same_greedy_text=sample == self._sample,
            measured_on=measured_on,
            sample=brief(sample, 200),
            notes=self._notes(adapter),
            seconds=0,
        )

    def _answer(self, model: nn.Module) -> str:
        """Greedy text after the beginning of the first row."""
        prompt = self._rows[0][:_PROMPT_TOKENS]
        return generate(model, self._tokenizer, prompt=prompt, max_tokens=_ANSWER_TOKENS)

    def _perplexities(self, fused: Logits) -> dict[str, float]:
        named = {"base": self._base, "adapted": self._adapted, "fused": fused}
        return {name: effect.perplexity(logits, self._rows) for name, logits in named.items()}

    def _notes(self, adapter: dict[str, Any]) -> list[str]:
        notes = other_base(adapter, str(self._options.model))
        if self._options.export_gguf:
            notes.append(
                "GGUF by mlx-lm gives every token the same score: try the file in llama.cpp before you pass it on"
            )
        return notes


def gguf_weights(model: nn.Module) -> dict[str, mx.array]:
    """The weights under names that ``mlx_lm.gguf`` turns into llama.cpp's."""
    found: dict[str, mx.array] = {}
    for name, value in weights_of(model).items():
        block, _, expert = name.partition(".block_sparse_moe.switch_mlp.")
        found[f"{block}.{_EXPERTS[expert.removesuffix('.weight')]}.weight" if expert else name] = value
    return found


if __name__ == "__main__":
    job.run(fuse_adapter)
