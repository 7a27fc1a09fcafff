"""Whether a training fits into this machine's memory, now and at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from mcp_server.errors import ModelError, UserError
from mcp_server.models import shape as shapes
from mcp_server.models.shape import ModelShape
from mcp_server.planning import budget as budgets
from mcp_server.planning import calibration, memory
from mcp_server.planning.budget import TIGHT, Budget
from mcp_server.planning.calibration import Correction
from mcp_server.planning.coefficients import coefficients
from mcp_server.planning.memory import MemoryParts
from mcp_server.training import measures
from mcp_server.training.options import TrainingOptions


class DoesNotFitError(UserError):
    """The training would need more memory than it may use."""


class MemoryEstimate(BaseModel):
    """What a training step is expected to need at its peak, GB (1e9 bytes)."""

    peak_gb: float
    likely_from_gb: float = Field(description="The error seen on other models either way")
    likely_to_gb: float
    parts_gb: dict[str, float] = Field(description="Of the formula, before correction")
    tokens_per_row: int = Field(description="The longest row of a batch as the model sees it, padded")
    trainable_parameters: int
    corrected_by: str = Field(description="Probes or trainings on this machine, or nothing yet")
    coefficients_from: str


class Expectation:
    """An estimate in bytes, and what it was made of."""

    def __init__(self, shape: ModelShape, options: TrainingOptions, tokens: int, budget: Budget) -> None:
        self.shape, self.options, self.tokens, self.budget = shape, options, tokens, budget
        limited = bool(measures.buffer_limits(options, budget.backend, os.environ))
        self._graphs = not measures.no_graphs(options, budget.backend, os.environ, quantized=shape.quantized)
        known = coefficients(budget.backend, limited=limited, graphs=self._graphs, quantized=shape.quantized)
        self.coarse = measures.coarse_chunks(budget.backend, quantized=shape.quantized)
        self.fuses = memory.fuses(shape, options, coarse=self.coarse)
        # CUDA's whole command buffers keep what the fused loss lets go: 29.1 GB with it, 31.3 without (H200, a 3B model).
        saves = self.fuses and (budget.backend != "linux-cuda" or (limited and self._graphs))
        # Each rank holds the whole model, and the activations of its own rows.
        rows = -(-options.batch_size // budget.ranks)
        own = options.model_copy(update={"batch_size": rows, "fused_loss": saves})
        chunk = measures.chunk_tokens(shape.vocabulary, coarse=self.coarse)
        self.parts: MemoryParts = memory.estimate(shape, own, tokens, known, chunk)
        self.correction: Correction = calibration.correction(
            self.machine_key(), grad_checkpoint=options.grad_checkpoint
        )
        self.peak = self.correction.apply(self.parts)
        self._spread = known.error
        self.error = 0.08 if self.correction.jobs else known.error
        self.origin = known.origin

    def machine_key(self) -> str:
        """What was measured with one loss says nothing of the other, nor with CUDA graphs of without."""
        loss = " fused loss" if self.fuses else ""
        return self.budget.machine_key() + loss + ("" if self._graphs else " no graphs")

    def measured(self, peak: int) -> None:
        """A probe ran this very step: its peak is what is expected, give or take 3 %, on CUDA as much as without a probe.

        There a run of the same steps ends its command buffers elsewhere: it needed 0.83 to 1.50 times what its probe had
        (five runs on H200s, two shapes, 16 and 4 bits).
        """
        self.peak, self.error = peak, self._spread if self.budget.backend == "linux-cuda" else 0.03
        self.correction = Correction(source="a probe of this very training", jobs=1)

    @property
    def resident(self) -> int:
        return self.parts.weights + self.parts.adapter + self.parts.optimizer

    @property
    def high(self) -> int:
        """The peak if the formula errs as far as it has been seen to."""
        return self.resident + round((self.peak - self.resident) * (1 + self.error))

    def view(self) -> MemoryEstimate:
        low = self.resident + round((self.peak - self.resident) * (1 - self.error))
        return MemoryEstimate(
            peak_gb=gb(self.peak),
            likely_from_gb=gb(low),
            likely_to_gb=gb(self.high),
            parts_gb={name: gb(value) for name, value in self.parts.model_dump().items() if value},
            tokens_per_row=self.tokens,
            trainable_parameters=memory.trainable_parameters(self.shape, self.options),
            corrected_by=self.correction.source,
            coefficients_from=self.origin,
        )


class MemoryCheck(BaseModel):
    """The verdict on one training."""

    verdict: Literal["fits", "tight", "does not fit", "not now"]
    text: str
    estimate: MemoryEstimate


def judge(expected: Expectation) -> MemoryCheck:
    """Fits, fits barely, does not fit this machine, or not beside what runs now."""
    budget, peak = expected.budget, expected.peak
    have = f"{gb(budget.limit)} GB may be used here ({budget.limit_from})"
    need = f"about {gb(peak)} GB at the peak"
    if peak > budget.limit:
        return _verdict(expected, "does not fit", f"it needs {need} and {have}")
    if peak > budget.free:
        programs = budgets.largest_programs()
        others = f" (the largest programs: {', '.join(programs)})" if programs else ""
        return _verdict(
            expected,
            "not now",
            f"it needs {need}, which this machine has, but only {gb(budget.free)} GB are free now: other programs hold "
            f"the rest{others}; close some and start again",
        )
    if expected.high > budget.limit * TIGHT or peak > budget.free * TIGHT:
        return _verdict(
            expected,
            "tight",
            f"memory is tight: {need}, {have}, {gb(budget.free)} GB are free now; close other programs, watch "
            "get_metal_memory, or measure first with plan_training(probe=true)",
        )
    return _verdict(expected, "fits", f"{need}; {have}, {gb(budget.free)} GB are free now")


def _verdict(
    expected: Expectation, verdict: Literal["fits", "tight", "does not fit", "not now"], text: str
) -> MemoryCheck:
    return MemoryCheck(verdict=verdict, text=text, estimate=expected.view())


def model_shape(model: str) -> ModelShape | None:
    """The shape of a model in a folder; None when it is not there, or of a kind whose dimensions are not known."""
    path = Path(model)
    if not path.is_dir():
        return None
    try:
        return shapes.read(path)
    except ModelError:
        return None


def advice(shape: ModelShape, budget: Budget) -> str:
    """What would fit when nothing of this model does."""
    if not shape.quantized:
        smaller = shape.weight_bytes * 4.5 / (8 * shape.act_bytes)
        if smaller < 0.7 * budget.limit:
            return (
                f"converted to 4 bits (convert_model, q_bits=4) its weights take {gb(smaller)} GB: plan again with that"
            )
    most = 0.55 * budget.limit / 0.5625
    return (
        f"nothing of this model fits; use one of at most about {most / 1e9:.1f}B parameters in 4 bits, "
        f"or a machine with more memory than {gb(shape.weight_bytes * 1.5)} GB for this one"
    )


def gb(value: float) -> float:
    """GB with three significant figures or so: small models are measured in MB."""
    return round(value / 1e9, 3 if value < 1e9 else 2 if value < 1e11 else 1)
