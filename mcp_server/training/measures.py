"""What makes training faster or smaller than stock mlx-lm here, which of it is on, and why. Plain arithmetic, no mlx.

The planner, the process that starts the worker and the worker itself ask here, so that all three mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_server.errors import UserError
from mcp_server.models import folder
from mcp_server.platform import facts as machine
from mcp_server.training.options import TrainingOptions

# Logits in a chunk of the fused loss: 192 tokens of Qwen2.5's 151,936 words, 1,024 of 32,000. Fewer make the head's matrix
# products slow; more make the chunk itself the peak: about ten arrays of its logits live at once on the CPU (measured).
_CHUNK_LOGITS = 2**25
# A quantized head on CUDA is slow at that. 4 x 2,048 tokens with grad_checkpoint on an H200: a 4-bit 0.5B model had 0.70 times
# stock's speed in chunks of 192 tokens and 1.08 times in chunks of 1,024, at the same peak; a 3B one 0.94 and 1.05. Without
# grad_checkpoint it has 0.94 (3B) and 0.77 times stock's speed for 7 % less memory.
_COARSE_CHUNK_LOGITS = 1_024 * 152_064
_LEAST_CHUNK, _MULTIPLE = 64, 64
_PAYS_FROM = 3  # chunks: stock's loss holds about five arrays of all its logits

# MLX's CUDA back end keeps the arrays of a whole command buffer until it has run: with the fused loss 100 MB took a 3B
# model's peak from 29.1 to 12.6 GB at 1.06 times the speed (H200, MLX 0.32.4, batch 4 x 2,048, grad_checkpoint). Without
# grad_checkpoint CUDA graphs are off, and with them command buffers have no size.
_BUFFER_LIMITS = {"MLX_MAX_MB_PER_BUFFER": "100"}
_BUFFER_VARIABLES = ("MLX_MAX_MB_PER_BUFFER", "MLX_MAX_OPS_PER_BUFFER")

# The CUDA back end turns each command buffer into a CUDA graph and changes a kept one where it can. At many lengths it can't
# and builds it anew at every step: rows of 193 tokens took 0.17 s a step with graphs and 0.06 s without, rows of 225 the same
# 0.06 s either way (3B model, batch 4, one H200, MLX 0.32.4). Without graphs nothing is given back before the step ends.
# Quantized weights keep them: without, 12 steps of a 4-bit 0.5B model were not done in 80 s, and stock's were in a few.
_NO_GRAPHS = {"MLX_USE_CUDA_GRAPHS": "0"}


def coarse_chunks(backend: str | None, *, quantized: bool) -> bool:
    """Whether the fused loss is slow in small chunks: with quantized weights on CUDA."""
    return quantized and backend == "linux-cuda"


def chunk_tokens(vocabulary: int, *, coarse: bool = False) -> int:
    """Tokens whose logits the fused loss holds at a time; ``coarse`` as ``coarse_chunks`` says."""
    logits = _COARSE_CHUNK_LOGITS if coarse else _CHUNK_LOGITS
    return max(_LEAST_CHUNK, logits // vocabulary // _MULTIPLE * _MULTIPLE)


def fused_loss(options: TrainingOptions, vocabulary: int, *, coarse: bool = False) -> tuple[bool, str]:
    """Whether the fused loss is wanted, and why. By default where the largest batch has more logits than a chunk.

    ``coarse`` as ``coarse_chunks`` says.
    """
    if options.fused_loss is not None:
        return options.fused_loss, "asked for" if options.fused_loss else "switched off"
    if options.stock:
        return False, "stock"
    if coarse and not options.grad_checkpoint:
        return False, "without grad_checkpoint a quantized head loses more speed on CUDA than it saves memory"
    tokens, chunk = options.batch_size * (options.max_seq_length - 1), chunk_tokens(vocabulary, coarse=coarse)
    if tokens < _PAYS_FROM * chunk:
        return False, f"a batch has at most {tokens:,} tokens and a chunk {chunk:,}: too little to gain"
    return True, f"the logits of {chunk:,} tokens are held at a time, not of {tokens:,}"


def buffer_limits(options: TrainingOptions, backend: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables for the worker's process that keep MLX's command buffers small; MLX reads them when it starts."""
    wanted = backend == "linux-cuda" and options.grad_checkpoint and not options.stock
    if options.command_buffer_limits is not None:
        wanted = options.command_buffer_limits
    if not wanted or any(name in environment for name in _BUFFER_VARIABLES):
        return {}
    return dict(_BUFFER_LIMITS)


