"""The coefficients of the memory formula, by back end: how many arrays of each size live at the peak.

Measured: the CPU's, by ``benchmarks/memory_grid.py`` (half of its configurations fitted, half held out; the fused loss's
three on a compiled step alone). CUDA's are the
CPU's with the part above the weights scaled to two measured runs of one model. **None was measured on a Mac**: Metal
starts from the CPU's, and every probe and every finished training on the machine corrects it (``calibration.py``).
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
    attention: float
    score_cap: float
    wide: float
    full: float
    lora: float
    rank: float
    dropout: float
    dora: float
    dora_weight: float
    logits: float
    logits32: float
    softcap: float
    fused: float
    fused32: float
    fused_hidden: float
    update: float
    boundary: float
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
    hidden=4.512,
    query=4.528,
    key=1.845,
    mlp=6.501,
    expert_hidden=3.036,
    expert_mlp=5.2,
    attention=0.778,
    score_cap=1.028,
    wide=1.041,
    full=1.073,
    lora=0.678,
    rank=0.99,
    dropout=0.968,
    dora=0.551,
    dora_weight=1.037,
    logits=4.346,
    logits32=0.053,
    softcap=1.077,
    fused=11.85,
    fused32=0.173,
    fused_hidden=3.111,
    update=3.753,
    boundary=1.075,
    gc_loss=1.369,
    recompute=1.8,
    back_attention=2.898,
    back_mlp=2.242,
    back_hidden=1.997,
    back_wide=1.787,
    error=0.14,
    origin="measured on MLX's CPU back end",
)
_CPU_UNCOMPILED = Coefficients(
    hidden=4.36,
    query=4.326,
    key=1.841,
    mlp=6.222,
    expert_hidden=3.021,
    expert_mlp=5.116,
    attention=0.794,
    score_cap=1.104,
    wide=1.124,
    full=1.039,
    lora=0.804,
    rank=0.997,
    dropout=0.97,
    dora=0.471,
    dora_weight=0.996,
    logits=4.253,
    logits32=0.014,
    softcap=1.586,
    fused=11.85,
    fused32=0.173,
    fused_hidden=3.111,
    update=3.214,
    boundary=0.911,
    gc_loss=0.774,
    recompute=1.579,
    back_attention=2.465,
    back_mlp=2.293,
    back_hidden=1.993,
    back_wide=1.89,
    error=0.15,
    origin="measured on MLX's CPU back end with MLX_DISABLE_COMPILE",
)
# One H200, MLX 0.32.4, Qwen2.5-3B's shape, batch 4 x 2,048, 16 layers, rank 8: 41.7 GB without and 29.4 GB with
# grad_checkpoint gave the two factors; 37.4 GB in 4 bits was then met within 3 %.
_CUDA = _CPU.model_copy(
    update={"scale": 0.694, "scale_gc": 1.535, "error": 0.25, "origin": "the CPU's, scaled to two runs on one H200"}
)
# The same model with the fused loss and small command buffers (training/measures.py): 12.6 GB with grad_checkpoint.
_CUDA_LIMITED = _CUDA.model_copy(update={"scale_gc": 0.73, "origin": "the CPU's, scaled to three runs on one H200"})
# The same model without CUDA graphs, which gives nothing back before a step ends: 45.5 to 51.6 GB without and 51.5 GB with
# grad_checkpoint.
_CUDA_NO_GRAPHS = _CUDA.model_copy(
    update={"scale": 0.895, "scale_gc": 3.0, "origin": "the CPU's, scaled to some runs on one H200"}
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
