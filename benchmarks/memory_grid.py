"""Peak memory of real training steps over a grid of models and settings, against the estimate.

    python benchmarks/memory_grid.py measure --output benchmarks/memory_grid.linux-cpu.json
    python benchmarks/memory_fit.py report benchmarks/memory_grid.linux-cpu.json

Every configuration is a random model of its own shape, adapted as mlx_lm.lora does and trained for two steps by
``mlx_lm.tuner.trainer.train`` (the second has the optimizer's state); measured is ``mx.get_peak_memory()``. The estimate
reads config.json and the header of a safetensors file without data, as it does for a model of any size.

On a Linux CPU, LD_PRELOAD of an OpenBLAS makes 32-bit steps up to 80 times faster; memory is the same.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import memory_draw


def _shape(
    model_type: str,
    hidden: int,
    layers: int,
    mlp: int,
    heads: tuple[int, int, int],
    vocab: int,
    tie: bool,
    **more: Any,
) -> dict[str, Any]:
    """A config.json; ``heads`` is (query heads, key-value heads, head_dim)."""
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": mlp,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "head_dim": heads[2],
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tie,
    } | more


SHAPES: dict[str, dict[str, Any]] = {
    "qwen2": _shape("qwen2", 256, 6, 768, (4, 2, 64), 8000, True),
    "qwen2-wide": _shape("qwen2", 192, 4, 1536, (6, 2, 32), 3000, False),
    "qwen2-vocab": _shape("qwen2", 192, 3, 512, (3, 1, 64), 40000, True),
    "llama": _shape("llama", 384, 5, 1024, (6, 6, 64), 4000, False),
    "llama-deep": _shape("llama", 192, 16, 512, (4, 4, 48), 2000, True),
    "qwen3": _shape("qwen3", 256, 5, 512, (8, 2, 64), 12000, True),
    "phi3": _shape("phi3", 256, 6, 640, (4, 4, 64), 10000, False),
    "gemma2": _shape("gemma2", 256, 6, 768, (4, 2, 64), 16000, True, query_pre_attn_scalar=64),
    "gemma3": _shape(
        "gemma3_text", 256, 6, 768, (4, 1, 64), 16000, True,
        query_pre_attn_scalar=64, sliding_window=128, sliding_window_pattern=6,
    ),
    "cohere": _shape("cohere", 256, 6, 768, (4, 4, 64), 16000, True, layer_norm_eps=1e-5, use_qk_norm=False),
    # Four for the first draw.
    "llama-new": _shape("llama", 320, 7, 896, (5, 1, 64), 24000, True),
    "qwen2-new": _shape("qwen2", 448, 5, 640, (7, 7, 64), 5000, False),
    "gemma2-new": _shape("gemma2", 384, 4, 512, (6, 3, 64), 9000, True, query_pre_attn_scalar=64),
    "qwen3-new": _shape("qwen3", 192, 6, 896, (6, 2, 48), 20000, False),
    "mixtral": _shape("mixtral", 256, 5, 512, (4, 2, 64), 6000, False, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": _shape(
        "qwen3_moe", 256, 5, 512, (8, 2, 32), 8000, False,
        num_experts=8, num_experts_per_tok=4, decoder_sparse_step=1, mlp_only_layers=[],
        moe_intermediate_size=192, norm_topk_prob=True,
    ),
}  # fmt: skip

# name: shape, type ("32", "16" or "4+16": 4-bit weights with 16-bit scales, "4+32"), batch, tokens, trained layers, more
Row = tuple[str, str, int, int, int, dict[str, Any]]
GC = {"grad_checkpoint": True}
DORA: dict[str, Any] = {"fine_tune_type": "dora"}
FULL: dict[str, Any] = {"fine_tune_type": "full"}


def _lora(rank: int, dropout: float = 0.0) -> dict[str, Any]:
    return {"lora_parameters": {"rank": rank, "dropout": dropout}}


FITTED: list[Row] = [
    ("qwen2", "32", 2, 256, 4, {}),
    ("qwen2", "32", 1, 512, 6, {}),
    ("qwen2", "32", 4, 128, 1, {}),
    ("qwen2", "32", 2, 256, 4, GC),
    ("qwen2", "32", 1, 1024, 6, GC),
    ("qwen2", "32", 2, 256, 6, DORA),
    ("qwen2", "32", 2, 256, 6, FULL),
    ("qwen2", "32", 2, 256, 6, FULL | GC),
    ("qwen2", "32", 2, 256, 6, DORA | GC),
    ("qwen2", "32", 2, 256, 6, _lora(64, 0.1)),
    ("qwen2", "16", 2, 256, 4, {}),
    ("qwen2", "16", 1, 512, 6, {}),
    ("qwen2", "16", 2, 256, 4, GC),
    ("qwen2", "16", 1, 256, 6, FULL),
    ("qwen2", "16", 1, 256, 6, DORA),
    ("qwen2", "16", 2, 128, 6, _lora(32, 0.1)),
    ("qwen2", "4+16", 1, 256, 4, {}),
    ("qwen2", "4+16", 1, 256, 4, GC),
    ("qwen2", "4+16", 1, 128, 6, DORA),
    ("qwen2", "4+32", 2, 256, 4, {}),
    ("qwen2", "4+32", 2, 256, 4, GC),
    ("qwen2-vocab", "32", 1, 256, 1, {}),
    ("qwen2-vocab", "32", 1, 256, 3, GC),
    ("qwen2-vocab", "16", 1, 256, 2, {}),
    ("qwen2-vocab", "16", 1, 256, 2, GC),
    ("qwen2-wide", "16", 1, 256, 4, GC),
    ("llama", "32", 2, 256, 5, {}),
    ("llama", "32", 1, 1024, 3, {}),
    ("llama", "32", 1, 1024, 5, GC),
    ("llama", "32", 4, 64, 5, FULL),
    ("llama", "16", 1, 512, 3, {}),
    ("llama-deep", "32", 1, 512, 16, {}),
    ("llama-deep", "32", 2, 512, 16, GC),
    ("llama-deep", "16", 1, 256, 16, {}),
    ("llama-deep", "16", 1, 512, 16, GC),
    ("qwen3", "32", 2, 256, 5, {}),
    ("qwen3", "32", 1, 768, 2, {}),
    ("qwen3", "16", 1, 256, 4, {}),
    ("gemma2", "32", 2, 256, 4, {}),
    ("gemma2", "32", 2, 256, 4, GC),
    ("gemma2", "16", 1, 256, 4, {}),
    ("cohere", "32", 2, 256, 4, {}),
    ("mixtral", "32", 2, 256, 5, {}),
    ("mixtral", "32", 1, 512, 2, {}),
    ("mixtral", "32", 2, 256, 5, GC),
    ("mixtral", "4+32", 1, 256, 5, {}),  # MLX has no 16-bit expert layers on the CPU
]

HELD_OUT: list[Row] = [
    ("qwen2", "32", 1, 768, 2, {}),
    ("qwen2", "32", 4, 256, 6, {}),
    ("qwen2", "32", 4, 256, 2, GC),
    ("qwen2", "32", 1, 512, 3, DORA),
    ("qwen2", "32", 1, 512, 3, FULL),
    ("qwen2", "32", 2, 512, 4, _lora(16, 0.05)),
    ("qwen2", "16", 1, 768, 3, {}),
    ("qwen2", "16", 1, 512, 6, GC),
    ("qwen2", "4+16", 1, 384, 6, {}),
    ("qwen2", "4+32", 1, 512, 6, {}),
    ("qwen2-wide", "32", 2, 256, 4, {}),
    ("qwen2-wide", "32", 1, 1024, 2, {}),
    ("qwen2-wide", "32", 2, 512, 4, GC),
    ("qwen2-wide", "16", 1, 256, 4, {}),
    ("qwen2-wide", "16", 1, 512, 3, GC),
    ("phi3", "16", 1, 256, 4, GC),
    ("qwen2-wide", "4+16", 1, 256, 4, {}),
    ("qwen2-wide", "32", 2, 256, 4, FULL),
    ("qwen2-vocab", "32", 2, 128, 3, {}),
    ("qwen2-vocab", "16", 1, 192, 3, GC),
    ("llama", "32", 4, 128, 2, {}),
    ("llama", "32", 4, 256, 5, GC),
    ("llama", "32", 1, 256, 5, DORA),
    ("llama", "16", 1, 256, 5, {}),
    ("llama", "16", 1, 512, 5, GC),
    ("llama-deep", "32", 2, 256, 8, {}),
    ("llama-deep", "32", 4, 128, 16, _lora(128)),
    ("llama-deep", "16", 2, 128, 8, {}),
    ("qwen3", "32", 4, 128, 3, {}),
    ("qwen3", "32", 2, 512, 5, GC),
    ("qwen3", "16", 1, 384, 5, GC),
    ("phi3", "32", 2, 256, 6, {}),
    ("phi3", "32", 1, 768, 3, {}),
    ("phi3", "32", 2, 512, 6, GC),
    ("phi3", "16", 1, 256, 6, {}),
    ("gemma2", "32", 1, 768, 6, {}),
    ("gemma3", "32", 2, 256, 6, {}),
    ("gemma3", "32", 1, 768, 3, GC),
    ("cohere", "32", 1, 768, 6, {}),
    ("cohere", "32", 2, 256, 6, GC),
    ("cohere", "16", 1, 256, 4, {}),
    ("mixtral", "32", 4, 128, 3, {}),
    ("mixtral", "32", 1, 768, 5, GC),
    ("qwen3_moe", "32", 2, 256, 5, {}),
    ("qwen3_moe", "32", 1, 512, 3, {}),
    ("qwen3_moe", "32", 2, 256, 5, GC),
]

# Thought up and measured when the coefficients were fixed: the only errors that nothing was chosen by.
LATER: list[Row] = [
    ("qwen3_moe", "32", 1, 640, 4, _lora(16)),
    ("qwen3_moe", "32", 1, 640, 4, {}),
    ("qwen3_moe", "32", 1, 512, 5, {}),
    ("mixtral", "32", 1, 640, 4, _lora(16, 0.05)),
    ("qwen2", "32", 3, 320, 5, {}),
    ("qwen2-wide", "32", 1, 640, 3, GC),
    ("qwen2-wide", "4+32", 2, 256, 4, {}),
    ("qwen2-vocab", "32", 2, 192, 2, GC),
    ("llama", "32", 2, 384, 4, _lora(24)),
    ("llama", "32", 1, 384, 4, FULL),
    ("llama", "16", 1, 384, 5, {}),
    ("llama-deep", "32", 1, 768, 10, GC),
    ("qwen3", "32", 1, 512, 5, DORA),
    ("qwen3", "4+32", 2, 256, 5, GC),
    ("phi3", "32", 1, 512, 6, FULL),
    ("phi3", "4+32", 2, 320, 4, {}),
    ("gemma3", "32", 1, 512, 6, {}),
    ("gemma3", "16", 1, 256, 4, GC),
    ("cohere", "4+32", 1, 512, 6, GC),
    ("mixtral", "4+32", 2, 192, 4, GC),
    ("qwen3_moe", "4+32", 1, 384, 4, {}),
    ("qwen3_moe", "32", 1, 640, 4, _lora(16, 0.05)),
]

# Drawn by a generator (seed 20261123), half of them on shapes that had not been there. The two that were missed (-27.6 % and
# -16.5 %) led to what is held ahead (``planning/memory.py``); since then these are fitted to.
DRAWN: list[Row] = [
    ("cohere", "4+16", 1, 224, 2, {}),
    ("qwen3-new", "4+32", 3, 224, 1, {}),
    ("qwen2-wide", "4+32", 3, 288, 1, {}),
    ("gemma2-new", "32", 2, 576, 3, {}),
    ("qwen2", "32", 1, 352, 5, GC),
    ("qwen2-new", "4+16", 1, 288, 1, _lora(12, 0.1)),
    ("phi3", "4+32", 3, 288, 5, GC),
    ("qwen3-new", "4+16", 1, 288, 5, _lora(20)),
    ("llama-deep", "32", 1, 160, 11, DORA),
    ("qwen3-new", "4+16", 1, 224, 3, {}),
    ("phi3", "4+32", 3, 448, 5, _lora(20)),
    ("qwen2-new", "32", 3, 576, 4, FULL),
    ("gemma3", "4+16", 1, 288, 2, GC),
    ("llama-new", "32", 2, 576, 1, DORA),
    ("gemma3", "32", 2, 224, 6, _lora(20)),
    ("gemma2-new", "16", 1, 288, 2, DORA),
    ("llama-deep", "4+16", 1, 288, 1, GC),
    ("qwen2-new", "32", 2, 160, 2, {}),
    ("qwen2", "32", 1, 352, 4, GC),
    ("qwen2-new", "4+32", 1, 576, 2, GC),
    ("qwen3", "32", 3, 288, 3, {}),
    ("gemma2-new", "32", 2, 224, 3, FULL),
    ("cohere", "32", 3, 288, 4, {}),
    ("llama-new", "4+16", 1, 288, 5, {}),
]


def _fused(chunk: int) -> dict[str, Any]:
    """With the fused loss, in chunks of so many tokens: the models here are too small for chunks of their own."""
    return {"fused_loss": True, "chunk": chunk}


FUSED_FITTED: list[Row] = [
    ("qwen2", "32", 2, 256, 4, _fused(128)),
    ("qwen2", "32", 2, 256, 4, _fused(64) | GC),
    ("qwen2", "32", 1, 1024, 6, _fused(128) | GC),
    ("qwen2", "16", 2, 128, 4, _fused(64)),
    ("qwen2", "16", 2, 128, 4, _fused(64) | GC),
    ("qwen2", "4+32", 2, 256, 4, _fused(128) | GC),
    ("qwen2-vocab", "32", 1, 512, 3, _fused(64) | GC),
    ("qwen2-vocab", "32", 2, 256, 3, _fused(128) | GC),
    ("qwen2-vocab", "32", 1, 256, 1, _fused(64)),
    ("qwen2-vocab", "16", 1, 192, 2, _fused(64) | GC),
    ("llama-deep", "32", 2, 512, 16, _fused(128) | GC),
    ("gemma2", "32", 2, 256, 4, _fused(64) | GC),
    ("cohere", "32", 2, 256, 6, _fused(64) | GC),
]
FUSED_HELD_OUT: list[Row] = [
    ("qwen2", "32", 4, 256, 6, _fused(192) | GC),
    ("qwen2", "32", 1, 768, 3, _fused(64) | GC),
    ("qwen2-vocab", "32", 2, 384, 3, _fused(96) | GC),
    ("qwen2-vocab", "32", 1, 384, 2, _fused(128)),
    ("qwen2-wide", "32", 2, 512, 4, _fused(128) | GC),
    ("qwen3", "32", 2, 512, 5, _fused(128) | GC),
    ("qwen3", "16", 1, 256, 5, _fused(64) | GC),
    ("phi3", "32", 2, 512, 6, _fused(64) | GC),
    ("gemma2", "32", 1, 768, 6, _fused(128) | GC),
    ("gemma3", "32", 2, 384, 6, _fused(128)),
    ("cohere", "32", 1, 768, 6, _fused(128)),
    ("mixtral", "32", 2, 384, 5, _fused(64) | GC),
]


# What grad_checkpoint holds of a block when there is a next one to go through (``next`` of ``planning/memory.py``): the same step
# with one to all layers trained. Built on.
_SMALL_FUSED = _fused(32) | GC
LAYERS: list[Row] = [
    *((shape, "32", 1, 256, layers, _SMALL_FUSED) for shape in ("qwen2", "cohere", "phi3") for layers in (1, 2, 4, 6)),
    *((shape, "32", 1, 256, layers, _SMALL_FUSED) for shape in ("llama", "qwen3_moe") for layers in (1, 2, 5)),
    *((shape, "16", 1, 128, layers, _SMALL_FUSED) for shape in ("qwen2", "phi3") for layers in (1, 2, 6)),
    *(("phi3", "32", 1, 256, layers, _SMALL_FUSED | DORA) for layers in (1, 6)),
    *(("phi3", "32", 1, 256, layers, _SMALL_FUSED | FULL) for layers in (1, 2)),
]


# Draws in which every row has a shape of its own. Each was committed with formula and coefficients and measured afterwards, as
# far as the time went; what was missed led to a change, and the draw is fitted to since then: the second (gemma3's norms), the
# third (a fused loss of fewer tokens than its chunks; DoRA's adapted weights), the fourth (16-bit weights that DoRA keeps in 32
# bits with grad_checkpoint; a fused loss in one chunk), the fifth (inputs that LoRA casts to 32 bits once for the layers that
# share them; DoRA's adapted weights, which are not there at the loss), the sixth (full fine-tuning: updates that are queued; and
# first weights that the measuring itself held on to), the seventh (phi3: second forward passes of several blocks at once).
# The eighth led to no change: nothing is fitted to it.
_DRAWS = {
    "drawn_again": memory_draw.draw(4112026, 32),
    "drawn_third": memory_draw.draw(23112026, 32, size=0.3),
    "drawn_fourth": memory_draw.draw(24112026, 32, size=0.2),
    "drawn_fifth": memory_draw.draw(25112026, 32, size=0.2),
    "drawn_sixth": memory_draw.draw(26112026, 32, size=0.2),
    "drawn_seventh": memory_draw.draw(27112026, 32, size=0.2),
    "drawn_16_bit": memory_draw.draw_16_bit(28112026, 8, size=0.2),
    "drawn_eighth": memory_draw.draw(29112026, 150, size=0.2),
}
# Their rows that time did not allow to measure then, by number: not fitted to, and measured after the seventh draw's lesson was
# committed.
_LEFT_OVER = {
    "drawn_again": (0, 7, 19, 20, 21, 22, 23, 25, 26, 27, 28, 30, 31),
    "drawn_third": (0, 2, 4, 6, 7, 8, 10, 11, 12, 16, 19, 23, 24, 30, 31),
    "drawn_fourth": (2, 3, 4, 6, 16, 17, 20, 22, 24, 26, 28, 30),
    "drawn_fifth": (4, 10, 23, 29, 31),
}
for _shapes, _ in _DRAWS.values():
    SHAPES |= _shapes


def _name(row: Row) -> str:
    shape, kind, batch, tokens, layers, more = row
    words = [shape, kind, f"{batch}x{tokens}", f"{layers} layers"]
    words += [str(more[key]) for key in ("fine_tune_type",) if key in more]
    if "lora_parameters" in more:
        words.append("rank {rank} dropout {dropout}".format(**more["lora_parameters"]))
    if "chunk" in more:
        words.append(f"fused {more['chunk']}")
    return " ".join(words + (["grad_checkpoint"] if more.get("grad_checkpoint") else []))


def specs() -> list[dict[str, Any]]:
    """Every configuration, with the part it plays."""
    parts = {"fitted": FITTED, "held_out": HELD_OUT, "later": LATER, "drawn": DRAWN}
    parts |= {"fused_fitted": FUSED_FITTED, "fused_held_out": FUSED_HELD_OUT, "layers": LAYERS}
    parts |= {
        part: [row for n, row in enumerate(rows) if n not in _LEFT_OVER.get(part, ())]
        for part, (_, rows) in _DRAWS.items()
    }
    parts["left_over"] = [_DRAWS[part][1][number] for part, numbers in _LEFT_OVER.items() for number in numbers]
    return [_spec(row, part) for part, rows in parts.items() for row in rows]


def _spec(row: Row, part: str) -> dict[str, Any]:
    shape, kind, batch, tokens, layers, more = row
    options = {"model": "m", "data": "d", "batch_size": batch, "max_seq_length": tokens, "num_layers": layers} | more
    chunk = options.pop("chunk", None)
    return {
        "name": _name(row),
        "part": part,
        "shape": shape,
        "type": kind,
        "tokens": tokens,
        "options": options,
    } | ({} if chunk is None else {"chunk": chunk})


def measure_one(spec: dict[str, Any]) -> dict[str, Any]:
    """Build the model, train two steps, and say what they took. Runs in a process of its own."""
    import importlib

    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import quantize_model

    from mcp_server.training.options import TrainingOptions
    from mcp_server.workers import train
    from mcp_server.workers.fused_loss import FusedLoss
    from mcp_server.workers.guard import guard
    from mcp_server.workers.losses import masked_loss
    from mcp_server.workers.steps import run_steps

    config = SHAPES[spec["shape"]]
    module: Any = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict(config))
    if config["model_type"] == "gemma3_text":
        model.pop("lm_head")  # as its sanitize does when the file has none
        model.tie_word_embeddings = True
    model.set_dtype(mx.float32 if spec["type"].endswith("32") else mx.bfloat16)
    if spec["type"].startswith("4"):
        model, config = quantize_model(model, dict(config), group_size=64, bits=4)
    weights: Any = tree_flatten(model.parameters())
    names = {mx.float32: "F32", mx.bfloat16: "BF16", mx.uint32: "U32"}
    header = {name: [names[value.dtype], list(value.shape)] for name, value in weights}
    mx.eval(model.parameters())
    options = TrainingOptions.model_validate(spec["options"])
    train.make_trainable(model, options)
    optimizer = guard(train.make_optimizer(options), options)
    mx.eval(model.parameters())
    trainable = sum(value.size for _, value in cast(list[tuple[str, Any]], tree_flatten(model.trainable_parameters())))
    del weights  # held on to, the first weights would be there beside the trained ones
    with tempfile.TemporaryDirectory() as scratch:
        loss = FusedLoss(model, spec["chunk"]) if "chunk" in spec else masked_loss
        lengths = [spec["tokens"]] * 2
        seconds = run_steps(model, optimizer, options, lengths, config["vocab_size"], Path(scratch), loss)
    return {
        "peak_bytes": mx.get_peak_memory(),
        "trainable_parameters": trainable,
        "seconds": [round(value, 3) for value in seconds],
        "model": {"config": config, "header": header},
    }


def measure(output: Path, only: str | None, timeout: float) -> None:
    """Measure every configuration not yet in ``output``, which is rewritten after each."""
    record: dict[str, Any] = json.loads(output.read_text()) if output.exists() else _empty_record()
    found = {row["name"]: row for row in record["configurations"]}
    every = specs()
    for number, spec in enumerate(every, start=1):
        if spec["name"] in found or (only and only not in spec["name"]):
            continue
        started = time.time()
        command = [sys.executable, __file__, "one", json.dumps(spec)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            print(f"{spec['name']}: not done in {timeout} s", file=sys.stderr)
            continue
        if done.returncode:
            print(f"{spec['name']}: failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        # Configurations of one model share its config and header.
        record["models"][f"{spec['shape']} {spec['type']}"] = result.pop("model")
        found[spec["name"]] = spec | result
        record["configurations"] = [found[each["name"]] for each in every if each["name"] in found]
        write_record(record, output)
        peak = found[spec["name"]]["peak_bytes"] / 1e6
        print(f"{number}/{len(every)} {spec['name']}: {peak:.1f} MB, {time.time() - started:.1f} s", file=sys.stderr)


def _empty_record() -> dict[str, Any]:
    on_mac = platform.system() == "Darwin"
    backend = "apple-silicon" if on_mac else "linux-cuda" if Path("/dev/nvidiactl").exists() else "linux-cpu"
    return {
        "backend": backend,
        "compiled": os.environ.get("MLX_DISABLE_COMPILE") is None,
        "versions": {name: importlib.metadata.version(name) for name in ("mlx", "mlx-lm")},
        "measured_on": f"{platform.platform()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}",
        "models": {},
        "configurations": [],
    }


def write_record(record: dict[str, Any], output: Path) -> None:
    """As JSON with a line for each model and each configuration."""
    rest = {name: value for name, value in record.items() if name not in ("models", "configurations")}
    models = ",\n".join(f"{json.dumps(name)}: {json.dumps(model)}" for name, model in record["models"].items())
    rows = ",\n".join(json.dumps(row) for row in record["configurations"])
    head = json.dumps(rest)[:-1]
    output.write_text(f'{head},\n"models": {{\n{models}\n}},\n"configurations": [\n{rows}\n]}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--output", type=Path, required=True)
    measuring.add_argument("--only", help="configurations whose name contains this")
    measuring.add_argument("--timeout", type=float, default=300)
    one = commands.add_parser("one")
    one.add_argument("spec")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        measure(arguments.output, arguments.only, arguments.timeout)
    elif arguments.command == "one":
        print(json.dumps(measure_one(json.loads(arguments.spec))))


if __name__ == "__main__":
    main()
