"""The layouts that instruction data come in, and how a row of each becomes a row of mlx-lm's."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from mcp_server.datasets.preparation import OutputFormat
from mcp_server.datasets.rows import CHAT, COMPLETIONS, TEXT

Row = dict[str, Any]
Columns = dict[str, Any]  # part of a row (a key of ``mapping``) → the source's column

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
# What a row of each kind is made of, first the part by which it is known; and the columns in which some parts are looked for.
_KINDS = {
    "messages": ("messages", "system", "tools"),
    "prompt": ("prompt", "completion", "input", "history", "system", "tools"),
    "text": ("text",),
}
_BESIDE = {"system": SYSTEMS, "tools": ("tools",), "input": ("input", "context"), "history": ("history",)}
_VERDICTS = ("label", "kto_tag")  # whether an answer is a good one, in KTO's data
_NOTHING = (None, "", [], {})
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
        self.unused: Counter[str] = Counter()  # rows by column that held something and was not used

    def convert(self, row: Row) -> tuple[str, Row]:
        """(layout, row for mlx-lm). Raises Unusable."""
        if self._mapping:
            layout, columns, other = "mapping", self._mapped(row), ()
        else:
            layout, columns, other = _recognized(row)
        if "text" in columns:
            converted: Row = {"text": _text_of(row[columns["text"]], str(columns["text"]))}
            if self._target not in ("auto", "text"):
                raise Unusable("wrong-format", f"is plain text and can't become {self._target} format")
        else:
            converted = self._conversation(row, columns)
        used = {*columns.values(), *other}
        self.unused.update(str(key) for key, value in row.items() if key not in used and value not in _NOTHING)
        return layout, converted

    def _conversation(self, row: Row, columns: Columns) -> Row:
        if self._target == "text":
            raise Unusable("wrong-format", "is a conversation; text format would lose who says what; use format='chat'")
        messages = _turns(row, columns["messages"]) if "messages" in columns else _pair(row, columns)
        system = _said(row, columns.get("system"))
        if not system and not any(message["role"] == "system" for message in messages):
            system = self._system
        if system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
        converted: Row = {"messages": messages}
        tools = _plain(row, columns.get("tools"))
        if tools:
            converted["tools"] = tools
        return _as_completion(converted) if self._target == "completions" else converted

    def _mapped(self, row: Row) -> Columns:
        """The columns that ``mapping`` names. Raises Unusable."""
        missing = [column for part, column in self._mapping.items() if column not in row and part not in _BESIDE]
        if missing:
            keys = ", ".join(list(map(str, row))[:8]) or "none"
            raise Unusable("missing-column", f"has no column {missing[0]!r}, which mapping names; it has {keys}")
        kind = next((kind for kind in _KINDS if kind in self._mapping), None)
        if kind is None:
            text = "is not described: mapping needs messages, or prompt and completion, or text"
            raise Unusable("missing-column", text)
        return {part: self._mapping[part] for part in _KINDS[kind] if self._mapping.get(part) in row}


def _recognized(row: Row) -> tuple[str, Columns, tuple[Any, ...]]:
    """(layout, its columns, others that were heeded). Raises Unusable for a row of no known layout, and for one marked bad."""
    names = {str(key).strip().lower(): key for key in row}
    layout, columns = _layout(row, names)
    if "text" in columns:
        return layout, columns, ()
    kind = next(iter(columns))
    for part in _KINDS[kind]:
        found = (names[name] for name in _BESIDE.get(part, ()) if name in names)
        column = next((column for column in found if column not in columns.values()), None)
        if column is not None:
            columns[part] = column
    verdicts = {names[name]: str(row[names[name]]).strip().lower() for name in _VERDICTS if name in names}
    for column, verdict in verdicts.items():
        if verdict == "false":
            text = f"has {column!r} false, which marks its answer as a bad one; with mapping it is taken for a good one"
            raise Unusable("marked-bad", text)
    return layout, columns, tuple(column for column, verdict in verdicts.items() if verdict == "true")


def _layout(row: Row, names: dict[str, Any]) -> tuple[str, Columns]:
    """The layout and the columns by which it is known."""
    for name in ("messages", "conversations", "conversation"):
        if name in names:
            return "messages" if name == "messages" else "conversations", {"messages": names[name]}
    for asked, answered in PAIRS:
        if asked in names and answered in names:
            layout = "alpaca" if asked == "instruction" else f"{asked}/{answered}"
            return layout, {"prompt": names[asked], "completion": names[answered]}
    for name in TEXTS:
        if name in names:
            return "text", {"text": names[name]}
    keys = ", ".join(list(map(str, row))[:8]) or "none"
    raise Unusable(
        "unknown-layout",
        f"has the columns {keys}; name the ones to use with mapping, e.g. "
        '{"prompt": "<column>", "completion": "<column>"}',
    )


def _pair(row: Row, columns: Columns) -> list[Row]:
    """The turns of one question and one answer, and of those that went before."""
    prompt, answer = (_text_of(row[columns[part]], str(columns[part])) for part in ("prompt", "completion"))
    extra = _said(row, columns.get("input"))
    before = _plain(row, columns.get("history")) or []
    if not isinstance(before, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in before):
        raise Unusable("bad-turns", f"has {columns['history']!r} that is not a list of [question, answer]")
    exchanges = [*before, (f"{prompt}\n\n{extra}" if extra else prompt, answer)]
    return [
        {"role": role, "content": _text_of(text, "history")}
        for exchange in exchanges
        for role, text in zip(("user", "assistant"), exchange, strict=True)
    ]


def _turns(row: Row, column: Any) -> list[Row]:
    turns = _plain(row, column)
    if not isinstance(turns, list) or not turns:
        raise Unusable("bad-turns", f"has {column!r} that is not a list of turns")
    return [_message(turn, number) for number, turn in enumerate(turns, start=1)]


def _plain(row: Row, column: Any) -> Any:
    """A column's value; CSV and some Parquet files hold lists as JSON."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise Unusable("bad-turns", f"has {column!r} that is not JSON") from None


def _said(row: Row, column: Any) -> str | None:
    """The text of a column that may be missing or empty."""
    value = row.get(column)
    if value in _NOTHING or (isinstance(value, str) and not value.strip()):
        return None
    return _text_of(value, str(column))


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


def format_of_layout(row: Row) -> str:
    """mlx-lm's name for the format of a converted row."""
    return TEXT if "text" in row else (CHAT if "messages" in row else COMPLETIONS)
