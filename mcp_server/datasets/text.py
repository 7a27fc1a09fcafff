"""The text of a row as the model would learn it, and what can be told of it without a tokenizer."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from mcp_server.datasets.rows import CHAT, COMPLETIONS, ROLES

Row = dict[str, Any]
SEPARATOR = "\x1e"  # between the parts of a row: ASCII's record separator, in no text and part of no word

# What UTF-8 becomes when it is read as Latin-1 or Windows-1252 and saved again: "é" as "Ã©", "’" as "â€™".
_MOJIBAKE = re.compile("Ã[\u0080-\u00bf‚ƒ„…†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œ]|â€[\u0098-\u009d™œžš“”¦˜]|Â[\u00a0-\u00bf]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1d\x1f\x7f]")

_SCRIPTS: tuple[tuple[str, int, int], ...] = (
    ("Greek", 0x370, 0x3FF),
    ("Cyrillic", 0x400, 0x52F),
    ("Hebrew", 0x590, 0x5FF),
    ("Arabic", 0x600, 0x77F),
    ("Devanagari", 0x900, 0x97F),
    ("Thai", 0xE00, 0xE7F),
    ("Japanese kana", 0x3040, 0x30FF),
    ("Han", 0x3400, 0x9FFF),
    ("Korean", 0xAC00, 0xD7AF),
)
# The commonest words that the others do not share.
_STOP_WORDS = {
    name: frozenset(words.split(" "))
    for name, words in {
        "English": "the and is of to that it you for with what this are was have not",
        "German": "der die das und ist nicht ein eine mit für auf wie den von ich sich",
        "French": "le les et est une des pour dans que pas vous qui sur avec ce je",
        "Spanish": "el los las y es una por para con que qué como del se está",
        "Italian": "il gli e è una di che per con non della sono del come cosa",
        "Portuguese": "os as e é uma de que para com não do da como você em",
        "Dutch": "het een en van niet dat met voor zijn op wat hoe ik je",
    }.items()
}


def training_text(row: Row, row_format: str) -> str:
    """Everything of ``row`` that mlx-lm shows to the model, parts apart by ``SEPARATOR``; other keys do not count."""
    if row_format == COMPLETIONS:
        parts = ["user", _string(row["prompt"]), "assistant", _string(row["completion"])]
    elif row_format == CHAT:
        parts = _message_parts(row["messages"])
    else:
        return _string(row["text"])
    if row.get("tools"):
        parts.append(json.dumps(row["tools"], sort_keys=True, default=str))
    return SEPARATOR.join(parts)


def said_text(row: Row, row_format: str) -> str:
    """What rows are compared by: the contents without system messages, tools and roles, which many rows share."""
    if row_format == COMPLETIONS:
        return f"{_string(row['prompt'])}\n{_string(row['completion'])}"
    if row_format != CHAT or not isinstance(row["messages"], list):
        return training_text(row, row_format)
    said = [
        _string(message.get("content"))
        for message in row["messages"]
        if isinstance(message, dict) and message.get("role") not in ("system", "developer")
    ]
    return "\n".join(said) if any(said) else training_text(row, row_format)


def _message_parts(messages: Any) -> list[str]:
    parts: list[str] = []
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict):
            continue
        parts.append(_string(message.get("role")))
        parts.append(_string(message.get("content")))
        if len(message) > 2:
            rest = {key: value for key, value in message.items() if key not in ("role", "content") and value}
            if rest:
                parts.append(json.dumps(rest, sort_keys=True, default=str))
    return parts


def content_characters(row: Row, row_format: str) -> int:
    """Characters of what is said in a row, without roles, tools and calls."""
    if row_format == CHAT:
        return sum(len(_string(message.get("content"))) for message in row["messages"])
    if row_format == COMPLETIONS:
        return len(_string(row["prompt"])) + len(_string(row["completion"]))
    return len(_string(row["text"]))


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list):
        texts = [part.get("text") for part in value if isinstance(part, dict)]
        if texts and all(isinstance(text, str) for text in texts):
            return "\n".join(map(str, texts))
    return json.dumps(value, sort_keys=True, default=str)


def roles_of(row: Row, row_format: str) -> list[str]:
    """The roles of a row's messages in order, "unknown" for any that is none of ours (it may be anything, a secret too);
    a completion counts as user and assistant, text as none."""
    if row_format == COMPLETIONS:
        return ["user", "assistant"]
    if row_format == CHAT and isinstance(row["messages"], list):
        found = (message.get("role") for message in row["messages"] if isinstance(message, dict))
        return [role if role in ROLES else "unknown" for role in found]
    return []


def looks_garbled(text: str) -> str | None:
    """Why the characters of ``text`` look damaged, or None."""
    if not text.isascii() and (match := _MOJIBAKE.search(text)):
        return f"holds {match.group()!r}, which is UTF-8 that was read as Latin-1; read the source as UTF-8"
    if match := _CONTROL.search(text):
        return f"holds the control character U+{ord(match.group()):04X}; remove it"
    return None


def language_of(text: str) -> str:
    """The script of most letters, and for Latin the language whose commonest words are most frequent ("Latin" when none).

    A hint from the first 2,000 characters, not a classification: code and short rows often have none.
    """
    text = text[:2000]
    if not text.isascii():
        scripts = Counter(_script(character) for character in text if character.isalpha())
        if scripts["Japanese kana"]:
            scripts["Japanese kana"] += scripts.pop("Han", 0)  # Japanese is written in both
        if scripts and scripts.most_common(1)[0][0] != "Latin":
            return scripts.most_common(1)[0][0]
    words = Counter(re.findall(r"\w+", text.lower()))
    scores = {name: sum(words[word] for word in stop) for name, stop in _STOP_WORDS.items()}
    best = max(scores, key=lambda name: scores[name])
    runner_up = max((score for name, score in scores.items() if name != best), default=0)
    return best if scores[best] >= 2 and scores[best] > runner_up else "Latin"


def _script(character: str) -> str:
    code = ord(character)
    if code < 0x370:
        return "Latin"
    return next((name for name, first, last in _SCRIPTS if first <= code <= last), "other")
