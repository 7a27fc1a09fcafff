"""What a tool's answer is made of on its way to the model."""

from __future__ import annotations

import pytest
from mcp.client import Client
from mcp.server.mcpserver import MCPServer

from mcp_server.errors import DataError
from mcp_server.tools.tool import NoArguments, make_tool
from tests.recorded import make_job

pytestmark = pytest.mark.anyio


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


async def test_an_error_that_quotes_a_book_is_cut():
    server = MCPServer("test", tools=[make_tool(fails, title="Fail", read_only=True)])
    async with Client(server) as client:
        result = await client.call_tool("fails", {})
    assert result.is_error
    text = getattr(result.content[0], "text", "")
    assert text.startswith("this row is odd: xx") and len(text) < 5_000


async def test_an_error_in_words_is_those_words_and_no_more(client: Client):
    result = await client.call_tool("stop_job", {"job_id": "train-none"})
    assert result.is_error
    assert getattr(result.content[0], "text", "").startswith("there is no job 'train-none'")
