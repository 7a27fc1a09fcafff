"""How sure a difference is. Used by workers alone (numpy)."""

from __future__ import annotations

import numpy as np

_RESAMPLES = 10_000
_AT_ONCE = 1_000  # resamples drawn together: bounds the memory to this many times the number of rows


def paired_interval(difference: np.ndarray, tokens: np.ndarray, *, seed: int) -> tuple[float, float] | None:
    """95 % interval of the loss difference per token, by paired bootstrap over rows (Efron and Tibshirani 1993, ch. 13).

    ``difference``: per row, adapter's summed loss minus base's, nats, shape (rows,); ``tokens``: tokens of each row,
    shape (rows,). Rows are drawn with replacement, both models' losses of a row together; the statistic is the ratio
    of sums, as in the mean loss itself. None for fewer than two rows, which say nothing about the spread.
    """
    rows = len(difference)
    if rows < 2:
        return None
    generator = np.random.default_rng(seed)
    ratios = np.empty(_RESAMPLES)
    for start in range(0, _RESAMPLES, _AT_ONCE):
        drawn = generator.integers(0, rows, size=(_AT_ONCE, rows))
        ratios[start : start + _AT_ONCE] = difference[drawn].sum(axis=1) / np.maximum(tokens[drawn].sum(axis=1), 1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)
