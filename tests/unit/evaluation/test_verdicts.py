"""From losses and scores to verdicts, rankings and words."""

from __future__ import annotations

import numpy as np
import pytest

from mcp_server.evaluation import words
from mcp_server.evaluation.compare import Outcome, compare, compare_scores, forgetting, rank
from mcp_server.evaluation.report import (
    SHOWN_CHARACTERS,
    BenchmarkReport,
    Comparison,
    Difference,
    Measured,
    Sample,
    Speed,
    Spread,
)

TOKENS = np.full(60, 10.0)


def outcome(name: str | None, mean: float, seed: int = 0, **scores: np.ndarray) -> Outcome:
    """Losses per token around ``mean``; rows of one seed go up and down together."""
    common = np.random.default_rng(99).normal(0, 0.5, len(TOKENS))
    own = np.random.default_rng(seed).normal(0, 0.05, len(TOKENS))
    return Outcome(name, (2.0 + mean + common + own) * TOKENS, scores=scores)


BASE = outcome(None, 0.0)


@pytest.mark.parametrize(("mean", "verdict"), [(-0.2, "better"), (0.2, "worse"), (0.0, "no evidence")])
def test_verdict_follows_the_interval(mean: float, verdict: str):
    found = compare(BASE, outcome("/a/x", mean, seed=4), TOKENS, 0)
    assert found.verdict == verdict
    assert found.interval_95 is not None
    assert found.interval_95[0] <= found.loss_difference <= found.interval_95[1]


def test_pairing_sees_what_means_alone_would_not():
    # Rows differ by 0.5 nats among themselves, the models by 0.05.
    assert compare(BASE, outcome("/a/x", -0.05, seed=4), TOKENS, 0).verdict == "better"


def test_two_copies_give_no_evidence():
    found = compare(BASE, Outcome("/a/copy", BASE.sums.copy()), TOKENS, 0)
    assert (found.verdict, found.interval_95, found.win_rate) == ("no evidence", (0.0, 0.0), 0.0)


def test_few_rows_give_no_evidence_and_say_so():
    few = Outcome(None, np.array([20.0])), Outcome("/a/x", np.array([1.0]))
    found = compare(few[0], few[1], np.array([10.0]), 0)
    assert (found.verdict, found.interval_95) == ("no evidence", None)
    measured = few[0].measured(np.array([10.0])), few[1].measured(np.array([10.0]))
    text = words.summarize(1, *measured, found)
    assert "There is no evidence that the adapter differs from the base" in text
    assert "too few rows: 1 can't give evidence" in text


def test_scores_are_tested_too_and_higher_is_better():
    base, adapter = np.zeros(30), np.repeat([1.0, 0.0], 15)
    assert compare_scores(base, adapter, 0).verdict == "better"
    assert compare_scores(adapter, base, 0).verdict == "worse"
    assert compare_scores(base, base, 0).verdict == "no evidence"
    assert compare_scores(base, np.eye(1, 30)[0], 0).verdict == "no evidence"


def test_unbounded_scores_use_the_bootstrap():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 5, 40)
    found = compare_scores(base, base + rng.normal(3, 1, 40), 0)
    assert found.verdict == "better"
    assert found.difference > 2


def test_ranking_holds_the_base_and_tests_first_against_second():
    outcomes = [BASE, outcome("/a/good", -0.3, 1), outcome("/a/bad", 0.4, 2), outcome("/a/best", -0.5, 3)]
    lines, keep = rank(outcomes, TOKENS, 0)
    assert [line.name for line in lines] == ["best", "good", "base", "bad"]
    assert [line.verdict for line in lines] == ["better", "better", None, "worse"]
    assert (keep.name, keep.second, keep.verdict) == ("best", "good", "better")
    assert keep.advice.startswith("keep best: loss -0.")


def test_copies_can_not_be_told_apart_in_a_ranking():
    first = outcome("/a/x", -0.3, 1)
    lines, keep = rank([BASE, first, Outcome("/b/x", first.sums.copy())], TOKENS, 0)
    assert [line.name for line in lines] == ["/a/x", "/b/x", "base"]
    assert keep.verdict == "no evidence"
    assert "no evidence that it differs from the second" in keep.advice


def test_when_the_base_is_first_none_is_kept():
    _, keep = rank([BASE, outcome("/a/x", 0.3, 1), outcome("/a/y", 0.5, 2)], TOKENS, 0)
    assert (keep.name, keep.adapter_path) == ("base", None)
    assert keep.advice.startswith("keep none: no adapter has a lower loss than the base (next: x, +0.29")


