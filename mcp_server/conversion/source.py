"""What a conversion starts from, read from config.json and the headers of the weights: can it be done, and how large is it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mcp_server.conversion.options import ConvertOptions, Method
from mcp_server.errors import ModelError
from mcp_server.models import folder as models

# Architectures in mlx_lm.quant.awq.AWQ_MODEL_CONFIGS (a test compares). The multimodal ones among them are mlx-lm's word;
# the others were tried: docs/convert.md.
AWQ_TYPES = (
    "llama",
    "mistral",
    "ministral3",
    "mistral3",
    "llava",
    "qwen2",
    "qwen3",
    "gemma3_text",
    "gemma3",
    "deepseek_v2",
)
_ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I8": 1,
    "U8": 1,
    "I64": 8,
    "I32": 4,
}
_DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_HIGH_BITS = {"mixed_2_6": 6, "mixed_3_4": 4, "mixed_3_6": 6, "mixed_4_6": 6}


def check_convertible(path: Path, options: ConvertOptions) -> None:
    """Raise ModelError where mlx-lm would do nothing, or fail half-way, with what was asked."""
    config = models.check(path)
    quantization = quantization_of(config)
    if options.quantize and quantization is not None:
        raise ModelError(
            f"model {path} is already quantized ({describe(quantization)}), and quantizing it again would change nothing; "
            "convert the original model, or first turn this one back with quantize=false, dequantize=true"
        )
    if options.dequantize and not (quantization or config.get("quantization_config")):
        raise ModelError(f"model {path} is not quantized, so there is nothing to dequantize; leave dequantize out")
    if options.method == "awq":
        _check_awq(path, config, options.group_size)


def quantization_of(config: dict[str, Any]) -> dict[str, Any] | None:
    """MLX's own quantization, as its config.json says it."""
    found = config.get("quantization")
    return found if isinstance(found, dict) and "bits" in found else None


def describe(quantization: dict[str, Any]) -> str:
    mode = quantization.get("mode", "affine")
    name = "" if mode == "affine" else f" {mode}"
    return f"{quantization['bits']} bits{name} in groups of {quantization.get('group_size', '?')}"


def _check_awq(path: Path, config: dict[str, Any], group_size: int) -> None:
    kind = config["model_type"]
    if kind not in AWQ_TYPES:
        raise ModelError(
            f"mlx-lm's awq does not know {kind} models (it knows {', '.join(AWQ_TYPES)}); {_others('awq')}"
        )
    if kind == "deepseek_v2" and config.get("q_lora_rank"):
        raise ModelError(f"mlx-lm's awq fails on deepseek_v2 with q_lora_rank; {_others('awq')}")
    odd = [
        name
        for name, entry in all_tensors(path).items()
        if name.endswith(".weight")
        and "vision" not in name
        and len(entry["shape"]) > 1
        and entry["shape"][-1] % group_size
    ]
    if odd:
        raise ModelError(
            f"awq needs every width to be a multiple of the group size {group_size}, and {odd[0]} is "
            f"{all_tensors(path)[odd[0]]['shape'][-1]} wide; give a smaller q_group_size, or {_others('awq')}"
        )


def _others(method: Method) -> str:
    return f"choose method={' or '.join(repr(name) for name in ('dwq', 'gptq', 'dynamic') if name != method)}"


def all_tensors(path: Path) -> dict[str, Any]:
    """Every tensor of a model folder: name → its header entry."""
    found: dict[str, Any] = {}
    for file in models.weight_files(path):
        found |= models.tensors(file)
    return found


def converted_bytes(path: Path, options: ConvertOptions) -> int:
    """Upper estimate of the result's weights, bytes: from the tensors' shapes and the bits asked for."""
    bits = None
    if options.quantize:
        high = options.learned.high_bits if options.method == "dynamic" else 0
        fallback = 6 if options.method == "gptq" else 0
        # A scale and a bias of at most 32 bits for each group.
        bits = (
            max(options.bits, high, fallback, _HIGH_BITS.get(options.quant_predicate or "", 0))
            + 64 / options.group_size
        )
    return _bytes(path, bits, options.dtype, options.dequantize)


def fused_bytes(path: Path, *, dequantize: bool, gguf: bool) -> int:
    """Upper estimate of a fused model's weights, bytes."""
    once = _bytes(path, None, None, dequantize)
    return once * 2 if gguf else once


def _bytes(path: Path, bits: float | None, dtype: str | None, dequantize: bool) -> int:
    quantization = quantization_of(models.read_config(path)) or {}
    total = 0.0
    tensors = all_tensors(path)
    for name, entry in tensors.items():
        count = math.prod(entry["shape"])
        stem = name.rpartition(".")[0]
        if entry["dtype"] == "U32" and f"{stem}.scales" in tensors:
            if not dequantize:
                total += 4 * count
                continue
            own = quantization.get(stem)
            packed = (own if isinstance(own, dict) else quantization).get("bits", 4)
            total += count * 32 / packed * _width(tensors[f"{stem}.scales"]["dtype"], dtype)
        elif bits is not None and len(entry["shape"]) > 1:
            total += count * min(bits / 8, _width(entry["dtype"], dtype)) if entry["shape"][-1] >= 32 else 4 * count
        else:
            total += count * _width(entry["dtype"], dtype)
    return int(total)


def _width(own: str, dtype: str | None) -> int:
    """Bytes of one weight that is not quantized. An 8-bit float or scale becomes 16 bits."""
    return _DTYPE_BYTES[dtype] if dtype else max(_ITEM_BYTES.get(own, 4), 2)
