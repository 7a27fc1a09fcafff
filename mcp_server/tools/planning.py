"""Tools that tell what will happen before it does, and prepare for it."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context

from mcp_server.planning.measured import PlanTraining, make_plan
from mcp_server.planning.plan import Plan
from mcp_server.platform.prepare import EnvironmentAnswer, PrepareEnvironment, prepare
from mcp_server.tools.tool import make_tool


async def plan_training(request: PlanTraining, context: Context[Any, Any]) -> Plan:
    """Plan a training: complete arguments for start_lora_training with a reason for each, expected memory, time and disk.

    From the model's files, the data's token lengths, this machine and a goal. Cuts what does not fit, says what was cut,
    and says so when nothing fits and what would. With probe=true two real steps are run at the worst batch, so that memory
    and time are measured, not guessed. Starts no training."""
    return await make_plan(request, context.report_progress)


async def prepare_environment(request: PrepareEnvironment, context: Context[Any, Any]) -> EnvironmentAnswer:
    """Make or repair the Python environment with MLX that jobs run in (uv, locked versions; about 1 GB the first time).

    Needed once, when check_platform or another tool says that mlx-lm was not found. Built beside the old one and swapped
    in when it works. Runs as a job: when it takes longer than wait_seconds, follow it with read_training_log."""
    return await prepare(request, context.report_progress)


TOOLS = [
    make_tool(plan_training, title="Plan training", read_only=False, idempotent=True, open_world=True),
    make_tool(prepare_environment, title="Prepare environment", read_only=False, idempotent=True, open_world=True),
]
