"""A benchmark's findings in words, with their numbers."""

from __future__ import annotations

from mcp_server.evaluation.report import (
    FEWEST_ROWS,
    Comparison,
    Forgetting,
    Interval,
    Keep,
    Measured,
    Ranked,
    Verdict,
)

_ROUGH_ROWS = 20  # below this skewed rows cover less often than 95 %: tests/unit/evaluation/test_intervals.py
_HEADS: dict[Verdict, str] = {
    "better": "{} is better than the base",
    "worse": "{} is worse than the base",
    "no evidence": "There is no evidence that {} differs from the base",
}
_NAMES = {
    "exact_match": "exact match",
    "contains": "contains",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "valid_json": "valid JSON",
    "json_schema": "JSON schema",
    "own_metric": "own metric",
}


def title(score: str) -> str:
    """A score's name for people."""
    return _NAMES[score]


def figure(score: str, value: float, digits: int = 0) -> str:
    """A score's value for people: a share, but of the own metric the number that it returned."""
    return f"{value:.4g}" if score == "own_metric" else f"{value:.{digits}%}"


def summarize(
    rows: int,
    base: Measured,
    adapter: Measured | None,
    comparison: Comparison | None,
    forgetting: Forgetting | None = None,
    keep: Keep | None = None,
    name: str = "the adapter",
    split: str = "test",
) -> str:
    """The verdict on the adapter called ``name`` first, then what speaks for or against it."""
    where = f"{rows} rows of {split}.jsonl"
    if adapter is None or comparison is None:
        text = f"base alone on {where}: loss {base.loss:.4f}, perplexity {base.perplexity:.3f}"
        return text + (f", exact match {base.exact_match:.0%}" if base.exact_match is not None else "")
    head = _HEADS[comparison.verdict].format(name)
    parts = [f"{head[0].upper()}{head[1:]}: {_losses(rows, where, base, adapter, comparison)}"]
    parts += _scores(base, adapter, comparison)
    if forgetting is not None:
        parts.append(_general_text(forgetting))
    if keep is not None:
        parts.append(keep.advice)
    return "; ".join(parts)


def _losses(rows: int, where: str, base: Measured, adapter: Measured, comparison: Comparison) -> str:
    text = (
        f"loss {base.loss:.4f} → {adapter.loss:.4f} ({comparison.loss_difference:+.3g}, "
        f"{spread(comparison.interval_95)}) on {where}, lower on {comparison.win_rate:.0%} of them"
    )
    if rows < FEWEST_ROWS:
        return f"{text}; too few rows: {rows} can't give evidence, use at least {_ROUGH_ROWS}"
    if rows < _ROUGH_ROWS:
        return f"{text}; only {rows} rows: the interval is rough, use at least {_ROUGH_ROWS}"
    return text


def spread(interval: Interval | None, form: str = "+.3g", unit: str = "") -> str:
    """An interval in words."""
    if interval is None:
        return "no 95 % interval: too few rows, or rows too alike"
    return f"95 % interval {interval[0]:{form}} to {interval[1]:{form}}{unit}"


def _scores(base: Measured, adapter: Measured, comparison: Comparison) -> list[str]:
    """Exact match always; of the other scores those that say something."""
    found: list[str] = []
    for name, difference in comparison.scores.items():
        before, after = getattr(base, name), getattr(adapter, name)
        if name != "exact_match" and difference.verdict == "no evidence":
            continue
        verdict = "no evidence of a change" if difference.verdict == "no evidence" else difference.verdict
        found.append(f"{title(name)} {figure(name, before)} → {figure(name, after)} ({verdict})")
    return found


def _general_text(forgetting: Forgetting) -> str:
    if forgetting.interval_95 is None:
        return (
            f"too little general text to say what was forgotten (perplexity {forgetting.base_perplexity:.3f} → "
            f"{forgetting.adapter_perplexity:.3f})"
        )
    what = {
        "worse": "it forgot: on general text the perplexity rose",
        "better": "on general text the perplexity even fell",
        "no evidence": "no evidence of forgetting: on general text the perplexity went",
    }[forgetting.verdict]
    return (
        f"{what} {forgetting.base_perplexity:.3f} → {forgetting.adapter_perplexity:.3f} "
        f"({forgetting.change_percent:+.1f} %, {spread(forgetting.interval_95, '+.1f', ' %')})"
    )


def advise(first: Ranked, second: Ranked, difference: float, interval: Interval | None, verdict: Verdict) -> str:
    """Which to keep, and how sure that is."""
    if first.adapter_path is None:
        return f"keep none: no adapter has a lower loss than the base (next: {second.name}, {-difference:+.3g})"
    gap = f"loss {difference:+.3g} against {second.name}'s, {spread(interval)}"
    if verdict == "better":
        return f"keep {first.name}: {gap}"
    return f"keep {first.name}, but there is no evidence that it differs from the second: {gap}"