def describe_buffer_limits(options: TrainingOptions, backend: str | None, environment: Mapping[str, str]) -> str:
    """What the worker's own process has, "on" or "off", and why. ``environment``: that process's."""
    found = {name: environment[name] for name in _BUFFER_VARIABLES if name in environment}
    if found:
        origin = "" if found == buffer_limits(options, backend, {}) else ", the user's own"
        return "on: " + ", ".join(f"{name}={value}" for name, value in found.items()) + origin
    if options.command_buffer_limits is False:
        return "off: switched off"
    if options.stock:
        return "off: stock"
    return (
        "off: pays with grad_checkpoint alone" if backend == "linux-cuda" else f"off: not measured to pay on {backend}"
    )


def no_graphs(
    options: TrainingOptions, backend: str | None, environment: Mapping[str, str], *, quantized: bool
) -> dict[str, str]:
    """The variable that keeps MLX's CUDA back end from building graphs; with grad_checkpoint memory is what is wanted.

    ``quantized``: whether the base's weights are.
    """
    wanted = backend == "linux-cuda" and not (options.grad_checkpoint or options.stock or quantized)
    if options.cuda_graphs is not None:
        wanted = backend == "linux-cuda" and not options.cuda_graphs
    return dict(_NO_GRAPHS) if wanted and _NO_GRAPHS.keys().isdisjoint(environment) else {}


def describe_graphs(options: TrainingOptions, environment: Mapping[str, str], *, quantized: bool) -> str:
    """What the worker's own process has on CUDA, "on" or "off", and why. ``environment``: that process's."""
    found = next((environment[name] for name in _NO_GRAPHS if name in environment), None)
    if found is None:
        if options.cuda_graphs or options.stock:
            return f"on: {'asked for' if options.cuda_graphs else 'stock'}"
        if quantized:
            return "on: not measured to pay with quantized weights"
        return f"on: {'less memory' if options.grad_checkpoint else 'at the start it was not known what the model is'}"
    state = "off" if found == "0" else "on"
    ours = found == "0" and bool(no_graphs(options, "linux-cuda", {}, quantized=quantized))
    return f"{state}: {'they are built anew for most lengths of a batch' if ours else 'by the user'}"


def process_variables(
    options: TrainingOptions, backend: str | None, environment: Mapping[str, str], *, quantized: bool
) -> dict[str, str]:
    """All that a worker's process is started with; MLX reads them once."""
    graphs = no_graphs(options, backend, environment, quantized=quantized)
    return buffer_limits(options, backend, environment) | graphs


def quantized_base(model: str) -> bool:
    """Whether the base is quantized, as far as its config.json can be read; a model that can't be will be refused later.

    One that the job has yet to download counts as quantized: then what is not known to pay is left as it is.
    """
    try:
        path = folder.locate(model)
        return path is None or bool(folder.read_config(path).get("quantization"))
    except UserError:
        return False


def as_started(options: TrainingOptions, *, saving: bool) -> TrainingOptions:
    """The options by which a worker's variables are chosen; ``saving`` as in ``worker_environment``."""
    return options.model_copy(update={"grad_checkpoint": True}) if saving else options


def worker_environment(
    kind: str, options: Mapping[str, Any], environment: Mapping[str, str], *, saving: bool = False
) -> dict[str, str]:
    """Variables to start the worker of a job with. ``options``: of its spec; a probe runs as its training will.

    ``saving``: memory was short before, so what gives speed for memory is left, as with grad_checkpoint.
    """
    asked = options if kind == "train" else options.get("training") if kind == "probe" else None
    if asked is None:
        return {}
    backend, _ = machine.backend(machine.collect())
    training = as_started(TrainingOptions.model_validate(asked), saving=saving)
    return process_variables(training, backend, environment, quantized=quantized_base(training.model))
