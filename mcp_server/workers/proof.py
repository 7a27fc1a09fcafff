"""The fused loss proves itself on the job's own model and data before it is used."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mcp_server.training import measures
from mcp_server.training.options import TrainingOptions
from mcp_server.workers import checkpoints
from mcp_server.workers.fused_loss import FusedLoss, UnservedHeadError
from mcp_server.workers.losses import Loss, masked_loss, target_mask
from mcp_server.workers.ranks import Ranks

_ROWS, _TOKENS = 8, 128  # enough to see an error; few, so that stock's loss on them is no peak of memory
_TOLERANCE, _TOLERANCE_16 = 1e-5, 1e-3  # relative; 16-bit types have 8 or 11 bits


def choose_loss(
    model: nn.Module,
    options: TrainingOptions,
    batch: tuple[mx.array, mx.array],
    ranks: Ranks | None = None,
    *,
    coarse: bool = False,
) -> tuple[Loss, str]:
    """The loss to train with, and "on" or "off" with the reason. ``batch``: the run's first, whole.

    ``coarse`` as ``measures.coarse_chunks`` says. All ranks take the same. Neither the weights nor the state of the random
    generator change.
    """
    loss, why = _choose(model, options, batch, coarse=coarse)
    if (ranks or Ranks()).any(loss is masked_loss) and loss is not masked_loss:
        return masked_loss, "off: another rank can't use it"
    return loss, why


def _choose(
    model: nn.Module, options: TrainingOptions, batch: tuple[mx.array, mx.array], *, coarse: bool
) -> tuple[Loss, str]:
    key = checkpoints.random_key()
    try:
        return _proved(model, options, batch, coarse=coarse)
    except UnservedHeadError as error:
        wrong = str(error)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # A model's own code may refuse a backbone that is replaced.
        wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        checkpoints.set_random_key(key)
    return masked_loss, f"off: this model's head can't be taken apart: {wrong}"


def _proved(
    model: nn.Module, options: TrainingOptions, batch: tuple[mx.array, mx.array], *, coarse: bool
) -> tuple[Loss, str]:
    one = cast(mx.array, model(mx.zeros((1, 1), dtype=mx.int32)))  # never computed: its shape and type are known
    wanted, why = measures.fused_loss(options, one.shape[-1], coarse=coarse)
    if not wanted:
        return masked_loss, f"off: {why}"
    fused = FusedLoss(model, measures.chunk_tokens(one.shape[-1], coarse=coarse))
    wrong = _difference(model, fused, batch, _TOLERANCE if one.dtype == mx.float32 else _TOLERANCE_16)
    return (fused, f"on: {why}") if wrong is None else (masked_loss, f"off: {wrong}")


def _difference(model: nn.Module, fused: FusedLoss, batch: tuple[mx.array, mx.array], allowed: float) -> str | None:
    """What is wrong with the loss or its gradient on a cut of ``batch``, next to stock's; None when all is well.

    The gradient is that of the hidden states: what lies below them is the same code for both.
    """
    tokens, where = _cut(*batch)
    trial = FusedLoss(model, max(1, 3 * (tokens.size - len(tokens)) // 8))  # several chunks, the last of them not full
    key, mode = checkpoints.random_key(), model.training
    model.train()
    try:
        hidden = fused.head.hidden(tokens[:, :-1])
        mx.eval(hidden)
        losses: list[float] = []
        gradients: list[mx.array] = []
        for loss in (masked_loss, trial):
            checkpoints.set_random_key(key)  # the same dropout
            losses.append(cast(float, loss(model, tokens, where)[0].item()))
            gradients.append(_gradient(model, fused, loss, hidden, tokens, where))
    finally:
        model.train(mode)
    apart = abs(losses[1] - losses[0]) / max(abs(losses[0]), 1e-6)
    turned = _norm(gradients[1] - gradients[0]) / max(_norm(gradients[0]), 1e-12)
    if apart <= allowed and turned <= allowed:  # NaN is not
        return None
    return f"on the first batch its loss differs from stock's by {apart:.1e} and its gradient by {turned:.1e}"


def _gradient(
    model: nn.Module, fused: FusedLoss, loss: Loss, hidden: mx.array, tokens: mx.array, where: mx.array
) -> mx.array:
    """Of the loss with respect to the hidden states, float32."""

    def of(states: mx.array) -> mx.array:
        with fused.head.giving(states):
            return loss(model, tokens, where)[0]

    return mx.grad(of)(hidden).astype(mx.float32)


def _norm(array: mx.array) -> float:
    return cast(float, mx.linalg.norm(array).item())


def _cut(tokens: mx.array, where: mx.array) -> tuple[mx.array, mx.array]:
    """Some rows of a batch and the places before their last trained one, with the mask of its targets."""
    tokens, mask = tokens[:_ROWS], target_mask(tokens, where)[:_ROWS]
    trained: Any = np.flatnonzero(np.array(mask).any(axis=0))
    end = int(trained[-1]) + 1 if len(trained) else mask.shape[1]
    start = max(0, end - _TOKENS // len(tokens))
    mask = mask[:, start:end]
    return tokens[:, start : end + 1], mask if len(trained) else mx.ones_like(mask)
