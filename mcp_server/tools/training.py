"""Tools that train and follow a training."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from mcp.server.mcpserver import Context

from mcp_server.tools.tool import Illustrated, make_tool
from mcp_server.training import log
from mcp_server.training.log import LogDelta, LogRequest
from mcp_server.training.picture import picture
from mcp_server.training.request import TrainingRequest
from mcp_server.training.start import TrainingStarted, start_training


def start_lora_training(request: TrainingRequest) -> TrainingStarted:
    """Start a LoRA, DoRA or full fine-tuning with mlx-lm and return at once with its job id.

    Model, data (every line), paths and disk are checked first; an error names the value and the remedy and leaves nothing
    behind. The job runs in a process of its own and survives this session. An existing adapter is never overwritten.
    resume continues an ended job or a checkpoint exactly. Follow it with read_training_log, end it with stop_job.
    Options are mlx-lm's, with its defaults."""
    return start_training(request)


async def read_training_log(request: LogRequest, context: Context[Any, Any]) -> Illustrated[LogDelta]:
    """Read what a job has reported since a cursor: losses, memory, checkpoints, alerts, time left, and its result at the end.

    With wait_seconds it waits for news (until: any, val, checkpoint, alert or end). At most 40 points of each curve are
    returned. Pass the returned cursor as since the next time. image=true adds the curves as a picture (training,
    validation, learning rate, best checkpoint, alerts), compare_with other runs over it."""
    news = await log.read_log(request, context.report_progress)
    seen = await anyio.to_thread.run_sync(
        lambda: picture(request.job_id, image=request.image, compare_with=request.compare_with, finished=news.finished)
    )
    news = news.model_copy(update={"picture": seen.note, "sparkline": seen.sparkline})
    return Illustrated(news, [seen.png] if seen.png else [])


TOOLS = [
    make_tool(start_lora_training, title="Start LoRA training", read_only=False, open_world=True),
    make_tool(read_training_log, title="Read training log", read_only=True, idempotent=True),
]
