"""Scores of answers: worked examples of their definitions."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from mcp_server.errors import ArgumentError, DataError, PathError
from mcp_server.evaluation import metrics


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0),  # case, punctuation and articles aside
        ("in Paris, France", "Paris", 0.5),  # precision 1/3, recall 1
        ("red red blue", "red green", 0.4),  # one word in common, counted once
        ("London", "Paris", 0.0),
        ("", "", 1.0),
        ("the", "Paris", 0.0),
        ("anything", "", 0.0),
    ],
)
def test_token_f1_is_squads(answer: str, reference: str, score: float):
    assert metrics.token_f1(answer, reference) == pytest.approx(score)


def test_exact_match_heeds_all_but_space_at_the_ends():
    assert metrics.exact_match(" B7\n", "B7") == 1
    assert metrics.exact_match("b7", "B7") == 0


def test_contains_ignores_case_and_runs_of_space():
    assert metrics.contains("It is on\n shelf b7.", "Shelf B7") == 1
    assert metrics.contains("It is on shelf B8.", "Shelf B7") == 0


@pytest.mark.parametrize("answer", ['{"a": 1}', "[1, 2]", " 3 ", '"text"'])
def test_json_is_valid_as_a_whole(answer: str):
    assert metrics.valid_json(answer, "") == 1


@pytest.mark.parametrize("answer", ['{"a": 1', 'Here: {"a": 1}', "NaN", "", "[" * 100_000, '```json\n{"a": 1}\n```'])
def test_json_with_anything_round_it_is_not_valid(answer: str):
    assert metrics.valid_json(answer, "") == 0


def test_only_objects_and_arrays_make_references_json():
    assert metrics.is_record('{"a": 1}')
    assert not metrics.is_record("42")
    assert not metrics.is_record("yes")


SCHEMA = {"type": "object", "properties": {"price": {"type": "integer"}}, "required": ["price"]}


def test_schema_is_satisfied_or_not(tmp_path: Path):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    score = metrics.json_schema(tmp_path / "schema.json")
    assert [score(answer, "") for answer in ('{"price": 4}', '{"price": "4"}', "{}", "no")] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "can't be read"),
        ("{", "is not JSON"),
        ("[]", "is a JSON list"),
        ('{"type": "objekt"}', "is not a JSON Schema"),
    ],
)
def test_schema_that_is_none_is_named(text: str | None, words: str, tmp_path: Path):
    file = tmp_path / "schema.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises((PathError, DataError), match=words):
        metrics.json_schema(file)


def test_schema_elsewhere_is_never_fetched(tmp_path: Path):
    (tmp_path / "schema.json").write_text('{"$ref": "http://127.0.0.1:9/schema.json"}')
    with pytest.raises(DataError, match="refers to a schema that is not in it"):
        metrics.json_schema(tmp_path / "schema.json")("{}", "")


def test_own_metric_is_run(tmp_path: Path):
    (tmp_path / "own.py").write_text("def length(answer, reference):\n    return -abs(len(answer) - len(reference))\n")
    assert metrics.own_metric(f"{tmp_path}/own.py:length")("abc", "a") == -2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def other(a, b): return 1", "no function 'score'"),
        ("def score(:", "could not be run: SyntaxError"),
        ("raise SystemError('x')", "could not be run: SystemError"),
        ("def score(a): return 1", "failed on answer 'x'"),
        ("def score(a, b): return 'high'", "failed on answer 'x'"),
        ("def score(a, b): return float('nan')", "gave nan"),
    ],
)
def test_own_metric_that_fails_is_named(code: str, words: str, tmp_path: Path):
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(DataError, match=words):
        metrics.own_metric(f"{tmp_path}/own.py:score")("x", "y")


@pytest.mark.parametrize("returned", ["'high'", "float('nan')"])
def test_own_metric_that_fails_shows_no_part_of_a_token_in_the_answer(returned: str, tmp_path: Path):
    (tmp_path / "own.py").write_text(f"def score(a, b): return {returned}")
    token = "hf_" + "a1B2" * 9
    with pytest.raises(DataError) as caught:
        metrics.own_metric(f"{tmp_path}/own.py:score")("x" * 49 + f" {token}", f"{token} is right")
    assert token[:10] not in str(caught.value)
    assert "Hugging Face token rem" in str(caught.value)


@pytest.mark.parametrize("name", ["own.py", "own:score", "own.py:", "own.py:a-b"])
def test_own_metric_has_a_file_and_a_function(name: str):
    with pytest.raises(ArgumentError, match=r"file\.py:function"):
        metrics.split_metric(name)


@pytest.mark.skipif(importlib.util.find_spec("rouge_score") is None, reason="needs rouge-score")
def test_rouge_l_is_the_librarys():
    score = metrics.rouge_l()
    assert score is not None
    # Longest common subsequence "police the gunman" of Lin 2004, section 3: 3 of 4 words on both sides.
    assert score("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)


@pytest.mark.skipif(importlib.util.find_spec("rouge_score") is not None, reason="rouge-score is installed")
def test_missing_rouge_gives_no_score():
    assert metrics.rouge_l() is None
