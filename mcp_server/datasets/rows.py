"""What mlx-lm accepts as one line of train.jsonl, valid.jsonl or test.jsonl, and what it would silently mistrain.

Standard library alone and few imports: the hooks load this module too, so that the rule lives in one place.
The formats and their precedence are those of ``mlx_lm.tuner.datasets.create_dataset``.
"""

from __future__ import annotations

import json

CHAT, COMPLETIONS, TEXT = "chat", "completions", "text"
ROLES = ("system", "user", "assistant", "tool", "developer")


class Problem:
    """One finding about one line: ``severity`` is "error" (mlx-lm fails on it or trains garbage) or "warning"."""

    __slots__ = ("code", "message", "severity")

    def __init__(self, code: str, message: str, severity: str = "error") -> None:
        self.code = code
        self.message = message
        self.severity = severity

    def __repr__(self) -> str:
        return f"Problem({self.code!r}, {self.message!r}, {self.severity!r})"


class _NotANumber(ValueError):
    """A NaN or Infinity literal, which JSON does not have but Python's reader lets through."""


def _refuse_constant(name: str) -> float:
    raise _NotANumber(name)


# Made once: ``json.loads`` with an argument would build a new one for every line.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def check_line(
    text: str, expect: str | None = None, names: dict[str, str] | None = None
) -> tuple[str | None, list[Problem]]:
    """Check one line. ``expect`` is the format of the file's first row, which mlx-lm assumes for all others.

    ``names`` maps the data's own field names to mlx-lm's (its ``prompt_feature`` and the like).

    Returns the format found (None when there is none) and the problems, worst first.
    """
    row, problem = parse_line(text)
    if row is None:
        return None, [problem] if problem is not None else []
    return check_row(row, expect, names)


def parse_line(text: str) -> tuple[dict[str, object] | None, Problem | None]:
    """The row that a line holds, or None and why it holds none."""
    if text.startswith("\ufeff"):
        return None, Problem(
            "bom", "starts with a UTF-8 byte order mark, which mlx-lm's reader refuses; save as plain UTF-8"
        )
    if not text.strip():
        return None, Problem("blank-line", "is blank; mlx-lm stops with a JSON error on blank lines; delete it")
    try:
        row = _DECODER.decode(text)
    except _NotANumber as exc:
        return None, Problem("not-a-number", f"holds the literal {exc}, which is not JSON; use null or a number")
    except RecursionError:
        return None, Problem("bad-json", "is nested too deeply to be read as JSON")
    except ValueError as exc:
        detail = f"{exc.msg} at column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else str(exc)
        return None, Problem("bad-json", f"is not valid JSON: {detail}")
    if not isinstance(row, dict):  # from here on the keys are strings: JSON has no others
        kind = {list: "a JSON array", str: "a string"}.get(type(row), "not an object")
        return None, Problem("not-an-object", f"is {kind}; each line must be one JSON object")
    return row, None


def check_row(
    row: dict[str, object], expect: str | None = None, names: dict[str, str] | None = None
) -> tuple[str | None, list[Problem]]:
    """``check_line`` of a row that was already read."""
    own = row
    if names:
        row = renamed(row, names)
    found = format_of(row)
    if found is None:
        return None, [Problem("unknown-format", _unknown(own, names or {}))]
    problems = _CHECKS[found](row)
    if len(row) > 1:
        problems += _check_keys(row, found)
    if expect is not None and found != expect:
        problems.insert(
            0,
            Problem(
                "mixed-formats",
                f"is in {found} format but the file's first row is {expect}; "
                "mlx-lm decides from the first row and fails on the others in mid-training",
            ),
        )
    return found, problems


def _unknown(row: dict[str, object], names: dict[str, str]) -> str:
    """What is said of a row of no format, by the names that were looked for."""
    keys = ", ".join(sorted(map(str, row))[:6]) or "none"
    own = {standard: name for name, standard in names.items()}
    chat, prompt, completion, text = (own.get(name, name) for name in ("messages", "prompt", "completion", "text"))
    return f"has the keys {keys}; expected {chat!r}, or {prompt!r} and {completion!r}, or {text!r}"


def renamed(row: dict[str, object], names: dict[str, str]) -> dict[str, object]:
    """``row`` with mlx-lm's own field names. A field that already has such a name, but is not meant, is left out."""
    taken = names.values()
    return {names.get(key, key): value for key, value in row.items() if key in names or key not in taken}


# Keys that carry meaning elsewhere and that mlx-lm leaves out without a word.
_IGNORED = ("system", "instruction", "input", "context", "images", "weight")
_PREFERRED_OVER = {COMPLETIONS: ("messages", "text"), CHAT: ("text",), TEXT: ()}


