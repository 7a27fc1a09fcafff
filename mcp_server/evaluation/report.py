"""What a benchmark reports: numbers, their uncertainty, and verdicts. ``evaluation.words`` says them in words.

A report is the result in a benchmark job's ``outcome.json``; the job's ``examples.jsonl`` holds every row.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Verdict = Literal["better", "worse", "no evidence"]
Interval = tuple[float, float]

# Below this even a sign test on rows that all agree gives p > 0.05 (two-sided, 2 * 0.5**5 = 0.0625).
FEWEST_ROWS = 6
# Of each text of a sample: the report of one adapter stays below about 1,500 tokens.
SHOWN_CHARACTERS = 120

METRICS = ("exact_match", "contains", "token_f1", "rouge_l", "valid_json", "json_schema", "own_metric")
"""Scores of generated answers, the fields of ``Measured``; higher is better."""


class Spread(BaseModel):
    """A figure over the timed trials."""

    median: float
    min: float
    max: float


class Speed(BaseModel):
    """Greedy generation from random prompts that never ends early, as mlx_lm.benchmark times it."""

    trials: int
    prompt_tokens: int
    generation_tokens: int
    prompt_tokens_per_second: Spread
    generation_tokens_per_second: Spread
    seconds_to_first_token: Spread
    peak_memory_gb: float = Field(description="Highest of all trials, 1e9 bytes")
    batch_size: int | None = Field(default=None, description="Prompts at once in the two figures below")
    batch_prompt_tokens_per_second: Spread | None = None
    batch_generation_tokens_per_second: Spread | None = None


class Measured(BaseModel):
    """One model on the held-out rows. Scores are means over the answered rows."""

    loss: float = Field(description="Mean negative log-likelihood per counted token, nats")
    perplexity: float
    exact_match: float | None = Field(default=None, description="Answer equals reference, white space aside")
    contains: float | None = Field(default=None, description="Answer contains the reference, case and space aside")
    token_f1: float | None = Field(default=None, description="Word overlap, SQuAD's F1")
    rouge_l: float | None = Field(default=None, description="ROUGE-L F-measure")
    valid_json: float | None = Field(default=None, description="Answer is JSON, as every reference is")
    json_schema: float | None = Field(default=None, description="Answer satisfies the schema given")
    own_metric: float | None = None
    speed: Speed | None = None


class Difference(BaseModel):
    """A score's difference, adapter minus base: positive is better."""

    difference: float
    interval_95: Interval | None = None
    verdict: Verdict


class Comparison(BaseModel):
    """Adapter against base on the same rows. A negative loss difference means that the adapter is better."""

    loss_difference: float = Field(description="Adapter minus base, nats per token")
    interval_95: Interval | None = Field(default=None, description="Paired bootstrap; null where rows are too few")
    win_rate: float = Field(description="Share of rows on which the adapter's loss is lower")
    verdict: Verdict
    scores: dict[str, Difference] = Field(default_factory=dict, description="By the names of the scores in base")


class Forgetting(BaseModel):
    """Base and adapter on general text that the task is not about."""

    tokens: int
    base_perplexity: float
    adapter_perplexity: float
    change_percent: float = Field(description="Of the perplexity; positive: the adapter predicts the text less well")
    interval_95: Interval | None = Field(default=None, description="Of change_percent")
    verdict: Verdict


class Ranked(BaseModel):
    """One line of the ranking, lowest loss first."""

    name: str = Field(description="The base, or the adapter's folder")
    adapter_path: str | None = None
    loss: float
    loss_difference: float | None = Field(default=None, description="Against the base")
    interval_95: Interval | None = Field(default=None, description="Of loss_difference")
    verdict: Verdict | None = Field(default=None, description="Against the base")
    exact_match: float | None = None


class Keep(BaseModel):
    """Which of several to keep, and how sure that is against the second."""

    name: str
    adapter_path: str | None = Field(default=None, description="Null when the base itself is first")
    second: str
    loss_difference: float = Field(description="First minus second, nats per token")
    interval_95: Interval | None = None
    verdict: Verdict = Field(description="Of the first against the second")
    advice: str


class TaskScore(BaseModel):
    """One metric of one lm-evaluation-harness task."""

    task: str
    metric: str
    examples: int
    base: float
    adapter: float | None = None
    interval_95: Interval | None = Field(default=None, description="Of adapter minus base, paired over the examples")
    verdict: Verdict | None = None


class Sample(BaseModel):
    """One prompt and its answers."""

    prompt: str
    reference: str
    base: str
    adapter: str | None = None


class BenchmarkReport(BaseModel):
    """Base, adapter, and what may be said of the difference. With several adapters, ``adapter`` is the first of them."""

    summary: str
    model: str
    adapter_path: str | None = None
    data: str
    split: str
    rows: int
    tokens: int = Field(description="Tokens counted in the loss")
    base: Measured
    adapter: Measured | None = None
    comparison: Comparison | None = None
    ranking: list[Ranked] = Field(default_factory=list)
    keep: Keep | None = None
    forgetting: Forgetting | None = None
    tasks: list[TaskScore] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list, description="What was left out or needs care")
    samples: list[Sample] = Field(default_factory=list)
    examples: str | None = Field(default=None, description="File with loss, answers and scores of every row")


def judge(interval: Interval | None, *, lower_is_better: bool = True) -> Verdict:
    """Better or worse only when the whole interval says so."""
    if interval is None:
        return "no evidence"
    low, high = interval if lower_is_better else (-interval[1], -interval[0])
    return "better" if high < 0 else "worse" if low > 0 else "no evidence"
