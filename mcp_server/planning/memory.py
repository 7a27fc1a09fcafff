"""Peak memory of a training step, from the model's shape and the options alone. Plain arithmetic, no mlx.

The formula, in bytes, with B rows of L tokens, T = B·L, H = hidden_size, Q and K = (key-value) heads · head_dim,
I = intermediate_size, V = vocabulary, b = bytes of an activation, N = trained layers (below the first of them nothing is
kept for the backward pass), r = rank. Every k is a coefficient of ``coefficients.py``:

    resident  = weights + adapter + optimizer state (Adam: two copies of what is trained)
    normed    = norms/2·H + (Q + K)/2 with norms of queries and keys    what one of a block's norms sees: H in most models
    block     = T·b·(k_hidden·H + k_query·Q + k_key·K + k_mlp·I)                  a dense block's saved activations
              + T·b·2·k_norm·(normed - H)            every norm beyond the usual two keeps its input (gemma2, gemma3, qwen3)
              + T·b·A·(k_expert_hidden·H + k_expert_mlp·I_expert)                 A active experts a token
              + k_attention·B·heads·L²·b         scores: mlx's fused attention has no backward pass, so they are kept
                (and k_score_cap more where they are capped by a tanh)
              all of this times k_wide when b = 2 (some of it is kept in 32 bits)
              + k_full·T·b·Σ inputs of the linear layers      with full fine-tuning, whose weights' gradients need them
              + k_lora·T·(4 if b = 2 else 0)·Σ inputs       LoRA's weights are 32-bit, and so are its inputs then
              + k_rank·T·4·r·(number of adapted layers)
              + k_dropout·T·Σ inputs·(4 if b = 2 else b)    with dropout
              + k_dora·T·b·Σ outputs + k_dora_weight·b·Σ inputs·outputs (quantized)     with DoRA
    ahead     = T·b·(k_ahead_mlp·I + k_ahead_hidden·normed + k_ahead_attention·heads·L + k_packed·P)
                times k_back_wide when b = 2; P: outputs of layers that make several projections at once (phi3), since the
                gradient of a slice is as wide as what it was cut from
              + k_dora_ahead·4·Σ inputs·outputs       with DoRA, which adds the 32-bit product of its matrices to each weight
    backward  = T·b·(k_back_attention·heads·L + k_back_mlp·I + k_back_hidden·normed + k_packed·P)
                times k_back_wide when b = 2: while one block is gone through
              + k_dora_ahead·4·Σ inputs·outputs       with DoRA
              + k_recompute·block                                                 with grad_checkpoint
    loss      = k_logits·T·V·b + k_logits32·T·V·4 (when b = 2) + k_softcap·T·V·b (when logits are capped)
              + ahead, or with grad_checkpoint k_gc_loss·block: the last block's backward pass, or its second forward pass,
                is queued while the logits are there
                or, with the fused loss in chunks of C tokens (``training/measures.py``), n of them in flight, F = min(n·C, T):
                F·V·b·(k_fused + k_softcap when capped) + k_fused32·F·V·4 (when b = 2) + k_fused_hidden·T·H·b
                + ahead (or k_gc_loss·block) where all is one chunk, which is no longer than what is queued ahead
    kept      = N·block, or with grad_checkpoint only each block's input: N·k_boundary·T·H·b
              + N·4·Σ inputs·outputs   with DoRA, b = 2 and grad_checkpoint: a 32-bit copy of each adapted weight (measured:
                4 layers of 3.9 MB each took 15.2 MB more than without, and none in 32 bits; MLX waiting for each changes nothing)
    peak      = resident + max(kept + loss, kept + backward, k_update·trained bytes)
                of which kept, loss and backward times k_scale (1 on the CPU)

**Ahead**: MLX's CPU back end allocates an operation's output when it queues it, and frees its inputs when it has run. It
queues up to a hundred steps before it waits: ten tasks (``MAX_ACTIVE_TASKS`` in ``mlx/transforms.cpp``) of ten
(``DISPATCHES_PER_TASK`` in ``mlx/backend/cpu/encoder.h``), with two steps or more an operation. So the arrays of some fifty
operations around the peak are there at once, dead or not: at the loss those of the last block's backward pass (mostly its
MLP's), however few blocks are trained, and two or three chunks of the fused loss. With ``mx.set_memory_limit(1)``, which makes
it wait for each, 52 of the grid's configurations need 4 to 38 % less (median 19 %).

Sources: what mlx_lm 0.32.2's ``tuner/trainer.py``, ``tuner/lora.py``, ``tuner/dora.py`` and ``models/*.py`` keep for the
backward pass (read), and the grid of ``benchmarks/memory_grid.py`` (measured).
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from mcp_server.models.shape import ModelShape, Module
from mcp_server.planning.coefficients import Coefficients
from mcp_server.training import measures
from mcp_server.training.options import TrainingOptions

# Copies of the trained weights that an optimizer keeps (mlx.optimizers 0.32: read). Adafactor keeps one row and one column.
_STATES = {"adam": 2.0, "adamw": 2.0, "muon": 1.0, "sgd": 0.0, "adafactor": 0.05}
_PACKED = ("qkv_proj", "gate_up_proj")  # several projections in one layer
PAD = 32  # mlx-lm pads a batch to a multiple of this, plus one token


class MemoryParts(BaseModel):
    """Where the memory goes, bytes. At the peak all of them are there at once."""

    weights: int
    adapter: int = Field(description="Trained weights beside the model's own: LoRA's matrices")
    optimizer: int
    activations: int = Field(description="What the backward pass needs of the trained layers")
    loss: int = Field(description="The logits (tokens x vocabulary) and their copies")
    update: int = Field(default=0, description="Gradients and new values, where these are what makes the peak")

    @property
    def peak(self) -> int:
        return self.weights + self.adapter + self.optimizer + self.activations + self.loss + self.update


def padded(longest: int, max_seq_length: int) -> int:
    """Tokens of a row that the model sees when the longest row of its batch has ``longest`` tokens, as mlx-lm pads."""
    return min(PAD * -(-longest // PAD), max_seq_length - 1)


def trained_layers(shape: ModelShape, options: TrainingOptions) -> int:
    return shape.layers if options.num_layers == -1 else min(options.num_layers, shape.layers)


def adapted(shape: ModelShape, options: TrainingOptions) -> list[Module]:
    """The linear layers of a block that LoRA or DoRA adapts."""
    keys = options.lora_parameters.keys
    if options.fine_tune_type == "full":
        return []
    if keys is None:
        return shape.modules
    return [module for module in shape.modules if module.name.removesuffix(".weight") in keys]


def trainable_parameters(shape: ModelShape, options: TrainingOptions) -> int:
    """How many numbers are trained."""
    layers = trained_layers(shape, options)
    if options.fine_tune_type == "full":
        # The matrices of a quantized layer stay frozen in mlx-lm: norms and the like are all that is left.
        dense = sum(module.parameters for module in shape.modules if not module.quantized)
        return layers * (dense + 2 * shape.hidden)
    rank = options.lora_parameters.rank
    pairs = sum(
        module.count * (rank * (module.inputs + module.outputs))
        + (module.outputs if options.fine_tune_type == "dora" else 0)
        for module in adapted(shape, options)
    )
    return layers * pairs


def adapter_bytes(shape: ModelShape, options: TrainingOptions) -> int:
    """Size of what is trained: in memory, in a checkpoint (which adds the optimizer's state) and as an adapter on disk."""
    width = shape.act_bytes if options.fine_tune_type == "full" else 4
    return trainable_parameters(shape, options) * width


def optimizer_bytes(shape: ModelShape, options: TrainingOptions) -> int:
    return round(_STATES[options.optimizer] * adapter_bytes(shape, options))


def estimate(
    shape: ModelShape, options: TrainingOptions, tokens: int, k: Coefficients, chunk: int | None = None
) -> MemoryParts:
    """The peak of a step whose rows have ``tokens`` tokens each, by the formula above.

    ``chunk``: tokens in a chunk of the fused loss, where it is other than training would choose.
    """
    b, rows = shape.act_bytes, options.batch_size * tokens
    count = trained_layers(shape, options)
    trained = adapter_bytes(shape, options)
    block = _block(shape, options, tokens, k)
    backward = _backward(shape, options, tokens, k)
    loss = _loss(shape, options, rows, k, chunk)
    if options.grad_checkpoint:
        kept = count * k.boundary * rows * shape.hidden * b
        if options.fine_tune_type == "dora" and b == 2:  # its 32-bit matrices make 32-bit copies of 16-bit weights
            kept += count * 4 * sum(module.parameters for module in adapted(shape, options))
        beside = k.gc_loss * block
        backward += k.recompute * block
    else:
        kept = count * block
        beside = _ahead(shape, options, tokens, k)
    # The fused loss is done before a block is gone through; but a single chunk of it is no longer than what is queued ahead.
    if not fuses(shape, options) or rows <= (chunk or measures.chunk_tokens(shape.vocabulary)):
        loss += beside
    # A back end that was not measured as a whole is the CPU's, times one measured factor.
    scale = k.scale_gc if options.grad_checkpoint else k.scale
    kept, loss, backward = kept * scale, loss * scale, backward * scale
    update = k.update * trained
    above = max(kept + loss, kept + backward, update)
    return MemoryParts(
        weights=shape.weight_bytes,
        adapter=0 if options.fine_tune_type == "full" else trained,
        optimizer=optimizer_bytes(shape, options),
        activations=0 if above == update else round(kept if above == kept + loss else above),
        loss=round(loss) if above == kept + loss else 0,
        update=round(update) if above == update else 0,
    )


def _loss(shape: ModelShape, options: TrainingOptions, rows: int, k: Coefficients, chunk: int | None) -> float:
    """The logits and their copies, of a batch of ``rows`` tokens, bytes."""
    b = shape.act_bytes
    if not fuses(shape, options):
        logits = rows * shape.vocabulary
        return logits * b * (k.logits + k.softcap * shape.softcap) + (logits * 4 * k.logits32 if b == 2 else 0)
    size = min(chunk or measures.chunk_tokens(shape.vocabulary), rows)
    held_rows = min(rows, size * _chunks_in_flight(-(-rows // size), checkpointed=options.grad_checkpoint))
    logits = held_rows * shape.vocabulary
    held = logits * b * (k.fused + k.softcap * shape.softcap) + (logits * 4 * k.fused32 if b == 2 else 0)
    return held + k.fused_hidden * rows * shape.hidden * b


def _chunks_in_flight(chunks: int, *, checkpointed: bool) -> int:
    """How many chunks of the fused loss are allocated at once ("ahead" above).

    Measured: one batch of 512 tokens in 1 to 16 chunks. The peak grows by a chunk's arrays up to the third chunk; with
    grad_checkpoint the third is there from five chunks on.
    """
    return min(chunks, 2 if checkpointed and chunks < 5 else 3)


def fuses(shape: ModelShape, options: TrainingOptions) -> bool:
    """Whether the training will use the fused loss, as far as can be known before the model is loaded."""
    keys = options.lora_parameters.keys or []
    trains_head = options.fine_tune_type != "full" and any("lm_head" in key or "embed" in key for key in keys)
    return not trains_head and measures.fused_loss(options, shape.vocabulary)[0]


def _backward(shape: ModelShape, options: TrainingOptions, tokens: int, k: Coefficients) -> float:
    """What the backward pass of one block holds beside the saved activations, bytes."""
    return _passing(shape, options, tokens, k, mlp=k.back_mlp, hidden=k.back_hidden, attention=k.back_attention)


def _ahead(shape: ModelShape, options: TrainingOptions, tokens: int, k: Coefficients) -> float:
    """What is held beside the logits of a block's passes that have ended or are queued, bytes."""
    return _passing(shape, options, tokens, k, mlp=k.ahead_mlp, hidden=k.ahead_hidden, attention=k.ahead_attention)


def _normed(shape: ModelShape) -> float:
    """Numbers a token that one of a block's norms sees, of the two that a block usually has."""
    return shape.norms / 2 * shape.hidden + (shape.query + shape.key) / 2 * shape.head_norms


def _packed(shape: ModelShape) -> int:
    """Outputs of the layers that compute several projections at once (phi3's), whose parts are cut out and put together."""
    return sum(module.outputs for module in shape.modules if module.name.endswith(_PACKED))


def _passing(
    shape: ModelShape,
    options: TrainingOptions,
    tokens: int,
    k: Coefficients,
    *,
    mlp: float,
    hidden: float,
    attention: float,
) -> float:
    """So many arrays as wide as the MLP, the hidden states and the attention scores of one block, bytes.

    With packed projections and, with DoRA, its adapted weights (32 bits) beside them.
    """
    width = shape.act_bytes * (k.back_wide if shape.act_bytes == 2 else 1)
    widest = shape.mlp + shape.active_experts * shape.expert_mlp
    values = k.packed * _packed(shape) + mlp * widest + hidden * _normed(shape) + attention * shape.heads * tokens
    passing = width * options.batch_size * tokens * values
    if options.fine_tune_type == "dora":
        passing += k.dora_ahead * 4 * sum(module.parameters for module in adapted(shape, options))
    return passing


def _block(shape: ModelShape, options: TrainingOptions, tokens: int, k: Coefficients) -> float:
    """Saved activations of one trained block, bytes."""
    b, batch = shape.act_bytes, options.batch_size
    rows = batch * tokens
    saved = rows * b * (k.hidden * shape.hidden + k.query * shape.query + k.key * shape.key + k.mlp * shape.mlp)
    saved += rows * b * 2 * k.norm * (_normed(shape) - shape.hidden)
    saved += rows * b * shape.active_experts * (k.expert_hidden * shape.hidden + k.expert_mlp * shape.expert_mlp)
    saved += (k.attention + k.score_cap * shape.score_cap) * batch * shape.heads * tokens * tokens * b
    if b == 2:
        saved *= k.wide
    full = options.fine_tune_type == "full"
    modules = shape.modules if full else adapted(shape, options)
    # An expert's layer is given the tokens sent to it: active_experts copies of each.
    inputs = sum(m.inputs * (shape.active_experts if m.expert else 1) for m in modules)
    outputs = sum(m.outputs * (shape.active_experts if m.expert else 1) for m in modules)
    reached = sum(shape.active_experts if m.expert else 1 for m in modules)
    if full:
        return saved + k.full * rows * b * inputs
    if b == 2:
        saved += k.lora * rows * 4 * inputs
    saved += k.rank * rows * 4 * options.lora_parameters.rank * reached
    if options.lora_parameters.dropout:
        saved += k.dropout * rows * 4 * inputs
    if options.fine_tune_type == "dora":
        saved += k.dora * rows * b * outputs
        if shape.quantized:
            saved += k.dora_weight * b * sum(m.parameters for m in modules)
    return saved
