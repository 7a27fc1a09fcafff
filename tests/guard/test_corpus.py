"""The gate on its labelled corpora, through the real hook process."""

from __future__ import annotations

import json

import pytest

from tests.guard import score
from tests.guard.tree import Tree, ask_hook, bash, decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def first() -> list[dict[str, Any]]:
    return score.run("tests.guard.corpus")


@pytest.fixture(scope="module")
def other() -> list[dict[str, Any]]:
    return score.run("tests.guard.second")


@pytest.mark.parametrize("corpus", ["first", "other"])
def test_figures_hold(corpus: str, request: pytest.FixtureRequest) -> None:
    figures = score.summary(request.getfixturevalue(corpus))
    assert figures["errors"] == 0
    assert figures["precision"] >= 0.99
    assert figures["recall"] >= 0.95
    assert figures["false_alarm_rate"] <= 0.01


def test_the_corpus_is_large_and_half_harmless(first: list[dict[str, Any]]) -> None:
    figures = score.summary(first)
    assert figures["cases"] >= 400
    assert figures["harmless"] / figures["cases"] >= 0.45


def test_deny_and_ask_are_told_apart(first: list[dict[str, Any]]) -> None:
    wrong = [(row["label"], row["decision"], row["text"]) for row in first if row["label"] != row["decision"]]
    assert wrong == []


def test_there_is_never_an_explicit_allow(first: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    for row in [*first, *other]:
        assert "allow" not in (
            json.loads(row["answer"])["hookSpecificOutput"]["permissionDecision"] if row["answer"] else ""
        )


def test_every_suggestion_passes_the_gate(
    first: list[dict[str, Any]], other: list[dict[str, Any]], tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "w").build()
    suggestions = set()
    for row in [*first, *other]:
        if not row["answer"]:
            continue
        reason = json.loads(row["answer"])["hookSpecificOutput"]["permissionDecisionReason"]
        for finding in reason.split("\n"):
            assert "Why: " in finding or finding.startswith("(")
            advice = finding.partition("Instead: ")[2]
            suggestions.update(advice.split("`")[1::2])
    assert len(suggestions) > 30
    blocked = {text for text in suggestions if decision(ask_hook(bash(text, tree), tree.environment())) != "allow"}
    assert blocked == set()


def test_messages_say_what_why_and_what_instead(first: list[dict[str, Any]]) -> None:
    for row in first:
        if row["answer"]:
            reason = json.loads(row["answer"])["hookSpecificOutput"]["permissionDecisionReason"]
            for line in reason.split("\n"):
                assert line.startswith(("[", "(")), line
                assert line.startswith("(") or (". Why: " in line and ". Instead: " in line), line
