"""The one door through which text enters a page: escaped, and without secrets.

``Html`` is what has been through it. Everything else is text, wherever it comes from: a row of the data, an error, a name.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from mcp_server.datasets.secrets import redact


class Html(str):
    """Markup, safe to put into a page as it is."""

    __slots__ = ()


def escape(value: Any) -> Html:
    """``value`` as text of a page or of a quoted attribute; markup passes unchanged."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(redact(str(value)), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """The parts one after the other, each escaped."""
    return Html(between.join(escape(part) for part in parts))


def element(name: str, *content: Any, style: str | None = None, **attributes: Any) -> Html:
    """``<name>content</name>``. ``style`` is a class of the style sheet."""
    given = ({"class": style} if style else {}) | attributes
    inner = "".join(f' {key.replace("_", "-")}="{escape(value)}"' for key, value in given.items() if value is not None)
    return Html(f"<{name}{inner}>{join(content)}</{name}>")


def table(rows: Iterable[Iterable[Any]], *, head: Iterable[Any] = (), style: str | None = None) -> Html:
    """A table in a box that scrolls sideways; the first cell of a row is its heading."""
    top = element("thead", element("tr", *(element("th", cell, scope="col") for cell in head))) if head else ""
    body = join(
        element(
            "tr",
            *(
                element("th", cell, scope="row") if place == 0 else element("td", cell)
                for place, cell in enumerate(row)
            ),
        )
        for row in rows
    )
    return element("div", element("table", top, element("tbody", body), style=style), style="scroll")
