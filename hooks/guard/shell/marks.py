"""Characters of Unicode's private area that stand for live shell syntax inside an expanded word.

A quoted `*` stays a `*`; a live one becomes STAR. So a field is a plain string and quoting needs no second array.
"""

from __future__ import annotations

LIVE = "*?[]{},~()|"
MARKED = "\ue100\ue101\ue102\ue103\ue104\ue105\ue106\ue107\ue108\ue109\ue10a"
STAR, ONE, LEFT, RIGHT, OPEN, CLOSE, COMMA, TILDE, LPAREN, RPAREN, BAR = MARKED
UNKNOWN = "\ue10f"  # any text at all: what we can't know before the command runs
SPLIT = "\ue110"  # a field boundary that came out of an expansion
EMPTY = "\ue111"  # a quoted empty string, which makes a field where nothing else would

_TO_LIVE = {ord(a): b for a, b in zip(LIVE, MARKED)}
_TO_PLAIN: dict[int, str | None] = {ord(b): a for a, b in zip(LIVE, MARKED)}
_TO_PLAIN[ord(EMPTY)] = None
_CLEAN = dict.fromkeys(range(57600, 57618), "�")


def live(text: str) -> str:
    """Unquoted text: its special characters become marks."""
    return text.translate(_TO_LIVE)


def plain(text: str) -> str:
    """A field's text with its marks turned back; UNKNOWN stays."""
    return text.translate(_TO_PLAIN)


def clean(text: str) -> str:
    """Input text without characters that would pass for our marks."""
    return text if text.isascii() else text.translate(_CLEAN)


def has_glob(text: str) -> bool:
    return STAR in text or ONE in text or LEFT in text or LPAREN in text or BAR in text
