"""What mlx-lm can write as GGUF, found before anything is written.

mlx_lm.gguf writes llama-like 16-bit models with a SentencePiece vocabulary. Some of what it accepts comes out as a file that
llama.cpp would misread; that is refused here too (tried with mlx-lm 0.32.2, see docs/convert.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcp_server.conversion.source import quantization_of
from mcp_server.errors import ModelError
from mcp_server.models import folder as models

GGUF_TYPES = ("llama", "mistral", "mixtral")
GGUF_NAME = "ggml-model-f16.gguf"
_INSTEAD = "fuse without export_gguf and turn the fused folder into GGUF with llama.cpp's convert_hf_to_gguf.py"


def check_gguf(path: Path, *, dequantize: bool) -> None:
    """Raise ModelError when a fused copy of the model in ``path`` can't be written as a GGUF file that means the same."""
    config = models.read_config(path)
    if config["model_type"] not in GGUF_TYPES:
        raise _refusal(f"mlx-lm writes GGUF of {', '.join(GGUF_TYPES)} models alone, not of {config['model_type']}")
    if quantization_of(config) and not dequantize:
        raise ModelError("mlx-lm writes no quantized GGUF; add dequantize=true, and quantize the file with llama.cpp")
    for reason in (_shape_problem(config), _vocabulary_problem(path, config)):
        if reason:
            raise _refusal(reason)


def _refusal(reason: str) -> ModelError:
    return ModelError(f"{reason}; {_INSTEAD}")


def _shape_problem(config: dict[str, Any]) -> str | None:
    """What mlx-lm leaves out of the file's metadata, so that a reader would assume something else."""
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    head_dim = config.get("head_dim")
    if heads and hidden and head_dim and head_dim * heads != hidden:
        return f"mlx-lm's GGUF can't say head_dim={head_dim} where hidden_size / heads is {hidden // heads}"
    for name in ("attention_bias", "mlp_bias"):
        if config.get(name):
            return f"mlx-lm's GGUF is wrong for models with {name}"
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind != "default" and not (kind == "linear" and scaling.get("type") == "linear"):
        return f"mlx-lm's GGUF can't say rope scaling {kind!r}"
    return None


def _vocabulary_problem(path: Path, config: dict[str, Any]) -> str | None:
    try:
        tokenizer = json.loads((path / "tokenizer.json").read_bytes())
        vocabulary, added = tokenizer["model"]["vocab"], tokenizer.get("added_tokens") or []
    except FileNotFoundError:
        return f"mlx-lm's GGUF needs a tokenizer.json, which {path} has not"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path / 'tokenizer.json'} can't be read ({error})"
    if not tokenizer["model"].get("byte_fallback"):
        return (
            "mlx-lm's GGUF says every tokenizer is SentencePiece, and this one is not: llama.cpp would read it wrongly"
        )
    ids = {*vocabulary.values()} if isinstance(vocabulary, dict) else {*range(len(vocabulary))}
    count = len(ids | {token["id"] for token in added})
    rows = config.get("vocab_size")
    if rows != count:
        return f"the model has {rows} token embeddings but its tokenizer {count} tokens, which llama.cpp refuses"
    return None
