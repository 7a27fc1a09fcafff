"""What a benchmark reports: numbers, their uncertainty, and a verdict in words."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Verdict = Literal["better", "worse", "no evidence"]


class Measured(BaseModel):
    """One model on the test set."""

    loss: float = Field(description="Mean negative log-likelihood per answer token, nats")
    perplexity: float
    exact_match: float | None = Field(
        default=None, description="Share of answers equal to the reference, white space aside"
    )
    prompt_tokens_per_second: float | None = None
    generation_tokens_per_second: float | None = None
    peak_memory_gb: float | None = None


class Comparison(BaseModel):
    """Adapter against base on the same rows. Negative differences mean that the adapter is better."""

    loss_difference: float = Field(description="Adapter minus base, nats per token")
    interval_95: tuple[float, float] | None = Field(
        default=None, description="Paired bootstrap over rows; null for one row"
    )
    win_rate: float = Field(description="Share of rows on which the adapter's loss is lower")
    verdict: Verdict


class Sample(BaseModel):
    """One test prompt and its answers."""

    prompt: str
    reference: str
    base: str
    adapter: str | None = None


class BenchmarkReport(BaseModel):
    """Base, adapter, and what may be said of the difference."""

    model: str
    adapter_path: str | None = None
    rows: int
    tokens: int = Field(description="Answer tokens measured")
    base: Measured
    adapter: Measured | None = None
    comparison: Comparison | None = None
    summary: str
    samples: list[Sample] = Field(default_factory=list)


def judge(interval: tuple[float, float] | None) -> Verdict:
    """Better or worse only when the whole interval says so."""
    if interval is None:
        return "no evidence"
    low, high = interval
    return "better" if high < 0 else "worse" if low > 0 else "no evidence"


def summarize(rows: int, base: Measured, adapter: Measured | None, comparison: Comparison | None) -> str:
    """The verdict in words, with its numbers."""
    if adapter is None or comparison is None:
        text = f"base alone on {rows} rows: loss {base.loss:.4f}, perplexity {base.perplexity:.3f}"
        return text + (f", exact match {base.exact_match:.0%}" if base.exact_match is not None else "")
    head = {
        "better": "The adapter is better than the base",
        "worse": "The adapter is worse than the base",
        "no evidence": "There is no evidence that the adapter differs from the base",
    }[comparison.verdict]
    interval = comparison.interval_95
    spread = f"95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}" if interval else "one row allows no interval"
    text = (
        f"{head}: loss {base.loss:.4f} → {adapter.loss:.4f} ({comparison.loss_difference:+.4f}, {spread}) on {rows} rows, "
        f"lower on {comparison.win_rate:.0%} of them"
    )
    if base.exact_match is not None and adapter.exact_match is not None:
        text += f"; exact match {base.exact_match:.0%} → {adapter.exact_match:.0%}"
    return text
