"""The tool that tries a model or an adapter on a prompt."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context
from pydantic import Field

from mcp_server.generation.options import GenerateOptions, GenerationResult
from mcp_server.generation.start import start_generation
from mcp_server.jobs.service import IfBusy
from mcp_server.tools.tool import make_tool
from mcp_server.tools.waiting import BUSY, HOW, WAIT, JobAnswer, finish


class Generation(GenerateOptions):
    """GenerateOptions and how to wait."""

    if_busy: IfBusy = Field(default="refuse", description=BUSY)
    wait_seconds: float = Field(default=100, ge=0, le=1800, allow_inf_nan=False, description=WAIT)


class GenerationAnswer(JobAnswer):
    """A generation that ended, or that goes on."""

    result: GenerationResult | None = None


async def generate_text(options: Generation, context: Context[Any, Any]) -> GenerationAnswer:
    """Try a model or an adapter on a prompt; with compare=true base and adapter side by side.

    The model's chat template is applied unless raw=true. One answer is an anecdote: for proof use run_benchmark. Runs as a
    job that holds the machine: beside a running training it is refused, or waits with if_busy='queue'."""
    plain = GenerateOptions.model_validate(options.model_dump(exclude=HOW))
    answer, result = await finish(start_generation(plain, if_busy=options.if_busy), options.wait_seconds, context)
    return GenerationAnswer(**answer.model_dump(), result=GenerationResult.model_validate(result) if result else None)


TOOLS = [make_tool(generate_text, title="Generate text", read_only=False, open_world=True)]
