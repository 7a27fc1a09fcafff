"""The probe: real steps at the worst batch in a worker of its own, and what follows from them for the whole run."""

from __future__ import annotations

from pydantic import BaseModel, Field

from mcp_server.jobs import service, store
from mcp_server.jobs.service import IfBusy
from mcp_server.jobs.store import JobFolder
from mcp_server.planning import calibration
from mcp_server.planning.check import Expectation
from mcp_server.training.options import TrainingOptions


class ProbeOptions(BaseModel):
    """What the probe's worker is given."""

    training: TrainingOptions
    tokens: int = Field(description="Tokens a row of the worst batch has, as the model sees it")


class ProbeResult(BaseModel):
    """What was measured, and the run's time reckoned from it."""

    peak_memory_gb: float
    peak_bytes: int
    worst_tokens: int = Field(description="Tokens a row of the worst batch")
    worst_step_seconds: float
    usual_tokens: int = Field(description="Tokens a row of a usual batch, padded")
    usual_step_seconds: float
    seconds_per_step: float = Field(description="Mean over the batches of the data, at the measured pace")
    load_seconds: float = Field(description="Starting, loading and tracing each batch shape once")
    validation_seconds: float = Field(description="One validation")
    total_seconds: float
    batches_looked_at: int


def start_probe(expected: Expectation, *, if_busy: IfBusy = "queue") -> JobFolder:
    """Start the probe of the training that ``expected`` is about. Raises a UserError; nothing is left then."""
    options = ProbeOptions(training=expected.options, tokens=expected.tokens)
    folder = service.start("probe", options, job_id=store.new_id("probe"), if_busy=if_busy, needs_bytes=expected.peak)
    calibration.expect(
        folder,
        expected.machine_key(),
        expected.parts,
        grad_checkpoint=expected.options.grad_checkpoint,
        exact=True,
    )
    return folder


def total_seconds(options: TrainingOptions, step: float, load: float, validation: float) -> float:
    """The whole run: loading, steps, validations before the first step, every steps_per_eval and at the end."""
    validations = 0
    if options.val_batches:
        due = {1, options.iters, *range(options.steps_per_eval, options.iters + 1, options.steps_per_eval)}
        validations = len(due)
    return load + step * options.iters + validations * validation
