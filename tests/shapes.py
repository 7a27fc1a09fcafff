"""Models of any size of which only config.json, the safetensors header and a tokenizer exist; the weights are a hole."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from mcp_server.models import shape
from tests.tiny import write_tokenizer

_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "U32": 4}


def config(
    hidden: int, layers: int, mlp: int, heads: int, kv_heads: int, vocab: int, tied: bool = False, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": mlp,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 32768,
        "torch_dtype": "bfloat16",
    } | more


# Dimensions of published models.
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": config(896, 24, 4864, 14, 2, 151936, True, model_type="qwen2"),
    "llama-3.2-1b": config(2048, 16, 8192, 32, 8, 128256, True),
    "qwen2.5-3b": config(2048, 36, 11008, 16, 2, 151936, True, model_type="qwen2"),
    "llama-3.1-8b": config(4096, 32, 14336, 32, 8, 128256),
    "qwen2.5-14b": config(5120, 48, 13824, 40, 8, 152064, model_type="qwen2"),
    "qwen3-30b-a3b": config(
        2048, 48, 6144, 32, 4, 151936, model_type="qwen3_moe", head_dim=128, num_experts=128,
        num_experts_per_tok=8, moe_intermediate_size=768,
    ),
    "qwen2.5-32b": config(5120, 64, 27648, 40, 8, 152064, model_type="qwen2"),
    "llama-3.1-70b": config(8192, 80, 28672, 64, 8, 128256),
}  # fmt: skip


def write(folder: Path, name: str, bits: int | None = None) -> Path:
    """A model folder as ``mlx_lm.convert`` leaves it, without the weights themselves."""
    known, tensors = shape.imagine(CONFIGS[name], bits=bits)
    entries: dict[str, Any] = {}
    offset = 0
    for tensor, entry in tensors.items():
        end = offset + math.prod(entry["shape"]) * _BYTES[entry["dtype"]]
        entries[tensor] = {**entry, "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries).encode()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(known))
    write_tokenizer(folder)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + offset)  # a hole: takes no room on the disk
    return folder
