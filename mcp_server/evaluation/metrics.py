"""Scores of a generated answer against its reference: plain Python, a library where there is one.

Every score is a number, higher is better; all but an own metric lie in [0, 1].
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp_server.errors import ArgumentError, DataError, PathError, brief
from mcp_server.platform.interpreter import install

Score = Callable[[str, str], float]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, reference: str) -> float:
    """1 when both are equal, white space at the ends aside."""
    return float(answer.strip() == reference.strip())


def contains(answer: str, reference: str) -> float:
    """1 when the reference occurs in the answer, case and runs of white space aside."""
    return float(_folded(reference) in _folded(answer))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words in common, as SQuAD's evaluate-v2.0.py: lower case, without
    punctuation and English articles, words split at white space (Rajpurkar et al. 2016, 2018)."""
    given, wanted = _squad_words(answer), _squad_words(reference)
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def rouge_l() -> Score | None:
    """ROUGE-L's F-measure (Lin 2004) by the library rouge-score, without stemming; None where it is not installed."""
    if importlib.util.find_spec("rouge_score") is None:
        return None
    scorer: Any = importlib.import_module("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    return lambda answer, reference: float(scorer.score(reference, answer)["rougeL"].fmeasure)


def valid_json(answer: str, _reference: str) -> float:
    """1 when the whole answer is JSON (RFC 8259: no NaN, nothing around it)."""
    return float(parse_json(answer) is not None)


def parse_json(text: str) -> tuple[Any] | None:
    """The value in a tuple, or None when ``text`` is not JSON."""
    try:
        return (json.loads(text, parse_constant=_refuse),)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def is_record(reference: str) -> bool:
    """Whether a reference is a JSON object or array: a bare number or word would be JSON by accident."""
    parsed = parse_json(reference)
    return parsed is not None and isinstance(parsed[0], dict | list)


def json_schema(file: Path) -> Score:
    """A score that is 1 when an answer is JSON that satisfies the schema in ``file``. Schemas elsewhere are never fetched.

    Raises PathError or DataError when the file is missing or no JSON Schema.
    """
    if importlib.util.find_spec("jsonschema") is None:
        raise ArgumentError(f"json_schema needs the library jsonschema beside mlx-lm; {install('jsonschema')}")
    from jsonschema import SchemaError, validators
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        schema: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise PathError(f"json_schema {file} can't be read: {error.strerror}; give a JSON Schema file") from error
    except ValueError as error:
        raise DataError(f"json_schema {file} is not JSON: {error}; correct it") from error
    if not isinstance(schema, dict | bool):
        raise DataError(f"json_schema {file} is a JSON {type(schema).__name__}; a schema is an object")
    kind: Any = validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "its top"
        raise DataError(
            f"json_schema {file} is not a JSON Schema: {error.message[:200]} at {where}; correct it"
        ) from error
    validator: Any = kind(schema, registry=Registry())

    def score(answer: str, _reference: str) -> float:
        parsed = parse_json(answer)
        try:
            return float(parsed is not None and validator.is_valid(parsed[0]))
        except Unresolvable as error:
            raise DataError(f"json_schema {file} refers to a schema that is not in it: {error}; put it in") from error

    return score


def split_metric(metric: str) -> tuple[Path, str]:
    """File and function of an own metric 'file.py:function'. Raises ArgumentError."""
    name, colon, function = metric.rpartition(":")
    if not colon or not name.endswith(".py") or not function.isidentifier():
        raise ArgumentError(f"metric={metric!r} is not 'file.py:function'; correct it")
    return Path(name), function


def own_metric(metric: str) -> Score:
    """The function that ``metric`` ('file.py:function') names; this runs the file. Raises PathError or DataError."""
    file, function = split_metric(metric)
    spec = importlib.util.spec_from_file_location("mlx_training_own_metric", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        # It is somebody else's code: it may raise anything.
        raise DataError(f"metric {file} could not be run: {type(error).__name__}: {error}; correct it") from error
    called: Any = getattr(module, function, None)
    if not callable(called):
        raise DataError(f"metric {file} has no function {function!r}; name one that it has")

    def score(answer: str, reference: str) -> float:
        try:
            given: Any = called(answer, reference)
            value = float(given)
        except Exception as error:
            raise DataError(
                f"metric {function} failed on answer {brief(answer, 80)!r}, reference {brief(reference, 80)!r}: "
                f"{type(error).__name__}: {error}; it takes two strings and gives a number"
            ) from error
        if not abs(value) < float("inf"):
            raise DataError(f"metric {function} gave {value} for answer {brief(answer, 80)!r}; give a finite number")
        return value

    return score
