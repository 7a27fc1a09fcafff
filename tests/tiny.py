"""Tiny random models for tests, made in well under a second each and without any download.

They know nothing: good for loading, converting, planning memory, starting and stopping jobs. For a model that can learn
the demo's task use the committed base (`mcp_server.demo.BASE`). The tokenizer is the base's own.
"""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

from mcp_server.demo import BASE

KINDS = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "cohere", "phi3", "mixtral")
HEADS = 4
# What each kind's config.json needs beyond the common keys.
EXTRA: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16, "sliding_window": 64, "sliding_window_pattern": 2},
    "cohere": {"layer_norm_eps": 1e-5, "use_qk_norm": False},
    "phi3": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
ALWAYS_TIED = ("gemma2", "gemma3_text", "cohere")


def tiny_config(
    model_type: str = "qwen2", *, hidden: int = 64, layers: int = 2, vocab: int | None = None, tie: bool = True
) -> dict[str, Any]:
    """A config.json of `model_type`; `vocab` defaults to the base tokenizer's size and may not be smaller."""
    base: dict[str, Any] = json.loads((BASE / "config.json").read_text())
    smallest: int = base["vocab_size"]
    if vocab is not None and vocab < smallest:
        raise ValueError(f"vocab={vocab}: the tokenizer has {smallest} tokens")
    if not tie and model_type in ALWAYS_TIED:
        raise ValueError(f"tie=False: {model_type} always ties its embeddings here")
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": 2 * hidden,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "head_dim": hidden // HEADS,
        "vocab_size": vocab or smallest,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tie,
        "torch_dtype": "float32",
        "bos_token_id": base["bos_token_id"],
        "eos_token_id": base["eos_token_id"],
        "pad_token_id": base["bos_token_id"],
        **EXTRA[model_type],
    }


def make_tiny_model(
    folder: str | Path,
    *,
    model_type: str = "qwen2",
    hidden: int = 64,
    layers: int = 2,
    vocab: int | None = None,
    tie: bool = True,
    seed: int = 0,
    quantize_bits: int | None = None,
    dtype: str | None = None,
    chat_template: str | None = "base",
    shape: dict[str, Any] | None = None,
) -> Path:
    """Write a random model folder that `mlx_lm.load` takes; gives `folder`.

    `shape` has keys of config.json that replace those made from the other arguments.

    `hidden` is best a multiple of 64 (a smaller multiple of 32 quantises in groups of 32). `chat_template` is the
    template's text, None for a tokenizer without one, or "base" for the demo's ChatML.
    """
    # Imported here, so that test modules can name KINDS and `tiny_config` without paying for MLX.
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import MODEL_REMAPPING, quantize_model

    target = Path(folder)
    target.mkdir(parents=True)
    config = tiny_config(model_type, hidden=hidden, layers=layers, vocab=vocab, tie=tie) | (shape or {})
    module = importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(model_type, model_type)}")
    mx.random.seed(seed)
    model = module.Model(module.ModelArgs.from_dict(config))
    if model_type == "gemma3_text":
        # Its class makes an output head of its own, and drops it on loading when the file has none.
        model.pop("lm_head")
        model.tie_word_embeddings = True
    if quantize_bits is not None:
        group = 64 if config["hidden_size"] % 64 == 0 else 32
        model, config = quantize_model(model, config, group_size=group, bits=quantize_bits)
    if dtype is not None:
        model.set_dtype(getattr(mx, dtype))
        config["torch_dtype"] = dtype
    mx.save_safetensors(str(target / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "pt"})
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_tokenizer(target, chat_template)
    return target


def write_tokenizer(folder: Path, chat_template: str | None = "base") -> None:
    """Copy the base's tokenizer into `folder`; `chat_template` as in `make_tiny_model`."""
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(BASE / name, folder / name)
    settings: dict[str, Any] = json.loads((BASE / "tokenizer_config.json").read_text())
    # transformers would pick a class by the model's type (a SentencePiece one for some); this one reads tokenizer.json.
    settings["tokenizer_class"] = "TokenizersBackend"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if chat_template == "base":
        shutil.copy(BASE / "chat_template.jinja", folder / "chat_template.jinja")
    elif chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
