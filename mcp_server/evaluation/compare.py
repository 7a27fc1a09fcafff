"""From the rows' losses and scores to a comparison, a ranking and what to keep. Used by workers alone (numpy)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mcp_server.evaluation.report import Comparison, Difference, Forgetting, Interval, Keep, Measured, Ranked, judge
from mcp_server.evaluation.statistics import loss_interval, score_interval
from mcp_server.evaluation.words import advise


@dataclass
class Outcome:
    """What one model did on the held-out rows: ``sums`` the summed loss of each, nats, shape (rows,); ``scores`` by name,
    shape (answered rows,). ``adapter`` is None for the base."""

    adapter: str | None
    sums: np.ndarray
    answers: list[str] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return Path(self.adapter).name if self.adapter else "base"

    def measured(self, tokens: np.ndarray) -> Measured:
        """The means; ``tokens``: counted tokens of each row, shape (rows,)."""
        loss = float(self.sums.sum() / tokens.sum())
        means = {name: round(float(values.mean()), 4) for name, values in self.scores.items()}
        return Measured.model_validate({"loss": round(loss, 6), "perplexity": perplexity(loss), **means})


def perplexity(loss: float) -> float:
    """exp(loss), bounded so that it stays a number."""
    return round(math.exp(min(loss, 700.0)), 4)


def compare(base: Outcome, adapter: Outcome, tokens: np.ndarray, seed: int) -> Comparison:
    """``adapter`` against ``base``, paired by row."""
    difference = adapter.sums - base.sums
    interval = _rounded(loss_interval(difference, tokens, seed=seed))
    return Comparison(
        loss_difference=round(float(difference.sum() / tokens.sum()), 6),
        interval_95=interval,
        win_rate=round(float((difference < 0).mean()), 4),
        verdict=judge(interval),
        scores={name: compare_scores(base.scores[name], adapter.scores[name], seed) for name in base.scores},
    )


def compare_scores(base: np.ndarray, adapter: np.ndarray, seed: int) -> Difference:
    """Scores of the same answers' rows, both of shape (rows,); higher is better."""
    both = np.concatenate([base, adapter])
    bounded = bool(((both >= 0) & (both <= 1)).all())
    interval = _rounded(score_interval(adapter - base, bounded=bounded, seed=seed), 4)
    return Difference(
        difference=round(float((adapter - base).mean()), 4),
        interval_95=interval,
        verdict=judge(interval, lower_is_better=False),
    )


def rank(outcomes: list[Outcome], tokens: np.ndarray, seed: int) -> tuple[list[Ranked], Keep]:
    """All outcomes, the base's first of the list, by their loss; and which to keep, paired against the second."""
    base = outcomes[0]
    order = sorted(outcomes, key=lambda outcome: outcome.sums.sum())
    names = _names(outcomes)
    lines = [_line(outcome, base, names[id(outcome)], tokens, seed) for outcome in order]
    first, second = order[0], order[1]
    difference = first.sums - second.sums
    mean = round(float(difference.sum() / tokens.sum()), 6)
    interval = _rounded(loss_interval(difference, tokens, seed=seed))
    verdict = judge(interval)
    keep = Keep(
        name=lines[0].name,
        adapter_path=first.adapter,
        second=lines[1].name,
        loss_difference=mean,
        interval_95=interval,
        verdict=verdict,
        advice=advise(lines[0], lines[1], mean, interval, verdict),
    )
    return lines, keep


def _line(outcome: Outcome, base: Outcome, name: str, tokens: np.ndarray, seed: int) -> Ranked:
    measured = outcome.measured(tokens)
    comparison = compare(base, outcome, tokens, seed) if outcome is not base else None
    return Ranked(
        name=name,
        adapter_path=outcome.adapter,
        loss=measured.loss,
        loss_difference=comparison.loss_difference if comparison else None,
        interval_95=comparison.interval_95 if comparison else None,
        verdict=comparison.verdict if comparison else None,
        exact_match=measured.exact_match,
    )


def _names(outcomes: list[Outcome]) -> dict[int, str]:
    """Folder names; with the folders above them where two are alike."""
    names = [outcome.name for outcome in outcomes]
    return {
        id(outcome): outcome.name if names.count(outcome.name) == 1 else str(outcome.adapter or "base")
        for outcome in outcomes
    }


def forgetting(base: np.ndarray, adapter: np.ndarray, tokens: np.ndarray, seed: int) -> Forgetting:
    """Summed losses on windows of general text, nats, and their tokens; all of shape (windows,)."""
    before, after = float(base.sum() / tokens.sum()), float(adapter.sum() / tokens.sum())
    interval = loss_interval(adapter - base, tokens, seed=seed)
    return Forgetting(
        tokens=int(tokens.sum()),
        base_perplexity=perplexity(before),
        adapter_perplexity=perplexity(after),
        change_percent=_percent(after - before),
        interval_95=(_percent(interval[0]), _percent(interval[1])) if interval else None,
        verdict=judge(interval),
    )


def _percent(difference: float) -> float:
    """Change of the perplexity, %, for a difference of losses, nats per token."""
    return round(100 * math.expm1(min(difference, 700.0)), 2)


def _rounded(interval: Interval | None, digits: int = 6) -> Interval | None:
    return (round(interval[0], digits), round(interval[1], digits)) if interval else None
