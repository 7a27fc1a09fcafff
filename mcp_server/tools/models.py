"""Tools that convert models."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from pydantic import Field

from mcp_server.conversion.options import ConvertOptions
from mcp_server.conversion.report import ConversionResult
from mcp_server.conversion.start import start_conversion
from mcp_server.jobs.service import IfBusy
from mcp_server.tools.tool import make_tool
from mcp_server.tools.waiting import BUSY, HOW, WAIT, JobAnswer, finish


class Conversion(ConvertOptions):
    """ConvertOptions and how to wait."""

    if_busy: IfBusy = Field(default="queue", description=BUSY)
    wait_seconds: float = Field(default=100, ge=0, le=1800, allow_inf_nan=False, description=WAIT)


class ConversionAnswer(JobAnswer):
    """A conversion that ended, or that goes on."""

    result: ConversionResult | None = None


async def convert_model(options: Conversion, context: Context[Any, Any]) -> ConversionAnswer:
    """Convert a Hugging Face model to MLX format, by default quantized to 4 bits, as mlx_lm.convert does.

    Says what it costs: size and perplexity before and after. Written to a new folder that appears only when it is whole
    and has been loaded and tried; nothing is overwritten and nothing uploaded. method= quantizes with the help of your
    data. Runs as a job: when it takes longer than wait_seconds, follow it with read_training_log."""
    plain = ConvertOptions.model_validate(options.model_dump(exclude=HOW))
    answer, result = await finish(start_conversion(plain, if_busy=options.if_busy), options.wait_seconds, context)
    return ConversionAnswer(**answer.model_dump(), result=ConversionResult.model_validate(result) if result else None)


TOOLS = [make_tool(convert_model, title="Convert model", read_only=False, open_world=True)]