@pytest.mark.parametrize(
    ("mean", "said"), [(0.1, "it forgot"), (-0.1, "even fell"), (0.0, "no evidence of forgetting")]
)
def test_forgetting_is_said_with_its_numbers(mean: float, said: str):
    adapter = outcome("/a/x", mean, seed=4)
    found = forgetting(BASE.sums, adapter.sums, TOKENS, 0)
    measured = BASE.measured(TOKENS), adapter.measured(TOKENS)
    text = words.summarize(60, *measured, compare(BASE, adapter, TOKENS, 0), found)
    assert said in text
    assert f"{found.change_percent:+.1f} %" in text
    assert found.change_percent == pytest.approx(100 * (found.adapter_perplexity / found.base_perplexity - 1), abs=0.01)


def test_little_general_text_is_said_to_be_little():
    found = forgetting(BASE.sums[:2], BASE.sums[:2] + 1, TOKENS[:2], 0)
    assert found.interval_95 is None
    text = words.summarize(60, BASE.measured(TOKENS), BASE.measured(TOKENS), compare(BASE, BASE, TOKENS, 0), found)
    assert "too little general text" in text


def test_summary_names_scores_that_speak():
    rng = np.random.default_rng(0)
    up = (rng.random(40) < 0.9).astype(float)
    base = outcome(None, 0.0, exact_match=np.zeros(40), contains=up, token_f1=up)
    adapter = outcome("/a/x", -0.2, 4, exact_match=up, contains=np.zeros(40), token_f1=up)
    text = words.summarize(60, base.measured(TOKENS), adapter.measured(TOKENS), compare(base, adapter, TOKENS, 0))
    assert text.startswith("The adapter is better than the base: loss ")
    assert "exact match 0% → " in text
    assert "→ 0% (worse)" in text
    assert "token F1" not in text


def test_summary_names_the_rows_and_gives_an_own_metric_as_it_is():
    base = outcome(None, 0.0, own_metric=np.full(60, 12.5))
    adapter = outcome("/a/x", -0.2, 4, own_metric=np.full(60, 12.5) + np.linspace(1, 2, 60))
    measured = base.measured(TOKENS), adapter.measured(TOKENS)
    text = words.summarize(60, *measured, compare(base, adapter, TOKENS, 0), split="valid")
    assert "on 60 rows of valid.jsonl, lower on" in text
    assert "own metric 12.5 → 14 (better)" in text
    assert words.summarize(60, base.measured(TOKENS), None, None).startswith(
        "base alone on 60 rows of test.jsonl: loss"
    )


def test_report_of_one_adapter_stays_small_with_everything_in_it():
    spread = Spread(median=1234.0, min=1111.0, max=1300.0)
    speed = Speed(
        trials=3,
        prompt_tokens=512,
        generation_tokens=128,
        prompt_tokens_per_second=spread,
        generation_tokens_per_second=spread,
        seconds_to_first_token=spread,
        peak_memory_gb=12.3,
        batch_size=4,
        batch_prompt_tokens_per_second=spread,
        batch_generation_tokens_per_second=spread,
    )
    scores = dict.fromkeys(("exact_match", "contains", "token_f1", "rouge_l", "valid_json"), 0.1234)
    measured = Measured(loss=1.312404, perplexity=3.7151, speed=speed, **scores)
    difference = Difference(difference=-0.1234, interval_95=(-0.2345, 0.1234), verdict="no evidence")
    long = "x" * SHOWN_CHARACTERS
    report = BenchmarkReport(
        summary="s" * 400,
        model="/Users/someone/projects/shop/models/Qwen2.5-3B-Instruct-4bit",
        adapter_path="/Users/someone/projects/shop/adapters/support-tone-r16",
        data="/Users/someone/projects/shop/data",
        split="test",
        rows=400,
        tokens=12345,
        base=measured,
        adapter=measured,
        comparison=Comparison(
            loss_difference=-1.305732,
            interval_95=(-1.352786, -1.258678),
            win_rate=0.9876,
            verdict="better",
            scores=dict.fromkeys(scores, difference),
        ),
        notes=["n" * 150],
        samples=[Sample(prompt=long, reference=long, base=long, adapter=long)] * 3,
        examples="/Users/someone/.mlx-training/jobs/benchmark-20261123-010502-f34c/examples.jsonl",
    )
    # About 3 characters a token: digits and punctuation are dearer than prose.
    assert len(report.model_dump_json(exclude_none=True)) < 4500
