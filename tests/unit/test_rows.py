"""One line of a data file: what mlx-lm refuses, and what it takes silently and should not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_server.datasets.rows import check_line


def chat(*messages: tuple[str, Any], **extra: Any) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in messages], **extra})


GOOD = {
    "chat": chat(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")),
    "multi-turn": chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
    "tools": chat(("user", "a"), ("assistant", "b"), tools=[{"type": "function"}]),
    "tool call": json.dumps(
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": ""},
                {"role": "assistant", "content": "b"},
            ]
        }
    ),
    "completions": '{"prompt": "a", "completion": "b"}',
    "text": '{"text": "once"}',
    "emoji": chat(("user", "👩‍👩‍👧 שלום"), ("assistant", "مرحبا")),
    "text parts": chat(("user", [{"type": "text", "text": "a"}]), ("assistant", "b")),
    "carriage return": '{"text": "once"}\r',
}
BAD = {
    "blank-line": "   ",
    "bom": '\ufeff{"text": "a"}',
    "bad-json": '{"text": "a"',
    "not-an-object": '["text"]',
    "not-a-number": '{"text": "a", "weight": NaN}',
    "unknown-format": '{"instruction": "a", "output": "b"}',
    "wrong-type": '{"text": 5}',
    "empty": '{"text": ""}',
    "no-assistant": chat(("user", "a"), ("user", "b")),
    "last-not-assistant": chat(("user", "a"), ("assistant", "b"), ("user", "c")),
    "unknown-role": chat(("human", "a"), ("assistant", "b")),
    "missing-role": '{"messages": [{"content": "a"}, {"role": "assistant", "content": "b"}]}',
    "encoding": '{"text": "half \\ud83d"}',
}


@pytest.mark.parametrize("name", GOOD)
def test_good_line_has_no_problem(name: str):
    found, problems = check_line(GOOD[name])
    assert found is not None
    assert problems == []


@pytest.mark.parametrize("code", BAD)
def test_bad_line_is_named(code: str):
    _, problems = check_line(BAD[code])
    assert problems[0].code == code
    assert problems[0].severity == "error"


@pytest.mark.parametrize(
    "line",
    [
        chat(("user", None), ("assistant", "b")),
        chat(("user", "a"), ("assistant", "")),
        chat(("user", "  "), ("assistant", "b")),
        '{"messages": []}',
        '{"messages": [{"role": "user"}, {"role": "assistant", "content": "b"}]}',
        '{"prompt": "", "completion": "b"}',
    ],
)
def test_empty_content_is_an_error(line: str):
    assert check_line(line)[1][0].code == "empty"


def test_format_other_than_the_first_rows_is_an_error():
    found, problems = check_line('{"text": "a"}', expect="chat")
    assert found == "text"
    assert problems[0].code == "mixed-formats"


def test_sharegpt_is_recognised_in_the_message():
    line = json.dumps({"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})
    assert "ShareGPT" in check_line(line)[1][0].message


def test_deep_nesting_is_an_answer_and_not_a_crash():
    assert check_line('{"text": ' + "[" * 100_000)[1][0].code == "bad-json"


def test_late_system_message_is_only_a_warning():
    _, problems = check_line(chat(("user", "a"), ("system", "b"), ("assistant", "c")))
    assert [(problem.code, problem.severity) for problem in problems] == [("late-system", "warning")]
