"""The coefficients of the memory formula, by back end."""

from __future__ import annotations

from pydantic import BaseModel


class Coefficients(BaseModel, frozen=True):
    """The k of ``memory.py``: how many arrays of each size live at the peak."""

    hidden: float = 4.0
    query: float = 3.0
    key: float = 2.0
    mlp: float = 4.0
    expert_hidden: float = 3.0
    expert_mlp: float = 4.0
    attention: float = 1.1
    lora: float = 1.0
    rank: float = 1.0
    dropout: float = 1.0
    dora: float = 1.0
    dora_weight: float = 1.0
    logits: float = 4.4
    logits32: float = 1.0
    softcap: float = 1.0
    update: float = 2.0
    boundary: float = 2.9
    gc_loss: float = 1.0
    recompute: float = 1.0
    back_attention: float = 3.0
    back_mlp: float = 2.0
    back_hidden: float = 2.0
    wide: float = 1.2
