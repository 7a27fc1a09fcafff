"""How long a training takes: from a probe, else a rough figure from floating-point operations and the chip's paper figures.

    operations = 2·P·T forward, the same again backward through the trained share of the layers for the activations, a third
                 time with grad_checkpoint; the head (hidden x vocabulary) is gone through twice     (P: active weights)

A rough figure may be wrong by a factor of three either way; only a probe is good for a decision.
"""

from __future__ import annotations

from mcp_server.models.shape import ModelShape
from mcp_server.planning import memory
from mcp_server.planning.budget import Budget
from mcp_server.platform import chip
from mcp_server.training.options import TrainingOptions

_METAL_SHARE = 0.35  # of the paper figure: an assumption, not a measurement
# Tera-operations a second. CPU: 32-bit GEMM with OpenBLAS on two cores here; 16-bit matrices are emulated, 20 times slower.
_CPU_TERA = {4: 0.06, 2: 0.0027}
_CUDA_TERA = 160.0  # from 18,100 tokens/s of Qwen2.5-3B's shape, 16 layers, grad_checkpoint, on one H200


def operations(shape: ModelShape, options: TrainingOptions, tokens: float) -> float:
    """Floating-point operations of one step of ``tokens`` tokens a row."""
    rows = options.batch_size * tokens
    block = sum(
        module.inputs * module.outputs * (min(shape.active_experts, module.count) if module.expert else 1)
        for module in shape.modules
    )
    head = shape.hidden * shape.vocabulary
    trained = memory.trained_layers(shape, options)
    forward = block * shape.layers + head
    backward = block * trained * (2 if options.fine_tune_type == "full" else 1) + head
    again = block * trained if options.grad_checkpoint else 0
    scores = 2 * shape.query * tokens * (shape.layers + (2 + options.grad_checkpoint) * trained)
    return 2 * rows * (forward + backward + again + scores)


def rough_step_seconds(shape: ModelShape, options: TrainingOptions, tokens: float, budget: Budget) -> float | None:
    """Seconds of one step, without any measurement on this machine; None where not even that can be said."""
    if budget.backend == "linux-cuda":
        tera: float | None = _CUDA_TERA
    elif budget.backend == "linux-cpu":
        tera = _CPU_TERA[shape.act_bytes]
    else:
        found = chip.parse(budget.chip)
        cores = budget.facts.get("gpu_cores")
        tera = found.tflops(cores if isinstance(cores, int) else None) * _METAL_SHARE if found else None
    return operations(shape, options, tokens) / (tera * 1e12 * budget.machines) if tera else None
