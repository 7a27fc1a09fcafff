"""The layouts that instruction data come in, and how a row of each becomes a row of mlx-lm's."""

from __future__ import annotations

import json
from typing import Any

from mcp_server.datasets.preparation import OutputFormat
from mcp_server.datasets.rows import CHAT, COMPLETIONS, TEXT

Row = dict[str, Any]

# Pairs of column names (what is asked, what is answered), looked for in this order, in any case.
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("prompt", "output"),
    ("prompt", "chosen"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("problem", "solution"),
    ("user", "assistant"),
    ("human", "assistant"),
    ("input", "output"),
    ("source", "target"),
)
TEXTS = ("text", "content", "document", "body")
SYSTEMS = ("system", "system_prompt", "system_message")
INPUTS = ("input", "context")
_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}


class Unusable(Exception):
    """A row that can't become one of mlx-lm's. ``code`` groups, the text says what is wrong."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Layouts:
    """Recognizes rows; ``mapping`` gives columns other names, ``system`` a message for rows without one."""

    def __init__(self, mapping: dict[str, str], system: str | None, target: OutputFormat) -> None:
        self._mapping = mapping
        self._system = system
        self._target = target

    def convert(self, row: Row) -> tuple[str, Row]:
        """(layout, row for mlx-lm). Raises Unusable."""
        layout, kind, converted = self._recognize(row)
        if kind == TEXT:
            if self._target not in ("auto", "text"):
                raise Unusable("wrong-format", f"is plain text and can't become {self._target} format")
            return layout, converted
        if self._target == "text":
            raise Unusable("wrong-format", "is a conversation; text format would lose who says what; use format='chat'")
        if self._system and not any(message.get("role") == "system" for message in converted["messages"]):
            converted["messages"].insert(0, {"role": "system", "content": self._system})
        if self._target == "completions":
            return layout, _as_completion(converted)
        return layout, converted

    def _recognize(self, row: Row) -> tuple[str, str, Row]:
        if self._mapping:
            return self._mapped(row)
        names = {str(key).strip().lower(): key for key in row}
        for name in ("messages", "conversations", "conversation"):
            if name in names:
                layout = "messages" if name == "messages" else "conversations"
                return layout, CHAT, self._chat(row, names[name], names)
        for asked, answered in PAIRS:
            if asked in names and answered in names:
                extra = next((names[name] for name in INPUTS if name in names and name not in (asked, answered)), None)
                layout = "alpaca" if asked == "instruction" else f"{asked}/{answered}"
                return layout, CHAT, self._pair(row, names[asked], names[answered], extra, _first(row, names, SYSTEMS))
        for name in TEXTS:
            if name in names:
                return "text", TEXT, {"text": _text_of(row[names[name]], str(names[name]))}
        keys = ", ".join(list(map(str, row))[:8]) or "none"
        raise Unusable(
            "unknown-layout",
            f"has the columns {keys}; name the ones to use with mapping, e.g. "
            '{"prompt": "<column>", "completion": "<column>"}',
        )

    def _mapped(self, row: Row) -> tuple[str, str, Row]:
        missing = [
            column for key, column in self._mapping.items() if column not in row and key not in ("system", "input")
        ]
        if missing:
            keys = ", ".join(list(map(str, row))[:8]) or "none"
            raise Unusable("missing-column", f"has no column {missing[0]!r}, which mapping names; it has {keys}")
        names = {key: column for key, column in self._mapping.items() if column in row}
        if "messages" in names:
            return "mapping", CHAT, self._chat(row, names["messages"], names)
        if "prompt" in names:
            system = row.get(names["system"]) if "system" in names else None
            return "mapping", CHAT, self._pair(row, names["prompt"], names["completion"], names.get("input"), system)
        if "text" in names:
            return "mapping", TEXT, {"text": _text_of(row[names["text"]], names["text"])}
        raise Unusable("missing-column", "is not described: mapping needs messages, or prompt and completion, or text")

    def _pair(self, row: Row, asked: Any, answered: Any, extra: Any, system: Any) -> Row:
        prompt, answer = _text_of(row[asked], str(asked)), _text_of(row[answered], str(answered))
        if extra is not None and isinstance(row.get(extra), str) and row[extra].strip():
            prompt = f"{prompt}\n\n{row[extra]}"
        messages = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
        messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        return {"messages": messages}

    def _chat(self, row: Row, column: Any, names: dict[str, Any]) -> Row:
        turns = row[column]
        if isinstance(turns, str):  # CSV and some Parquet files hold them as JSON
            turns = _as_json(turns, str(column))
        if not isinstance(turns, list) or not turns:
            raise Unusable("bad-turns", f"has {column!r} that is not a list of turns")
        messages = [_message(turn, number) for number, turn in enumerate(turns, start=1)]
        system = _first(row, names, SYSTEMS)
        if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
        converted: Row = {"messages": messages}
        tools = row.get(names["tools"]) if "tools" in names else None
        if isinstance(tools, str) and tools.strip():
            tools = _as_json(tools, "tools")
        if tools:
            converted["tools"] = tools
        return converted


def _message(turn: Any, number: int) -> Row:
    if not isinstance(turn, dict):
        raise Unusable("bad-turns", f"has a turn {number} that is not an object with a role and a text")
    role = turn.get("role", turn.get("from"))
    known = _ROLES.get(str(role).strip().lower())
    if known is None:
        raise Unusable("unknown-role", f"has the role {role!r} in turn {number}; known are {', '.join(_ROLES)}")
    content = turn.get("content", turn.get("value", turn.get("text")))
    message: Row = {"role": known, "content": content}
    for key in ("tool_calls", "tool_call_id", "name", "reasoning_content"):
        if turn.get(key):
            message[key] = turn[key]
    if content is None and message.get("tool_calls"):
        message["content"] = ""  # templates join it to other text
    return message


def _as_completion(row: Row) -> Row:
    messages = row["messages"]
    if messages and messages[0]["role"] == "system":
        raise Unusable("wrong-format", "has a system message; only format='chat' can hold it")
    if [message["role"] for message in messages] != ["user", "assistant"] or "tools" in row:
        raise Unusable("wrong-format", "has more than one question and answer; only format='chat' can hold it")
    return {"prompt": messages[0]["content"], "completion": messages[1]["content"]}


def _text_of(value: Any, column: str) -> str:
    if isinstance(value, bool) or value is None:
        raise Unusable("empty", f"has {json.dumps(value)} in {column!r}")
    if isinstance(value, (int, float)):
        return str(value)
    if not isinstance(value, str):
        raise Unusable("wrong-type", f"has a {type(value).__name__} in {column!r}; text is needed")
    return value


def _as_json(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Unusable("bad-turns", f"has {column!r} that is not JSON") from None


def _first(row: Row, names: dict[str, Any], wanted: tuple[str, ...]) -> Any:
    return next((row.get(names[name]) for name in wanted if name in names), None)


def format_of_layout(row: Row) -> str:
    """mlx-lm's name for the format of a converted row."""
    return TEXT if "text" in row else (CHAT if "messages" in row else COMPLETIONS)