def _check_keys(row: dict[str, object], found: str) -> list[Problem]:
    problems: list[Problem] = []
    also = [key for key in _PREFERRED_OVER[found] if key in row]
    if also:
        problems.append(
            Problem(
                "ambiguous-format",
                f"has {also[0]!r} too, which mlx-lm leaves out: it reads the row as {found}; keep one of the two",
                "warning",
            )
        )
    ignored = [key for key in _IGNORED if row.get(key)]
    if ignored:
        problems.append(
            Problem(
                "ignored-key",
                f"has {ignored[0]!r}, which mlx-lm leaves out; put it into the messages, or let prepare_dataset do it",
                "warning",
            )
        )
    return problems


def format_of(row: dict[str, object]) -> str | None:
    """The format mlx-lm reads ``row`` as, in its order of precedence, or None."""
    if "prompt" in row and "completion" in row:
        return COMPLETIONS
    if "messages" in row:
        return CHAT
    if "text" in row:
        return TEXT
    return None


def _check_text(row: dict[str, object]) -> list[Problem]:
    return _check_string("text", row["text"])


def _check_completions(row: dict[str, object]) -> list[Problem]:
    return _check_string("prompt", row["prompt"]) + _check_string("completion", row["completion"])


def _check_string(name: str, value: object) -> list[Problem]:
    if not isinstance(value, str):
        return [Problem("wrong-type", f"'{name}' is {_kind(value)}; it must be a string")]
    if not value.strip():
        return [Problem("empty", f"'{name}' is empty; nothing could be learnt from it")]
    return _check_encoding(name, value)


def _check_encoding(name: str, value: str) -> list[Problem]:
    if value.isascii():
        return []
    if "\ufffd" in value:
        return [
            Problem(
                "encoding",
                f"'{name}' holds the replacement character U+FFFD: text was lost when it was decoded",
                "warning",
            )
        ]
    try:
        value.encode()
    except UnicodeEncodeError:
        return [Problem("encoding", f"'{name}' holds half of a surrogate pair, which no tokenizer can encode")]
    return []


def _check_chat(row: dict[str, object]) -> list[Problem]:
    messages = row["messages"]
    if not isinstance(messages, list):
        return [Problem("wrong-type", f"'messages' is {_kind(messages)}; it must be a list of messages")]
    if not messages:
        return [Problem("empty", "'messages' is empty")]
    problems: list[Problem] = []
    roles: list[str] = []
    for index, message in enumerate(messages):
        problems += _check_message(f"message {index + 1}", message)
        role = message.get("role") if isinstance(message, dict) else None
        roles.append(role if isinstance(role, str) else "")
    if "assistant" not in roles:
        problems.append(Problem("no-assistant", "has no assistant message, so there is no answer to learn"))
    elif roles[-1] != "assistant":
        problems.append(
            Problem(
                "last-not-assistant",
                f"ends with a {roles[-1] or 'role-less'} message; with mask_prompt mlx-lm trains on that one, not on an answer",
            )
        )
    if "system" in roles[1:]:
        problems.append(
            Problem(
                "late-system", "has a system message that is not the first; many chat templates refuse it", "warning"
            )
        )
    turns = [role for role in roles if role in ("user", "assistant")]
    if any(one == other == "user" for one, other in zip(turns, turns[1:])):
        problems.append(
            Problem("repeated-role", "has two user messages in a row; some chat templates refuse that", "warning")
        )
    if "tools" in row and not (row["tools"] is None or isinstance(row["tools"], list)):
        problems.append(Problem("wrong-type", f"'tools' is {_kind(row['tools'])}; it must be a list of tool schemas"))
    problems.sort(key=lambda problem: problem.severity != "error")
    return problems


def _check_message(where: str, message: object) -> list[Problem]:
    if not isinstance(message, dict):
        return [Problem("wrong-type", f"{where} is {_kind(message)}; it must be an object with 'role' and 'content'")]
    if "role" not in message:
        hint = " (found 'from'/'value': ShareGPT; convert it)" if "from" in message else ""
        return [Problem("missing-role", f"{where} has no 'role'{hint}; mlx-lm takes it silently and mistrains")]
    role = message["role"]
    if role not in ROLES:
        return [Problem("unknown-role", f"{where} has the role {role!r}; known roles are {', '.join(ROLES)}")]
    content = message.get("content")
    if content is None or content == "":
        if role == "assistant" and message.get("tool_calls"):
            return []
        if role == "tool" and content == "":
            return []
        state = "no 'content'" if "content" not in message else ("null content" if content is None else "empty content")
        return [Problem("empty", f"{where} ({role}) has {state}")]
    if isinstance(content, str):
        if not content.strip():
            return [Problem("empty", f"{where} ({role}) has only white space as content")]
        return _check_encoding(f"{where} ({role})", content)
    if isinstance(content, list):
        return _check_parts(where, content)
    return [Problem("wrong-type", f"{where} ({role}) has {_kind(content)} as content; it must be a string")]


def _check_parts(where: str, parts: list[object]) -> list[Problem]:
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            return [
                Problem("wrong-type", f"{where} has a content part that is not text; only text parts can be trained on")
            ]
    return []


def _kind(value: object) -> str:
    """A JSON name for the type of ``value``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


_CHECKS = {TEXT: _check_text, COMPLETIONS: _check_completions, CHAT: _check_chat}
