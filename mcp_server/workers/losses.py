"""Cross-entropy over the trained tokens of a batch.

A batch is ``(tokens, where)``: tokens (B, L) int32, and where it is trained, either as mlx-lm says it, one span of a row
as ``[offset, length]``, shape (B, 2), or as a mask of its targets, shape (B, L - 1), bool. ``targets[:, t]`` is
``tokens[:, t + 1]``.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner import trainer

# Of model, tokens and where: the mean over the trained targets, and their number.
Loss = Callable[[nn.Module, mx.array, mx.array], tuple[mx.array, mx.array]]


def target_mask(tokens: mx.array, where: mx.array) -> mx.array:
    """Which targets are trained, (B, L - 1) bool; of spans exactly what ``trainer.default_loss`` trains."""
    if where.dtype == mx.bool_:
        return where
    steps = mx.arange(1, tokens.shape[1])
    return mx.logical_and(steps >= where[:, 0:1], steps <= where[:, 1:])


def masked_loss(model: nn.Module, tokens: mx.array, where: mx.array) -> tuple[mx.array, mx.array]:
    """Mean cross-entropy (nats, float32) over the trained targets, and their number.

    On spans it is ``trainer.default_loss`` itself, to the last bit. With no trained target the loss is 0, not 0/0.
    """
    if where.dtype != mx.bool_:
        return trainer.default_loss(model, tokens, where)
    logits = model(tokens[:, :-1])
    losses = nn.losses.cross_entropy(logits, tokens[:, 1:]) * where
    count = where.sum()
    return losses.astype(mx.float32).sum() / mx.maximum(count, 1), count


def weighed(loss: Loss) -> Callable[..., tuple[mx.array, mx.array]]:
    """``loss`` of a share of a batch, times what the share counts for (``batches.Share``)."""

    def of(model: nn.Module, tokens: mx.array, where: mx.array, weight: mx.array) -> tuple[mx.array, mx.array]:
        value, count = loss(model, tokens, where)
        return value * weight, count

    return of
