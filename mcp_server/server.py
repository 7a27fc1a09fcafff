"""The MCP server: stdio for clients, loopback HTTP for tests. It never imports mlx; jobs run in processes of their own."""

from __future__ import annotations

import gc

gc.disable()  # the imports below make half a million objects that live for ever: collecting between them costs a third

import argparse  # noqa: E402
import logging  # noqa: E402

from mcp.server.mcpserver import MCPServer  # noqa: E402

from mcp_server import __version__  # noqa: E402
from mcp_server.prompts import add_prompts  # noqa: E402
from mcp_server.resources import add_resources  # noqa: E402
from mcp_server.tools import (  # noqa: E402
    adapters,
    benchmark,
    datasets,
    fuse,
    generate,
    jobs,
    models,
    planning,
    platform,
    training,
)

INSTRUCTIONS = (
    "Fine-tunes language models on this Mac with MLX. Order: check_platform, inspect_dataset, plan_training, "
    "start_lora_training, read_training_log, run_benchmark; fuse_adapter for one model. "
    "Jobs outlive the session; list_jobs finds them."
)


def build_server() -> MCPServer:
    """The server with all its tools, resources and prompts."""
    server = MCPServer(
        "mlx",
        title="MLX training",
        version=__version__,
        instructions=INSTRUCTIONS,
        tools=[
            *platform.TOOLS,
            *planning.TOOLS,
            *datasets.TOOLS,
            *models.TOOLS,
            *training.TOOLS,
            *benchmark.TOOLS,
            *generate.TOOLS,
            *fuse.TOOLS,
            *jobs.TOOLS,
            *adapters.TOOLS,
        ],
        log_level="WARNING",
    )
    add_resources(server)
    add_prompts(server)
    return server


def main(arguments: list[str] | None = None) -> None:
    """``python -m mcp_server``: serve stdio, or HTTP on loopback with ``--http``."""
    parser = argparse.ArgumentParser(prog="python -m mcp_server", description="The MCP server of mlx-training.")
    parser.add_argument(
        "--http", action="store_true", help="serve streamable HTTP on 127.0.0.1 instead of stdio (for tests)"
    )
    parser.add_argument("--port", type=int, default=8765, help="port of --http (default 8765)")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)  # before the SDK would install a handler that frames tracebacks
    server = build_server()
    gc.freeze()
    gc.enable()
    if chosen.http:
        server.run("streamable-http", host="127.0.0.1", port=chosen.port)
    else:
        server.run("stdio")
