"""assistant_only_loss: the trained tokens are exactly the assistant's, against labels written by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from mcp_server.errors import DataError
from mcp_server.workers.assistant import AssistantTurns, as_messages
from tests.templates import write_template

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}]


def say(*texts: str, system: str | None = None) -> list[dict[str, Any]]:
    said = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + said


def learnt(folder: Path, kind: str, messages: list[dict[str, Any]], tools: Any = None) -> list[str]:
    """The text of each run of trained tokens."""
    tokenizer: Any = load_tokenizer(write_template(folder / kind, kind))
    tokens, mask = AssistantTurns(tokenizer).mask(messages, tools)
    assert tokens == tokenizer.apply_chat_template(messages, tools=tools, return_dict=False), "mlx-lm's own tokens"
    assert len(mask) == len(tokens)
    runs = itertools.groupby(zip(tokens, mask, strict=True), key=lambda pair: pair[1])
    return [tokenizer.decode([token for token, _ in run]) for trained, run in runs if trained]


TALK = say("How much is the lamp?", "It costs 42 euros.", "Thanks", "You are\n\nwelcome!")


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("chatml", ["It costs 42 euros.<|im_end|>", "You are\n\nwelcome!<|im_end|>"]),
        ("marked", ["It costs 42 euros.<|im_end|>", "You are\n\nwelcome!<|im_end|>"]),
        ("llama3", ["It costs 42 euros.<|eot_id|>", "You are\n\nwelcome!<|eot_id|>"]),
        ("mistral", [" It costs 42 euros.</s>", " You are\n\nwelcome!</s>"]),
        ("gemma", ["It costs 42 euros.<end_of_turn>", "You are\n\nwelcome!<end_of_turn>"]),
        ("tools", ["It costs 42 euros.<|im_end|>", "You are\n\nwelcome!<|im_end|>"]),
    ],
)
def test_every_answer_and_its_end_token_are_trained_and_nothing_else(kind: str, labels: list[str], tmp_path: Path):
    assert learnt(tmp_path, kind, TALK) == labels


def test_calls_of_tools_are_answers_and_what_tools_say_is_not(tmp_path: Path):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Bern?"},
        {"role": "assistant", "content": "", "tool_calls": CALL},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "20 degrees"},
        {"role": "assistant", "content": "Sunny."},
        {"role": "user", "content": "And Rome?"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": CALL},
    ]
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call><|im_end|>'
    assert learnt(tmp_path, "tools", messages, TOOLS) == [call, "Sunny.<|im_end|>", "Let me look.\n" + call]


def test_completion_is_one_answer(tmp_path: Path):
    assert learnt(tmp_path, "chatml", as_messages("Say a", "a")) == ["a<|im_end|>"]


def test_conversation_that_the_assistant_begins_and_that_ends_with_the_user(tmp_path: Path):
    messages = [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Bye"}]
    assert learnt(tmp_path, "llama3", messages) == ["Hi!<|eot_id|>"]


def test_template_that_leaves_out_earlier_reasoning_is_noticed_and_masked_by_what_it_shows(tmp_path: Path):
    messages = say(
        "1+1?", "<think>\nOne and one.\n</think>\n\n2", "2+2?", "<think>\nTwo twice.\n</think>\n\n4", system="x"
    )
    assert learnt(tmp_path, "qwen3", messages) == [
        "2<|im_end|>",
        "<think>\nTwo twice.\n</think>\n\n4<|im_end|>",
    ]


def test_template_that_moves_the_tools_is_noticed_and_masked_by_what_changes(tmp_path: Path):
    assert learnt(tmp_path, "mistral-tools", say("a?", "First.", "b?", "Second."), TOOLS) == [
        " First.</s>",
        " Second.</s>",
    ]


def test_same_answer_twice_is_found_at_both_places(tmp_path: Path):
    messages = say("yes", "yes", "yes", "yes", "yes", "yes")
    assert learnt(tmp_path, "qwen3", messages)[:2] == ["yes<|im_end|>", "yes<|im_end|>"]
    assert learnt(tmp_path, "mistral-tools", messages, TOOLS) == [" yes</s>"] * 3
    assert learnt(tmp_path, "gemma", messages) == ["yes<end_of_turn>"] * 3


def test_text_that_looks_like_a_header_is_not_taken_for_one(tmp_path: Path):
    said = "Write <|im_start|>assistant\nlike this"
    assert learnt(tmp_path, "chatml", say(said, "No.", said, "No!")) == ["No.<|im_end|>", "No!<|im_end|>"]
    assert learnt(tmp_path, "qwen3", say(said, "No.", said, "No!"))[0] == "No.<|im_end|>"


def test_answer_that_can_not_be_located_is_an_error_with_its_reason(tmp_path: Path):
    folder = write_template(tmp_path / "odd", "chatml")
    # Only the last two messages are shown.
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages[-2:] %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    )
    turns = AssistantTurns(load_tokenizer(folder))
    with pytest.raises(DataError, match=r"message 2 of 4, an answer, is not found .* does not show it"):
        turns.mask(say("a", "b", "c", "d"), None)
