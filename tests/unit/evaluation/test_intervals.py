"""The intervals cover the true difference as often as they say, over many simulated benchmarks."""

from __future__ import annotations

import numpy as np
import pytest

from mcp_server.evaluation.report import FEWEST_ROWS
from mcp_server.evaluation.statistics import loss_interval, score_interval

PAIRS = 200
# Per-token differences of the rows: shape → (draw, true mean).
SHAPES = {
    "normal": (lambda rng, rows: rng.normal(-0.05, 0.3, rows), -0.05),
    "skewed": (lambda rng, rows: 0.05 - rng.gamma(2.0, 0.1, rows), -0.15),
    "heavy tails": (lambda rng, rows: 0.2 * rng.standard_t(4, rows) - 0.1, -0.1),
    "none": (lambda rng, rows: rng.normal(0.0, 0.1, rows), 0.0),
}


def coverage(shape: str, rows: int, pairs: int, seed: int) -> float:
    """Share of simulated benchmarks whose interval holds the true difference. Rows have 5 to 100 tokens."""
    draw, true = SHAPES[shape]
    rng = np.random.default_rng(seed)
    hits = 0
    for number in range(pairs):
        tokens = np.clip(np.round(rng.lognormal(3.0, 0.6, rows)), 5, 100)
        interval = loss_interval(draw(rng, rows) * tokens, tokens, seed=number)
        assert interval is not None
        hits += interval[0] <= true <= interval[1]
    return hits / pairs


@pytest.mark.parametrize("shape", SHAPES)
def test_95_percent_interval_covers_93_to_97_percent_of_200_simulated_pairs(shape: str):
    assert 0.93 <= coverage(shape, 60, PAIRS, seed=20) <= 0.97


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rows", [20, 40, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_does_not_hang_on_the_seed(shape: str, rows: int):
    # 1,000 pairs: a standard error of 0.7 points. Few and skewed rows are the hardest.
    assert (0.90 if shape == "skewed" and rows == 20 else 0.93) <= coverage(shape, rows, 1000, seed=1) <= 0.975


@pytest.mark.parametrize(("wins", "losses"), [(0.0, 0.0), (0.05, 0.0), (0.3, 0.05), (0.5, 0.1), (0.9, 0.0), (1.0, 0.0)])
@pytest.mark.parametrize("rows", [10, 50])
def test_interval_of_scores_covers_even_where_nearly_all_rows_agree(wins: float, losses: float, rows: int):
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(1000):
        drawn = rng.random(rows)
        difference = np.where(drawn < wins, 1.0, np.where(drawn < wins + losses, -1.0, 0.0))
        interval = score_interval(difference, bounded=True, seed=0)
        assert interval is not None
        hits += interval[0] <= wins - losses <= interval[1]
    assert hits >= 930


def test_equal_models_have_an_interval_of_nothing():
    assert loss_interval(np.zeros(40), np.full(40, 9.0), seed=0) == (0.0, 0.0)


def test_too_few_rows_allow_no_interval():
    rows = np.arange(-5.0, FEWEST_ROWS - 5.0)
    assert loss_interval(rows, np.full(FEWEST_ROWS, 9.0), seed=0) is not None
    assert loss_interval(rows[:-1], np.full(FEWEST_ROWS - 1, 9.0), seed=0) is None


def test_rows_that_are_all_alike_allow_no_interval():
    assert loss_interval(np.full(40, -5.0), np.full(40, 9.0), seed=0) is None
    rare = np.zeros(40)
    rare[3] = -5.0
    assert loss_interval(rare, np.full(40, 9.0), seed=0) is None


def test_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(0)
    difference, tokens = rng.normal(size=30), np.full(30, 4.0)
    assert loss_interval(difference, tokens, seed=5) == loss_interval(difference, tokens, seed=5)
    assert loss_interval(difference, tokens, seed=5) != loss_interval(difference, tokens, seed=6)
