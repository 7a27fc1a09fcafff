"""The tool that makes one model of a base and an adapter."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from pydantic import Field

from mcp_server.conversion.options import FuseOptions
from mcp_server.conversion.report import FusionResult
from mcp_server.conversion.start import start_fusion
from mcp_server.jobs.service import IfBusy
from mcp_server.tools.tool import make_tool
from mcp_server.tools.waiting import BUSY, HOW, WAIT, JobAnswer, finish


class Fusion(FuseOptions):
    """FuseOptions and how to wait."""

    if_busy: IfBusy = Field(default="queue", description=BUSY)
    wait_seconds: float = Field(default=100, ge=0, le=1800, allow_inf_nan=False, description=WAIT)


class FusionAnswer(JobAnswer):
    """A fusion that ended, or that goes on."""

    result: FusionResult | None = None


async def fuse_adapter(options: Fusion, context: Context[Any, Any]) -> FusionAnswer:
    """Fuse an adapter into its base model, as mlx_lm.fuse does, and measure whether the result still does what both did.

    Written to a new folder that appears only when it is whole; nothing is overwritten or uploaded. Onto a quantized base
    the adapter is rounded to its bits and may be lost: effect_kept says how much is left, and dequantize=true keeps it.
    Runs as a job: when it takes longer than wait_seconds, follow it with read_training_log."""
    plain = FuseOptions.model_validate(options.model_dump(exclude=HOW))
    answer, result = await finish(start_fusion(plain, if_busy=options.if_busy), options.wait_seconds, context)
    return FusionAnswer(**answer.model_dump(), result=FusionResult.model_validate(result) if result else None)


TOOLS = [make_tool(fuse_adapter, title="Fuse adapter", read_only=False, open_world=True)]
