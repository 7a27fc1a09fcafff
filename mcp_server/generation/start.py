"""Checks before a trial generation."""

from __future__ import annotations

from mcp_server import settings
from mcp_server.conversion.start import base_of
from mcp_server.evaluation.start import check_adapter
from mcp_server.generation.options import GenerateOptions
from mcp_server.jobs import service, store
from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import JobFolder
from mcp_server.models import folder as models
from mcp_server.platform.check import require_platform


def start_generation(options: GenerateOptions, *, if_busy: IfBusy = "refuse") -> JobFolder:
    """Check model and adapter, then start the job. Raises a UserError; nothing is left then."""
    require_platform()
    adapter = settings.resolve(options.adapter_path) if options.adapter_path else None
    model = options.model
    if adapter is not None:
        check_adapter(adapter)
        model = model or base_of(adapter)
    assert model is not None  # the options see to it
    source = models.locate(model)
    if source is not None:
        models.check(source)
    resolved = options.model_copy(
        update={"model": str(source or model), "adapter_path": str(adapter) if adapter else None}
    )
    return service.start("generate", resolved, job_id=store.new_id("generate"), if_busy=if_busy)
