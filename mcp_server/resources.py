"""What clients that show resources can open: the jobs, and each job's settings, log and report. Claude Code needs none of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError
from pydantic import BaseModel

from mcp_server.datasets.secrets import redact_value
from mcp_server.errors import JobError, UserError
from mcp_server.jobs import index, service, store
from mcp_server.training.log import LogRequest, read_log

SCHEME = "mlx-training"
_JSON = "application/json"
_LISTED = 50


def add_resources(server: MCPServer) -> None:
    """Publish ``mlx-training://jobs`` and, for each job, ``/{job_id}``, ``/{job_id}/log`` and ``/{job_id}/report``."""
    job = f"{SCHEME}://jobs/{{job_id}}"
    server.resource(f"{SCHEME}://jobs", name="jobs", title="Jobs", mime_type=_JSON)(jobs)
    server.resource(job, name="job", title="Job", mime_type=_JSON)(job_settings)
    server.resource(f"{job}/log", name="log", title="Log of a job", mime_type=_JSON)(job_log)
    server.resource(f"{job}/report", name="report", title="Report of a job", mime_type=_JSON)(job_report)


def jobs() -> str:
    """The newest jobs of all sessions with their true states."""
    return _plain(index.newest(_LISTED))


def job_settings(job_id: str) -> str:
    """One job: its state, and everything it was asked for."""

    def read() -> str:
        folder = store.get(job_id)
        view = service.view(folder).model_dump(mode="json", exclude_none=True)
        return json.dumps(view | {"options": redact_value(folder.spec().options)}, indent=1, ensure_ascii=False)

    return _told(read)


async def job_log(job_id: str) -> str:
    """Losses, memory, checkpoints and alerts of one job, thinned to a readable length."""
    try:
        return _plain(await read_log(LogRequest(job_id=job_id)))
    except UserError as error:
        raise ResourceError(str(error)) from error


def job_report(job_id: str) -> str:
    """What an ended job reports: a benchmark its comparison and samples, a training its losses and adapter."""

    def read() -> str:
        folder = store.get(job_id)
        outcome = folder.outcome()
        if outcome is None or outcome.result is None:
            state = service.reconcile(folder)
            raise JobError(
                f"job {job_id} is {state.status} and has no report; its log says more: {SCHEME}://jobs/{job_id}/log"
            )
        return json.dumps(outcome.result, indent=1, ensure_ascii=False)

    return _told(read)


def _told(read: Callable[[], str]) -> str:
    """What ``read`` gives; its UserError in the SDK's form, whose text reaches the client."""
    try:
        return read()
    except UserError as error:
        raise ResourceError(str(error)) from error


def _plain(value: BaseModel) -> str:
    content: dict[str, Any] = value.model_dump(mode="json", exclude_none=True)
    return json.dumps(content, indent=1, ensure_ascii=False)
