"""The coefficients of the memory formula, by back end: how many arrays of each size live at the peak.

Measured: the CPU's, by ``benchmarks/memory_grid.py`` and ``memory_fit.py`` (about half of its configurations fitted; the fused
loss's three on a compiled step alone). CUDA's are the CPU's with the part above the weights scaled to two measured runs of
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
    boundary: float
    ahead_mlp: float
    ahead_hidden: float
    ahead_attention: float
    gc_loss: float
    recompute: float
    back_attention: float
    back_mlp: float
    back_hidden: float
    back_wide: float
    scale: float = Field(default=1.0, description="Of everything above the resident part, without grad_checkpoint")
    scale_gc: float = Field(default=1.0, description="The same with grad_checkpoint")
    error: float = Field(description="The largest relative error seen on configurations that were not fitted")
    origin: str


_CPU = Coefficients(
    hidden=4.59,
    query=4.244,
    key=1.894,
    mlp=5.16,
    expert_hidden=2.907,
    expert_mlp=4.446,
    norm=1.037,
    packed=1.055,
    attention=0.955,
    score_cap=1.112,
    wide=0.903,
    full=1.121,
    lora=0.809,
    rank=1.001,
    dropout=1.374,
    dora=0.885,
    dora_weight=1.016,
    dora_ahead=0.99,
    logits=4.07,
    logits32=0.059,
    softcap=1.194,
    fused=4.515,
    fused32=0.0,
    fused_hidden=3.183,
    update=3.687,
    boundary=1.143,
    ahead_mlp=6.852,
    ahead_hidden=2.09,
    ahead_attention=0.213,
    gc_loss=1.788,
    recompute=1.557,
    back_attention=2.001,
    back_mlp=8.213,
    back_hidden=6.007,
    back_wide=1.571,
    error=0.23,
    origin="measured on MLX's CPU back end",
)
_CPU_UNCOMPILED = Coefficients(
    hidden=4.46,
    query=4.149,
    key=1.894,
    mlp=4.631,
    expert_hidden=2.882,
    expert_mlp=4.315,
    norm=1.001,
    packed=1.0,
    attention=0.981,
    score_cap=1.108,
    wide=0.992,
    full=1.082,
    lora=0.868,
    rank=0.999,
    dropout=1.289,
    dora=0.897,
    dora_weight=0.986,
    dora_ahead=0.917,
    logits=4.036,
    logits32=0.045,
    softcap=1.851,
    fused=4.4,
    fused32=0.1,
    fused_hidden=3.0,
    update=3.214,
    boundary=1.135,
    ahead_mlp=4.93,
    ahead_hidden=1.999,
    ahead_attention=0.154,
    gc_loss=0.987,
    recompute=1.168,
    back_attention=1.858,
    back_mlp=7.488,
    back_hidden=4.91,
    back_wide=1.917,
    error=0.15,
    origin="measured on MLX's CPU back end with MLX_DISABLE_COMPILE",
)
# One H200, MLX 0.32.4, Qwen2.5-3B's shape, batch 4 x 2,048, 16 layers, rank 8: 41.7 GB without and 29.4 GB with
# grad_checkpoint gave the two factors; 37.4 GB in 4 bits was then met within 3 %.
_CUDA = _CPU.model_copy(
    update={"scale": 0.741, "scale_gc": 1.547, "error": 0.25, "origin": "the CPU's, scaled to two runs on one H200"}
)
# The same model with the fused loss and small command buffers (training/measures.py): 12.6 GB with grad_checkpoint.
_CUDA_LIMITED = _CUDA.model_copy(update={"scale_gc": 0.759, "origin": "the CPU's, scaled to three runs on one H200"})
# The same model without CUDA graphs, which gives nothing back before a step ends: 45.5 to 51.6 GB without and 51.5 GB with
# grad_checkpoint.
_CUDA_NO_GRAPHS = _CUDA.model_copy(
    update={"scale": 0.948, "scale_gc": 3.02, "origin": "the CPU's, scaled to some runs on one H200"}
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
