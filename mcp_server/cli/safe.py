"""Text from elsewhere on its way to a terminal."""

from __future__ import annotations

from mcp_server.datasets.secrets import redact


def safe(text: str) -> str:
    """``text`` without secrets, and without control characters: a folder's name must not move the cursor or ring the bell."""
    return "".join(character if character.isprintable() else "�" for character in redact(text).replace("\n", " "))
