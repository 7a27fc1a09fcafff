"""The coefficients of the memory formula, by back end: how many arrays of each size live at the peak.

Measured: the CPU's, by ``benchmarks/memory_grid.py`` and ``memory_fit.py`` (266 of its configurations fitted; the fused loss's
three on a compiled step alone). CUDA's are the CPU's with the part above the weights scaled to two measured runs of
one model. **None was measured on a Mac**: Metal starts from the CPU's, and every probe and every finished training on the
machine corrects it (``calibration.py``).
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
    merges: bool = Field(default=True, description="Equal operations are done once, as in a step that mlx compiles")
    scale: float = Field(default=1.0, description="Of everything above the resident part, without grad_checkpoint")
    scale_gc: float = Field(default=1.0, description="The same with grad_checkpoint")
    error: float = Field(description="Relative, at most so large on what was not fitted; see Order in memory.py")
    origin: str


_CPU = Coefficients(
    hidden=4.643,
    query=4.227,
    key=1.887,
    mlp=5.035,
    expert_hidden=2.874,
    expert_mlp=4.287,
    norm=1.05,
    packed=1.184,
    attention=0.993,
    score_cap=1.114,
    wide=1.028,
    full=0.583,
    lora=1.012,
    rank=1.002,
    dropout=0.983,
    dora=0.952,
    dora_weight=1.01,
    dora_ahead=0.578,
    logits=4.031,
    logits32=0.193,
    softcap=1.143,
    fused=4.347,
    fused32=0.025,
    fused_hidden=2.967,
    update=2.04,
    update_ahead=3.047,
    boundary=1.142,
    ahead_mlp=6.645,
    ahead_hidden=2.179,
    ahead_attention=0.314,
    gc_loss=1.777,
    gc_loss_expert=0.869,
    recompute=1.129,
    next=0.501,
    next_packed=1.232,
    back_attention=2.776,
    back_mlp=10.584,
    back_mlp_held=3.568,
    back_hidden=7.451,
    back_wide=1.849,
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
# One H200, MLX 0.32.4, Qwen2.5-3B's shape, batch 4 x 2,048, 16 layers, rank 8: 41.7 GB without and 29.4 GB with
# grad_checkpoint gave the two factors; 37.4 GB in 4 bits was then met within 3 %.
_CUDA = _CPU.model_copy(
    update={"scale": 0.763, "scale_gc": 1.507, "error": 0.25, "origin": "the CPU's, scaled to two runs on one H200"}
)
# The same model with the fused loss and small command buffers (training/measures.py): 12.6 GB with grad_checkpoint.
_CUDA_LIMITED = _CUDA.model_copy(update={"scale_gc": 0.797, "origin": "the CPU's, scaled to three runs on one H200"})
# The same model without CUDA graphs, which gives nothing back before a step ends: 45.5 to 51.6 GB without and 51.5 GB with
# grad_checkpoint.
_CUDA_NO_GRAPHS = _CUDA.model_copy(
    update={"scale": 0.976, "scale_gc": 2.95, "origin": "the CPU's, scaled to some runs on one H200"}
)
_METAL = _CPU.model_copy(update={"error": 0.35, "origin": "MLX's CPU back end; not measured on a Mac"})


def coefficients(
    backend: str, *, compiled: bool | None = None, limited: bool = False, graphs: bool = True
) -> Coefficients:
    """Those of ``backend``; ``limited``: with the fused loss and small command buffers; ``graphs``: CUDA's.

    ``compiled``: whether mlx compiles the step, as it does unless MLX_DISABLE_COMPILE is set.
    """
    if compiled is None:
        compiled = os.environ.get("MLX_DISABLE_COMPILE") is None
    if backend == "linux-cpu":
        return _CPU if compiled else _CPU_UNCOMPILED
    if backend == "linux-cuda":
        return _CUDA_NO_GRAPHS if not graphs else _CUDA_LIMITED if limited else _CUDA
    return _METAL
