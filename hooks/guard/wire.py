"""JSON in and out on the C accelerator alone: importing `json` would double the price of every call."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

try:
    from _json import encode_basestring_ascii as _quote
    from _json import make_scanner
except ImportError:  # an interpreter without the accelerator pays for the package
    make_scanner = None


class _Reading:
    """What the C scanner asks of its decoder."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def loads(text: str) -> Any:
    """The value of JSON text.

    Raises:
        ValueError: it isn't JSON.
    """
    if make_scanner is None:
        import json

        return json.loads(text)
    start = 0
    while text[start : start + 1] in (" ", "\n", "\t", "\r") and start < len(text):
        start += 1
    try:
        value, end = make_scanner(_Reading)(text, start)  # pyright: ignore[reportArgumentType]
    except (StopIteration, SystemError):  # the scanner's own error type lives in the package that isn't imported
        raise ValueError("not JSON") from None
    if text[end:].strip():
        raise ValueError("text after the JSON")
    return value


def dumps(value: Any) -> str:
    """JSON text of strings, numbers, lists and dicts, ASCII only."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        if make_scanner is None:
            import json

            return json.dumps(value)
        return _quote(str(value))  # pyright: ignore[reportPossiblyUnboundVariable]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(dumps(str(key)) + ": " + dumps(item) for key, item in value.items()) + "}"
    return "[" + ", ".join(dumps(item) for item in value) + "]"
