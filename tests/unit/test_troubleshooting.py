"""What docs/troubleshooting.md quotes is what the code says, and every kind of error has its line there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mcp_server import errors
from mcp_server.planning.check import DoesNotFitError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
# Said by Claude Code, by a person, or in the report of an issue; not by us.
OTHERS = {"No such tool available"}


def said() -> Iterator[str]:
    """Every text in the code; of one with values in it the parts between them."""
    for folder in ("mcp_server", "hooks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
    for name in ("mcp_server/start.sh", "mcp_server/refuse.sh", "hooks/run"):
        yield (ROOT / name).read_text(encoding="utf-8")


def quoted(page: str) -> list[str]:
    """What stands in double quotes, at its ellipses cut into pieces."""
    text = re.sub(r"`[^`]*`", "", page.partition("<!--")[0])
    pieces = [piece.strip(" ?") for span in re.findall(r'"([^"]+)"', text) for piece in span.split("…")]
    return [" ".join(piece.split()) for piece in pieces if piece and piece not in OTHERS]


def test_every_message_that_the_page_quotes_is_one_of_ours() -> None:
    texts = list(said())
    quotes = quoted(PAGE)
    assert len(quotes) > 12
    assert [quote for quote in quotes if not any(quote in text for text in texts)] == []
    assert not any("a sentence that nobody says" in text for text in texts)


def test_every_kind_of_error_has_its_line() -> None:
    ours = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.UserError)]
    kinds = {each.__name__ for each in (*ours, DoesNotFitError)} - {"UserError"}
    assert set(re.findall(r"^\| `(\w+Error)` \|", PAGE, re.M)) == kinds
