"""The coefficients of the memory formula, by back end: how many arrays of each size live at the peak.

Measured: the CPU's, by ``benchmarks/memory_grid.py`` (half of its configurations fitted, half held out). CUDA's are the
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
    hidden=4.301,
    query=4.652,
    key=1.74,
    mlp=6.889,
    expert_hidden=3.072,
    expert_mlp=5.403,
    attention=0.639,
    score_cap=1.048,
    wide=1.07,
    full=1.072,
    lora=0.566,
    rank=0.985,
    dropout=0.937,
    dora=0.529,
    dora_weight=1.062,
    logits=4.344,
    logits32=0.065,
    softcap=1.101,
    update=3.754,
    boundary=0.934,
    gc_loss=1.386,
    recompute=1.831,
    back_attention=2.932,
    back_mlp=2.413,
    back_hidden=2.0,
    back_wide=1.824,
    error=0.16,
    origin="measured on MLX's CPU back end",
)
_CPU_UNCOMPILED = Coefficients(
    hidden=4.163,
    query=4.23,
    key=1.79,
    mlp=6.522,
    expert_hidden=3.047,
    expert_mlp=5.261,
    attention=0.758,
    score_cap=1.143,
    wide=1.133,
    full=1.039,
    lora=0.747,
    rank=0.999,
    dropout=0.94,
    dora=0.425,
    dora_weight=1.009,
    logits=4.244,
    logits32=0.026,
    softcap=1.803,
    update=3.141,
    boundary=0.765,
    gc_loss=0.744,
    recompute=1.684,
    back_attention=1.828,
    back_mlp=2.493,
    back_hidden=1.999,
    back_wide=2.097,
    error=0.12,
    origin="measured on MLX's CPU back end with MLX_DISABLE_COMPILE",
)
# One H200, MLX 0.32.4, Qwen2.5-3B's shape, batch 4 x 2,048, 16 layers, rank 8: 41.7 GB without and 29.4 GB with
# grad_checkpoint gave the two factors; 37.4 GB in 4 bits was then met within 1 %.
_CUDA = _CPU.model_copy(
    update={"scale": 0.702, "scale_gc": 1.538, "error": 0.25, "origin": "the CPU's, scaled to two runs on one H200"}
)
_METAL = _CPU.model_copy(update={"error": 0.35, "origin": "MLX's CPU back end; not measured on a Mac"})


def coefficients(backend: str, *, compiled: bool | None = None) -> Coefficients:
    """Those of ``backend``. ``compiled``: whether mlx compiles the step, as it does unless MLX_DISABLE_COMPILE is set."""
    if compiled is None:
        compiled = os.environ.get("MLX_DISABLE_COMPILE") is None
    if backend == "linux-cpu":
        return _CPU if compiled else _CPU_UNCOMPILED
    return _CUDA if backend == "linux-cuda" else _METAL
