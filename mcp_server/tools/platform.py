"""Tools about the machine."""

from __future__ import annotations

from mcp_server.platform import check, memory
from mcp_server.platform.check import PlatformReport
from mcp_server.platform.memory import MemoryReport, MemoryRequest
from mcp_server.tools.tool import NoArguments, make_tool


def check_platform(_: NoArguments) -> PlatformReport:
    """Tell whether this machine can train with MLX: chip, macOS, memory, disk, versions, default device.

    Gives one verdict and the remedy for each failing line. Call it first. It changes nothing."""
    return check.check_platform()


def get_metal_memory(request: MemoryRequest) -> MemoryReport:
    """Memory of the machine and of the running job, with advice.

    The job's figures are its own process's MLX counters (active, peak, cache); with no job, the machine alone."""
    return memory.read_memory(request)


TOOLS = [
    make_tool(check_platform, title="Check platform", read_only=True, idempotent=True),
    make_tool(get_metal_memory, title="Get Metal memory", read_only=True, idempotent=True),
]
