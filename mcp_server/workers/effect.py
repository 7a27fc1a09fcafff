"""How much of what an adapter does to the logits a fused model still does."""

from __future__ import annotations

import math
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mcp_server.conversion.report import LogitChange
from mcp_server.workers.text import Row

Logits = list[mx.array]
MOST_FLOATS = 128 * 10**6  # of one model's logits, which are held for base and adapter: 0.5 GB each
MOST_POSITIONS = 4096


def position_limit(vocabulary: int) -> int:
    """Positions to compare, so that the logits stay within bounds."""
    return max(64, min(MOST_POSITIONS, MOST_FLOATS // vocabulary))


def logits_of(model: nn.Module, rows: list[Row]) -> Logits:
    """Of each row, shape (tokens, vocabulary), float32."""
    model.eval()
    found: Logits = []
    for row in rows:
        found.append(model(mx.array([row]))[0].astype(mx.float32))
        mx.eval(found[-1])
    return found


def vocabulary_of(model: nn.Module) -> int:
    """The width of the logits."""
    return model(mx.array([[0]])).shape[-1]


def change(first: Logits, second: Logits) -> LogitChange:
    """``second`` against ``first``, over all positions and tokens."""
    largest = absolute = divergence = same = 0.0
    for one, other in zip(first, second, strict=True):
        difference = mx.abs(other - one)
        p = one - mx.logsumexp(one, axis=-1, keepdims=True)
        q = other - mx.logsumexp(other, axis=-1, keepdims=True)
        largest = max(largest, _number(difference.max()))
        absolute += _number(difference.mean(axis=-1).sum())
        divergence += _number((mx.exp(p) * (p - q)).sum())
        same += _number((one.argmax(axis=-1) == other.argmax(axis=-1)).sum())
    positions = sum(len(part) for part in first)
    return LogitChange(
        max_difference=_rounded(largest),
        mean_difference=_rounded(absolute / positions),
        kl=_rounded(max(divergence / positions, 0.0)),
        top1_agreement=round(same / positions, 4),
    )


def kept(base: Logits, adapted: Logits, fused: Logits) -> dict[str, float]:
    """What is left of the adapter's effect a = adapted - base in f = fused - base, over all logits together.

    ``effect_kept`` <f, a> / <a, a>: 1 when all of it is there, 0 when none, whatever noise was added.
    ``relative_error`` |f - a| / |a|; ``norm_ratio`` |f| / |a|, which noise alone can make large.
    Empty when the adapter changes nothing.
    """
    aa = fa = ff = ee = 0.0
    for zero, one, other in zip(base, adapted, fused, strict=True):
        a, f = one - zero, other - zero
        parts = mx.stack([(a * a).sum(), (f * a).sum(), (f * f).sum(), mx.square(f - a).sum()])
        sums = [float(value) for value in np.array(parts)]
        aa, fa, ff, ee = aa + sums[0], fa + sums[1], ff + sums[2], ee + sums[3]
    if aa == 0:
        return {}
    return {
        "effect_kept": round(fa / aa, 4),
        "relative_error": _rounded(math.sqrt(ee / aa)),
        "norm_ratio": round(math.sqrt(ff / aa), 4),
    }


def perplexity(logits: Logits, rows: list[Row]) -> float:
    """Of the rows' own next tokens."""
    total, count = 0.0, 0
    for part, row in zip(logits, rows, strict=True):
        losses = nn.losses.cross_entropy(part[:-1], mx.array(row[1:]))
        total, count = total + _number(losses.sum()), count + len(row) - 1
    return round(math.exp(min(total / count, 700)), 4)


def _number(value: mx.array) -> float:
    return float(cast(float, value.item()))


def _rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")
