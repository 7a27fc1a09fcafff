"""Configurations for the memory grid drawn by chance, so that nobody chooses what the estimate is tested on.

Every drawn configuration has a model shape of its own. A draw is fixed by its seed (``random.Random`` gives the same numbers
everywhere). Ranges are what a CPU measures in minutes: MLX's 16-bit products are slow there, so those rows are short, and
it has no 16-bit expert layers, so mixtures of experts have 32-bit activations.
"""

from __future__ import annotations

import random
from typing import Any

Config = dict[str, Any]
Row = tuple[str, str, int, int, int, dict[str, Any]]
"""Shape, type, batch, tokens, trained layers, more options: as in ``memory_grid.py``."""

_TYPES = ("qwen2", "llama", "qwen3", "phi3", "gemma2", "gemma3_text", "cohere", "mixtral", "qwen3_moe")
_OWN_HEAD_DIM = ("llama", "qwen3", "gemma2", "gemma3_text", "qwen3_moe")  # elsewhere hidden_size / heads
_ALWAYS_TIED, _NEVER_TIED = ("gemma2", "gemma3_text", "cohere"), ("phi3", "mixtral", "qwen3_moe")
_SHORT = ((1, 96), (1, 128), (1, 160), (1, 192), (2, 64), (2, 96))  # batch and tokens of 16-bit rows
_MORE: dict[str, Config] = {
    "gemma2": {"query_pre_attn_scalar": 64},
    "gemma3_text": {"query_pre_attn_scalar": 64, "sliding_window": 128},
    "cohere": {"layer_norm_eps": 1e-5, "use_qk_norm": False},
}


def draw(seed: int, count: int, size: float = 1.0) -> tuple[dict[str, Config], list[Row]]:
    """``count`` new shapes by name, and one row for each; ``size``: share of the largest batches' tokens and logits."""
    choose = random.Random(seed)
    shapes: dict[str, Config] = {}
    rows: list[Row] = []
    for number in range(count):
        config = _shape(choose)
        name = f"{config['model_type']}-{seed}-{number}"
        shapes[name] = config
        rows.append(_row(choose, name, config, size))
    return shapes, rows


def draw_16_bit(seed: int, count: int, size: float) -> tuple[dict[str, Config], list[Row]]:
    """The first ``count`` rows of a long draw that are DoRA or full fine-tuning with 16-bit activations, which are rare."""
    shapes, rows = draw(seed, 50 * count, size)
    found = [row for row in rows if row[1].endswith("16") and "fine_tune_type" in row[5]][:count]
    return {row[0]: shapes[row[0]] for row in found}, found


def _shape(choose: random.Random) -> Config:
    kind = choose.choice(_TYPES)
    hidden = choose.choice((192, 256, 320, 384, 448, 512))
    if kind in _OWN_HEAD_DIM:
        size, heads = choose.choice(((32, 4), (32, 6), (32, 8), (48, 4), (48, 8), (64, 3), (64, 5), (64, 6), (64, 8)))
    else:
        size, heads = 64, hidden // 64
    ratio = choose.choice((1.5, 2, 2.75, 3.5, 4, 6))
    tied = kind in _ALWAYS_TIED or (kind not in _NEVER_TIED and choose.random() < 0.5)
    config: Config = {
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": choose.randint(3, 10),
        "intermediate_size": int(hidden * ratio) // 64 * 64,
        "num_attention_heads": heads,
        "num_key_value_heads": choose.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        "head_dim": size,
        "vocab_size": choose.choice((2000, 4000, 7000, 12000, 20000, 32000, 48000)),
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        **_MORE.get(kind, {}),
        **_experts(choose, kind),
    }
    if kind == "gemma3_text":  # mlx-lm looks at the last layer of a pattern, which must be there
        config["sliding_window_pattern"] = min(6, config["num_hidden_layers"])
    return config


def _experts(choose: random.Random, kind: str) -> Config:
    if kind == "mixtral":
        return {"num_local_experts": choose.choice((4, 8)), "num_experts_per_tok": 2}
    if kind != "qwen3_moe":
        return {}
    return {
        "num_experts": choose.choice((8, 16)),
        "num_experts_per_tok": choose.choice((2, 4)),
        "moe_intermediate_size": choose.choice((128, 192, 256)),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    }


def _row(choose: random.Random, name: str, config: Config, size: float) -> Row:
    experts = "num_experts_per_tok" in config
    kind = choose.choice(("32", "32", "4+32", "4+32") if experts else ("32", "32", "4+32", "16", "4+16"))
    logits = 3e7 * size / config["vocab_size"]
    if kind.endswith("32"):
        batch, tokens = choose.randint(1, 4), 32 * choose.randint(4, 18)
        while batch * tokens > min(1536 * size, logits):
            batch, tokens = choose.randint(1, 4), 32 * choose.randint(2, 18)
    else:
        batch, tokens = choose.choice(_SHORT)
        while batch * tokens > logits:
            batch, tokens = choose.choice(_SHORT)
    more: dict[str, Any] = {}
    style = choose.random()
    if style < 0.2 and not experts:
        more["fine_tune_type"] = "dora"
    elif style > 0.85 and not kind.startswith("4") and not experts:
        more["fine_tune_type"] = "full"
    if more.get("fine_tune_type") != "full" and choose.random() < 0.6:
        rank, dropout = choose.choice((4, 16, 24, 32, 64)), choose.choice((0.0, 0.0, 0.05, 0.1))
        more["lora_parameters"] = {"rank": rank, "dropout": dropout}
    if choose.random() < 0.4:
        more["grad_checkpoint"] = True
    if choose.random() < 0.35:
        more |= {"fused_loss": True, "chunk": choose.choice((32, 64, 96, 128))}
    return name, kind, batch, tokens, choose.randint(1, config["num_hidden_layers"]), more
