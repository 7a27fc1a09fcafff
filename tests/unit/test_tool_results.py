"""What a tool's answer is made of on its way to the model."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

from mcp_server.errors import DataError
from mcp_server.tools.tool import NoArguments, make_tool
from tests.helpers import call
from tests.recorded import make_job

pytestmark = pytest.mark.anyio
TOKEN = "hf_" + "A1" * 17


async def test_fields_that_are_null_are_left_out_of_both_forms(client: Client):
    make_job()
    result = await client.call_tool("list_jobs", {})
    assert result.structured_content is not None
    (view,) = result.structured_content["jobs"]
    assert "why" not in view and None not in view.values()
    assert "null" not in getattr(result.content[0], "text", "null")


def fails(_: NoArguments) -> NoArguments:
    """Fail with many words."""
    raise DataError("this row is odd: " + "x" * 50_000)


def meets_a_row(_: NoArguments) -> NoArguments:
    """Fail as no service foresaw, with an error that quotes what it met."""
    raise KeyError(f"the row of Jane Doe, {TOKEN}")


async def meets_a_row_later(_: NoArguments, __: Any) -> NoArguments:
    """The same in a tool that waits."""
    return meets_a_row(_)


def is_kept_out(_: NoArguments) -> NoArguments:
    """Fail as a Mac fails who was not given the right to look into Documents."""
    raise PermissionError(errno.EPERM, "Operation not permitted", "/Users/x/Documents/data")


def has_no_room(_: NoArguments) -> NoArguments:
    """Fail as a write does, whose error names no file."""
    raise OSError(errno.ENOSPC, "No space left on device")


async def said_by(function: Callable[..., Any]) -> str:
    """The text of the error that a tool ends with."""
    server = MCPServer("test", tools=[make_tool(function, title="Fail", read_only=True)])
    async with Client(server) as client:
        result = await client.call_tool(function.__name__, {})
    assert result.is_error
    return getattr(result.content[0], "text", "")


async def test_an_error_that_quotes_a_book_is_cut():
    text = await said_by(fails)
    assert text.startswith("this row is odd: xx") and len(text) < 5_000


@pytest.mark.parametrize("function", [meets_a_row, meets_a_row_later])
async def test_of_an_error_that_nobody_foresaw_the_type_is_told_and_the_rest_kept_in_a_file(
    function: Callable[..., Any], home: Path
):
    text = await said_by(function)
    kept = home / "last-error.txt"
    assert text == (f"KeyError, which nobody foresaw: a fault of mlx-training; report it with the traceback in {kept}")
    traceback = kept.read_text(encoding="utf-8")
    assert "in meets_a_row" in traceback and TOKEN not in traceback
    assert home.stat().st_mode & 0o077 == 0


async def test_what_the_system_refuses_is_told_with_its_path_and_what_to_do():
    text = await said_by(is_kept_out)
    assert text.startswith("/Users/x/Documents/data: Operation not permitted; check its permissions")
    assert "Privacy & Security" in text
    assert await said_by(has_no_room) == "the system refused: No space left on device; free disk space"


class Asked(BaseModel):
    """Every kind of field that may be given a string."""

    text: str | None = None
    needed: str = ""
    many: list[str] | None = None
    either: str | dict[str, Any] | None = None


def repeat(asked: Asked) -> Asked:
    """Say what was understood."""
    return asked


@pytest.mark.parametrize("text", ['{"item": "lamp"}', "[1, 2]", "null", '"quoted"', "7"])
async def test_text_that_is_json_stays_text_where_text_is_asked_for(text: str):
    server = MCPServer("test", tools=[make_tool(repeat, title="Repeat", read_only=True)])
    async with Client(server) as client:
        given = {"text": text, "needed": text, "many": '["a", "b"]', "either": '{"a": 1}'}
        assert await call(client, "repeat", **given) == {
            "text": text,
            "needed": text,
            "many": ["a", "b"],
            "either": {"a": 1},
        }


async def test_an_error_in_words_is_those_words_and_no_more(client: Client):
    result = await client.call_tool("stop_job", {"job_id": "train-none"})
    assert result.is_error
    assert getattr(result.content[0], "text", "").startswith("there is no job 'train-none'")
