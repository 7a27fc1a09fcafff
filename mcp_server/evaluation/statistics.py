"""How sure a difference is. Used by workers alone (numpy). ``tests/unit/evaluation`` measures how often each covers."""

from __future__ import annotations

import numpy as np

from mcp_server.evaluation.report import FEWEST_ROWS, Interval

_RESAMPLES = 10_000
_DRAWN_AT_ONCE = 2_000_000  # numbers: bounds the memory
_DRAWN_IN_ALL = 200_000_000  # numbers: bounds the time on very large test sets
_Z = 1.959964  # 97.5 % quantile of the normal distribution


def loss_interval(difference: np.ndarray, tokens: np.ndarray, *, seed: int) -> Interval | None:
    """95 % interval of the loss difference per token: symmetric studentized bootstrap over rows (Hall 1988, "On symmetric
    bootstrap confidence intervals").

    ``difference``: per row, one model's summed loss minus the other's, nats, shape (rows,); ``tokens``: counted tokens of
    each row, shape (rows,). Rows are drawn with replacement, both models' losses of a row together; the statistic is the
    ratio of sums, as in the mean loss itself, with the standard error of a ratio (Cochran 1977, section 6.4). The
    percentile and BCa intervals cover too seldom below 100 rows.

    None where nothing can be said: fewer than ``FEWEST_ROWS`` rows, or rows that differ too little among themselves.
    """
    rows = len(difference)
    if rows < FEWEST_ROWS:
        return None
    ratio, error = _ratio(difference, tokens)
    if not difference.any():
        return 0.0, 0.0
    if error <= 1e-9 * abs(ratio):
        return None
    generator = np.random.default_rng(seed)
    resamples = min(_RESAMPLES, max(1000, _DRAWN_IN_ALL // rows))
    deviations = np.empty(resamples)
    at_once = max(1, _DRAWN_AT_ONCE // rows)
    for start in range(0, resamples, at_once):
        drawn = generator.integers(0, rows, size=(min(at_once, resamples - start), rows))
        ratios, errors = _ratio(difference[drawn], tokens[drawn])
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.abs(ratios - ratio) / errors
        deviations[start : start + len(drawn)] = np.where(np.isnan(found), 0.0, found)
    width = float(np.quantile(deviations, 0.95, method="higher") * error)
    return (float(ratio - width), float(ratio + width)) if np.isfinite(width) else None


def _ratio(difference: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sum(difference) / sum(tokens) over the last axis, and its standard error."""
    rows = difference.shape[-1]
    total = np.maximum(tokens.sum(axis=-1), 1)
    ratio = difference.sum(axis=-1) / total
    rest = difference - ratio[..., None] * tokens
    return ratio, np.sqrt(rows / (rows - 1) * np.square(rest).sum(axis=-1)) / total


def score_interval(difference: np.ndarray, *, bounded: bool, seed: int) -> Interval | None:
    """95 % interval of the mean of per-row score differences, shape (rows,).

    Scores within [0, 1] (``bounded``) are often equal on most rows, where every bootstrap fails: two invented rows, one for
    each side, and the normal interval (Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data"; on other scores than 0 and 1 it is only wider). Else as ``loss_interval``.
    """
    rows = len(difference)
    if not bounded:
        return loss_interval(difference, np.ones(rows), seed=seed)
    if not rows:
        return None
    padded = np.append(difference, (1.0, -1.0))
    width = _Z * padded.std() / np.sqrt(rows + 2)
    return max(-1.0, float(padded.mean() - width)), min(1.0, float(padded.mean() + width))
