"""The coefficients of the memory formula, by back end: how many arrays of each size live at the peak.

Measured: the CPU's, by ``benchmarks/memory_grid.py`` and ``memory_fit.py`` (266 of its configurations fitted; the fused loss's
three on a compiled step alone). CUDA's are the CPU's, changed where ten measured runs of two shapes ask for it. **None was
measured on a Mac**: Metal starts from the CPU's, and every probe and every finished training on the machine corrects it
(``calibration.py``).
"""

from __future__ import annotations

import os

from pydantic import BaseModel, Field


class Coefficients(BaseModel, frozen=True):
    """The k of ``memory.py``."""

    hidden: float
    query: float
    key: float
    mlp: float
    expert_hidden: float
    expert_mlp: float
    norm: float
    packed: float
    attention: float
    score_cap: float
    wide: float
    full: float
    lora: float
    rank: float
    dropout: float
    dora: float
    dora_weight: float
    dora_ahead: float
    logits: float
    logits32: float
    softcap: float
    fused: float
    fused32: float
    fused_hidden: float
    update: float
    update_ahead: float
    boundary: float
    ahead_mlp: float
    ahead_hidden: float
    ahead_attention: float
    gc_loss: float
    gc_loss_expert: float
    recompute: float
    next: float
    next_packed: float
    back_attention: float
    back_mlp: float
    back_mlp_held: float
    back_hidden: float
    back_wide: float
    held: float = Field(default=0.0, description="Of every layer's inputs with grad_checkpoint: whole command buffers")
    merges: bool = Field(default=True, description="Equal operations are done once, as in a step that mlx compiles")
    scale: float = Field(default=1.0, description="Of everything above the resident part, without grad_checkpoint")
    scale_gc: float = Field(default=1.0, description="The same with grad_checkpoint")
    error: float = Field(description="Relative, at most so large on what was not fitted; see Order in memory.py")
    origin: str


_CPU = Coefficients(
    hidden=4.737,
    query=4.227,
    key=1.871,
    mlp=5.125,
    expert_hidden=2.902,
    expert_mlp=4.281,
    norm=1.087,
    packed=1.191,
    attention=0.99,
    score_cap=1.119,
    wide=1.035,
    full=0.648,
    lora=1.008,
    rank=1.006,
    dropout=1.002,
    dora=0.987,
    dora_weight=1.009,
    dora_ahead=0.579,
    logits=4.056,
    logits32=0.204,
    softcap=1.132,
    fused=4.441,
    fused32=0.047,
    fused_hidden=2.948,
    update=2.037,
    update_ahead=3.097,
    boundary=1.139,
    ahead_mlp=7.056,
    ahead_hidden=2.295,
    ahead_attention=0.376,
    gc_loss=1.861,
    gc_loss_expert=1.037,
    recompute=1.087,
    next=0.524,
    next_packed=1.288,
    back_attention=2.896,
    back_mlp=11.037,
    back_mlp_held=3.617,
    back_hidden=8.493,
    back_wide=1.865,
    error=0.16,
    origin="measured on MLX's CPU back end",
)
_CPU_UNCOMPILED = Coefficients(
    hidden=4.496,
    query=4.179,
    key=1.898,
    mlp=4.704,
    expert_hidden=2.883,
    expert_mlp=4.32,
    norm=1.001,
    packed=1.0,
    attention=0.979,
    score_cap=1.108,
    wide=1.067,
    full=0.765,
    lora=1.004,
    rank=1.001,
    dropout=1.02,
    dora=0.907,
    dora_weight=0.998,
    dora_ahead=0.5,
    logits=4.024,
    logits32=0.097,
    softcap=1.843,
    fused=4.4,
    fused32=0.1,
    fused_hidden=3.0,
    update=2.044,
    update_ahead=3.033,
    boundary=1.139,
    ahead_mlp=5.272,
    ahead_hidden=2.014,
    ahead_attention=0.147,
    gc_loss=0.995,
    gc_loss_expert=0.656,
    recompute=0.964,
    next=0.385,
    next_packed=1.0,
    back_attention=2.247,
    back_mlp=10.721,
    back_mlp_held=3.364,
    back_hidden=4.897,
    back_wide=1.8,
    merges=False,
    error=0.09,
    origin="measured on MLX's CPU back end with MLX_DISABLE_COMPILE",
)
# One H200, MLX 0.32.4, Qwen2.5's shapes, batch 4 x 2,048, 16 layers, rank 8. Whole command buffers hold what every layer, trained
# or not, has made: with grad_checkpoint 29.4 and 31.3 GB (3B), 26.3 (3B in 4 bits) and 10.8 (0.5B) gave ``held`` and the
# logits, of which mlx's own kernel for the loss needs fewer; without it 41.7 GB (3B) gave the factor, and 37.4 in 4 bits is met.
_CUDA = _CPU.model_copy(
    update={
        "logits": 1.5,
        "logits32": 0.0,
        "held": 12.5,
        "scale": 0.876,
        "error": 0.25,
        "origin": "a few runs on one H200",
    }
)
# What a whole buffer holds hangs on where it ends: the 0.5B model in 4 bits had 19.4 GB, 10.9 by the formula.
_CUDA_QUANTIZED = _CUDA.model_copy(update={"error": 0.85})
# With small command buffers (training/measures.py) and grad_checkpoint: 12.4 GB (3B), 8.0 (4 bits) and 4.7 (0.5B) with the fused
# loss, 15.2 (3B) without.
_CUDA_LIMITED = _CUDA.model_copy(update={"logits": 3.0, "held": 0.0, "scale": 0.803, "scale_gc": 0.739})
# The 3B model without CUDA graphs, which gives nothing back before a step ends: 45.5 to 51.6 GB without and 51.5 GB with
# grad_checkpoint.
_CUDA_NO_GRAPHS = _CPU.model_copy(
    update={"scale": 0.949, "scale_gc": 2.891, "error": 0.25, "origin": "a few runs on one H200"}
)
_METAL = _CPU.model_copy(update={"error": 0.35, "origin": "MLX's CPU back end; not measured on a Mac"})


def coefficients(
    backend: str,
    *,
    compiled: bool | None = None,
    limited: bool = False,
    graphs: bool = True,
    quantized: bool = False,
) -> Coefficients:
    """Those of ``backend``; ``limited``: with small command buffers; ``graphs``: CUDA's; ``quantized``: the base's weights.

    ``compiled``: whether mlx compiles the step, as it does unless MLX_DISABLE_COMPILE is set.
    """
    if compiled is None:
        compiled = os.environ.get("MLX_DISABLE_COMPILE") is None
    if backend == "linux-cpu":
        return _CPU if compiled else _CPU_UNCOMPILED
    if backend == "linux-cuda":
        if not graphs:
            return _CUDA_NO_GRAPHS
        return _CUDA_LIMITED if limited else _CUDA_QUANTIZED if quantized else _CUDA
    return _METAL
