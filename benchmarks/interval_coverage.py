"""How often 95 % intervals of a loss difference hold the true one, by kind: ours, percentile, BCa and Student's t.

Simulated benchmarks: rows of 5 to 100 tokens whose difference per token is drawn from a known distribution. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcp_server.evaluation.statistics import loss_interval

NORMAL = NormalDist()
# Shape → (draw, true mean).
SHAPES: dict[str, tuple[Any, float]] = {
    "normal": (lambda rng, rows: rng.normal(-0.1, 0.3, rows), -0.1),
    "exponential": (lambda rng, rows: 0.05 - rng.exponential(0.2, rows), -0.15),
    "t3": (lambda rng, rows: 0.2 * rng.standard_t(3, rows) - 0.1, -0.1),
    "lognormal": (lambda rng, rows: 0.1 - rng.lognormal(-2, 1, rows), 0.1 - math.exp(-1.5)),
}
T_975 = {20: 2.093, 40: 2.023, 100: 1.984}  # Student's t, rows - 1 degrees of freedom
RESAMPLES = 2000


def intervals(difference: np.ndarray, tokens: np.ndarray, seed: int) -> dict[str, tuple[float, float] | None]:
    """The 95 % interval of each kind; both arrays (rows,)."""
    rng = np.random.default_rng(seed)
    rows = len(difference)
    ratio = difference.sum() / tokens.sum()
    error = math.sqrt(rows / (rows - 1) * float(np.square(difference - ratio * tokens).sum())) / tokens.sum()
    drawn = rng.integers(0, rows, size=(RESAMPLES, rows))
    resampled = difference[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    left = (difference.sum() - difference) / (tokens.sum() - tokens)  # jackknife
    skew = float(((left.mean() - left) ** 3).sum() / (6 * ((left.mean() - left) ** 2).sum() ** 1.5))
    bias = NORMAL.inv_cdf(min(max(float((resampled < ratio).mean()), 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    ends = [bias + (bias + z) / (1 - skew * (bias + z)) for z in (-1.96, 1.96)]
    return {
        "ours": loss_interval(difference, tokens, seed=seed),
        "percentile": tuple(np.percentile(resampled, [2.5, 97.5])),
        "bca": tuple(np.percentile(resampled, [100 * NORMAL.cdf(end) for end in ends])),
        "student": (ratio - T_975[rows] * error, ratio + T_975[rows] * error),
    }


def coverage(shape: str, rows: int, pairs: int) -> dict[str, float]:
    """Share of the simulated benchmarks whose interval holds the truth, by kind."""
    draw, true = SHAPES[shape]
    rng = np.random.default_rng(1)
    hits: Counter[str] = Counter()
    for number in range(pairs):
        tokens = np.clip(np.round(rng.lognormal(3.0, 0.6, rows)), 5, 100)
        for kind, found in intervals(draw(rng, rows) * tokens, tokens, number).items():
            hits[kind] += found is not None and found[0] <= true <= found[1]
    return {kind: round(count / pairs, 3) for kind, count in hits.items()}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    chosen = parser.parse_args()
    found = {f"{shape}, {rows} rows": coverage(shape, rows, chosen.pairs) for shape in SHAPES for rows in T_975}
    print(json.dumps({"benchmark": "coverage of 95 % intervals", "pairs": chosen.pairs, "coverage": found}, indent=1))


if __name__ == "__main__":
    main()
