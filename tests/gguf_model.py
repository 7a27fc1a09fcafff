"""A GGUF file as its own project's reader sees it, turned back into a model of mlx-lm's: llama.cpp's part in the tests."""

# pyright: basic
# (gguf and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

# llama.cpp's names of a block's tensors → mlx-lm's, for dense models and, of mixtures, for the stacked experts.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.switch_mlp.gate_proj",
    "ffn_up_exps": "block_sparse_moe.switch_mlp.up_proj",
    "ffn_down_exps": "block_sparse_moe.switch_mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and tensors, by the reader of the package ``gguf``."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: tensor.data for tensor in reader.tensors}


def known_tensor(name: str) -> bool:
    """Whether llama.cpp's llama architecture has a tensor of this name (gguf-py's own table)."""
    from gguf import MODEL_ARCH, MODEL_TENSORS, TENSOR_NAMES

    stem = name.removesuffix(".weight")
    parts = stem.split(".")
    pattern = ".".join("{bid}" if part.isdigit() and index == 1 else part for index, part in enumerate(parts))
    return pattern in {TENSOR_NAMES[tensor] for tensor in MODEL_TENSORS[MODEL_ARCH.LLAMA]}


def as_mlx_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors under mlx-lm's names. llama.cpp's query and key rows are interleaved for its rotary embedding
    (convert_hf_to_gguf.py, LlamaModel.permute); here that is undone."""
    fields, tensors = read_gguf(path)
    heads = fields["llama.attention.head_count"]
    kv_heads = fields["llama.attention.head_count_kv"]
    found: dict[str, np.ndarray] = {}
    for name, data in tensors.items():
        parts = name.removesuffix(".weight").split(".")
        own = f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}" if parts[0] == "blk" else _TOP[parts[0]]
        if parts[-1] in ("attn_q", "attn_k"):
            count = heads if parts[-1] == "attn_q" else kv_heads
            data = data.reshape(count, data.shape[0] // count // 2, 2, -1).swapaxes(1, 2).reshape(data.shape)
        found[f"{own}.weight"] = np.array(data)
    return found
