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
              + k_lora·T·(4·R - b·R) when b = 2     LoRA's weights are 32-bit: its inputs are kept so, not as they were. R: the
                inputs of the arrays that adapted layers read, since mlx compiles the casts of one array into one. Queries,
                keys and values read one, gate and up one, and in a block with one norm (cohere's) all five the same;
                uncompiled each layer casts its own: 4·Σ inputs - b·R
                or, with dropout, k_dropout·T·((4 + b)·Σ inputs - b·R): each layer's own dropped input and mask
              + k_rank·T·4·r·(number of adapted layers)
              + k_dora·T·b·Σ outputs     with DoRA
              + k_dora_weight·b·Σ inputs·outputs     with DoRA of quantized weights and no grad_checkpoint: unpacked
    wide      = max(normed, Q)                            where attention is wider than the hidden states
    ahead     = T·b·(k_ahead_mlp·I + k_ahead_hidden·wide + k_ahead_attention·heads·L + k_packed·P)
                times k_back_wide when b = 2; P: outputs of layers that make several projections at once (phi3), since the
                gradient of a slice is as wide as what it was cut from
    backward  = T·b·(max(k_back_mlp·I, k_back_mlp_held·I + k_back_attention·heads·L) + k_back_hidden·wide + k_packed·P)
                times k_back_wide when b = 2: while one block is gone through, first its MLP, then its attention
              + k_dora_ahead·4·Σ inputs·outputs     with DoRA, which adds the 32-bit product of its matrices to each weight;
                twice that for quantized weights when b = 2; nothing where 32-bit copies are kept, whose place it takes
              + (k_recompute + k_next·(1 - 1/N))·block      with grad_checkpoint: k_next_packed in place of k_next where P > 0
    loss      = k_logits·T·V·b + k_logits32·T·V·4 (when b = 2) + k_softcap·T·V·b (when logits are capped)
              + ahead, or with grad_checkpoint k_gc_loss·block (k_gc_loss_expert of the experts' part, whose routing takes
                up much of the queue) + T·b·k_packed·P, times k_back_wide when b = 2: the last block's backward pass, or its
                second forward pass, is queued while the logits are there
                or, with the fused loss in chunks of C tokens (``training/measures.py``), n of them in flight, F = min(n·C, T):
                F·V·b·(k_fused + k_softcap when capped) + k_fused32·F·V·4 (when b = 2) + k_fused_hidden·T·H·b
                + ahead (or what takes its place) where all is one chunk, which is no longer than what is queued ahead
    kept      = N·block, or with grad_checkpoint only each block's input: N·k_boundary·T·H·b
              + k_held·(all layers)·T·H·b     with grad_checkpoint, 0 but on CUDA, whose whole command buffers hold them
              + N·Σ inputs·outputs·(4 when b = 2, and b when quantized)     with DoRA and grad_checkpoint: mlx compiles the
                two forward passes' casts and unpackings of a weight into one, which stays from the first to the second
    update    = trained bytes·(k_update + k_update_ahead·min(1, 15 / trained tensors)): the gradients and what the guard keeps
                of every tensor, and the new values of those whose update is queued (measured: 1, 3 and 7 layers of 12 tensors
                and 9.75 MB took 48.8, 96.0 and 173.1 MB)
    peak      = resident + max(kept + loss, kept + backward, update)
                of which kept, loss and backward times k_scale (1 on the CPU)

**Ahead**: MLX's CPU back end allocates an operation's output when it queues it, and frees its inputs when it has run. It
queues up to a hundred steps before it waits: ten tasks (``MAX_ACTIVE_TASKS`` in ``mlx/transforms.cpp``) of ten
(``DISPATCHES_PER_TASK`` in ``mlx/backend/cpu/encoder.h``), with two steps or more an operation. So the arrays of some fifty
operations around the peak are there at once, dead or not: at the loss those of the last block's backward pass (mostly its
MLP's), however few blocks are trained, and two or three chunks of the fused loss. With ``mx.set_memory_limit(1)``, which makes
it wait for each, 52 of the grid's configurations need 4 to 38 % less (median 19 %).

**Order**: with grad_checkpoint a block's second forward pass waits for its first (``checkpoint`` in ``mlx/transforms.cpp``),
not for the gradients it is made for. When it runs is left to the order in which MLX goes through a step, from the end and
breadth first, at most 20 arrays wide (``eval_impl`` there, ``MLX_BFS_MAX_WIDTH``). So some of the next block's second pass is
there too, and more where a block has few branches: phi3's with 1, 2, 5 and 9 layers took 7.2, 9.7, 12.3 and 12.6 MB above the
resident part, of 2.6 MB a block; 6 took 12.4, and 6.8, 8.9 and 19.4 with a width of 1, 10 and 100. And with certain numbers of
layers, which can't be told from a shape, the loss is gone through in another order that needs about two arrays of T·V less,
and the estimate is too high (qwen3, 2 x 64 tokens, above the resident part: 8 layers 48 MB; 2, 4, 6, 7, 9, 10, 12, 16 and 17
layers 76 to 81, and so do 8 with a width of 18, 22, 30 and 100; half the vocabulary halves the difference. The same holds of
qwen2 in full, 2 x 256: 5 layers 93 MB, 6 layers 66, with a width of 18 and 30 93).

**DoRA**, measured against LoRA of the same step (96 to 768 tokens; llama, qwen2, cohere): at the loss nothing of the adapted
weights is there; in the backward pass 0.2 to 0.5 of a block's 32-bit size, 1 to 1.2 for weights of 4 bits with 16-bit
activations. With grad_checkpoint 1, 2 and 4 layers of 3.2 MB took 2.8, 8.1 and 12.5 MB more in 16 bits, 1 and 4 layers 5.7 and
15.4 MB more in 4 bits with 32-bit activations, 6.8 and 19.4 MB more in 4 bits with 16-bit ones.

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
_SIDE_BY_SIDE = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")  # layers whose input is their neighbours' too
_PACKED = ("qkv_proj", "gate_up_proj")  # several projections in one layer
_UPDATES_QUEUED = 15  # tensors: see "update" above
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


def _trained_tensors(shape: ModelShape, options: TrainingOptions) -> int:
    """How many tensors are trained, each with an update of its own."""
    pair = 3 if options.fine_tune_type == "dora" else 2
    in_block = shape.layer_tensors if options.fine_tune_type == "full" else pair * len(adapted(shape, options))
    return max(1, trained_layers(shape, options) * in_block)


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
        kept = (count * k.boundary + shape.layers * k.held) * rows * shape.hidden * b
        kept += count * _merged_copies(shape, options, k)
        experts = _experts(shape, rows, k)
        beside = k.gc_loss * (block - experts) + k.gc_loss_expert * experts
        beside += _passing(shape, options, tokens, k, mlp=0, hidden=0, attention=0)
        following = k.next_packed if _packed(shape) else k.next
        backward += (k.recompute + following * (1 - 1 / count)) * block
    else:
        kept = count * block
        beside = _ahead(shape, options, tokens, k)
    # The fused loss is done before a block is gone through; but a single chunk of it is no longer than what is queued ahead.
    if not fuses(shape, options) or rows <= (chunk or measures.chunk_tokens(shape.vocabulary)):
        loss += beside
    # A back end that was not measured as a whole is the CPU's, times one measured factor.
    scale = k.scale_gc if options.grad_checkpoint else k.scale
    kept, loss, backward = kept * scale, loss * scale, backward * scale
    update = trained * (k.update + k.update_ahead * min(1.0, _UPDATES_QUEUED / _trained_tensors(shape, options)))
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


def fuses(shape: ModelShape, options: TrainingOptions, *, coarse: bool = False) -> bool:
    """Whether the training will use the fused loss, as far as can be known before the model is loaded.

    ``coarse`` as ``measures.coarse_chunks`` says.
    """
    keys = options.lora_parameters.keys or []
    trains_head = options.fine_tune_type != "full" and any("lm_head" in key or "embed" in key for key in keys)
    return not trains_head and measures.fused_loss(options, shape.vocabulary, coarse=coarse)[0]


def _backward(shape: ModelShape, options: TrainingOptions, tokens: int, k: Coefficients) -> float:
    """What the backward pass of one block holds beside the saved activations, bytes."""
    b = shape.act_bytes
    passing = max(
        _passing(shape, options, tokens, k, mlp=k.back_mlp, hidden=k.back_hidden, attention=0),
        _passing(shape, options, tokens, k, mlp=k.back_mlp_held, hidden=k.back_hidden, attention=k.back_attention),
    )
    if options.fine_tune_type == "dora" and not (b == 2 and options.grad_checkpoint and k.merges):
        width = 8 if b == 2 and shape.quantized else 4
        passing += k.dora_ahead * width * sum(module.parameters for module in adapted(shape, options))
    return passing


def _ahead(shape: ModelShape, options: TrainingOptions, tokens: int, k: Coefficients) -> float:
    """What is held beside the logits of a block's passes that have ended or are queued, bytes."""
    return _passing(shape, options, tokens, k, mlp=k.ahead_mlp, hidden=k.ahead_hidden, attention=k.ahead_attention)


def _normed(shape: ModelShape) -> float:
    """Numbers a token that one of a block's norms sees, of the two that a block usually has."""
    return shape.norms / 2 * shape.hidden + (shape.query + shape.key) / 2 * shape.head_norms


def _packed(shape: ModelShape) -> int:
    """Outputs of the layers that compute several projections at once (phi3's), whose parts are cut out and put together."""
    return sum(module.outputs for module in shape.modules if module.name.endswith(_PACKED))


def _merged_copies(shape: ModelShape, options: TrainingOptions, k: Coefficients) -> float:
    """Copies of one block's weights that DoRA makes in the first forward pass and compile keeps for the second, bytes."""
    if options.fine_tune_type != "dora" or not k.merges:
        return 0
    b = shape.act_bytes
    width = (b if shape.quantized else 0) + (4 if b == 2 else 0)
    return width * sum(module.parameters for module in adapted(shape, options))


def _inputs_read(shape: ModelShape, modules: list[Module]) -> int:
    """Numbers a token that ``modules`` read: layers side by side read one array, in a block with one norm (cohere's) all do."""
    widths: dict[str, int] = {}
    for module in modules:
        parent, _, name = module.name.removesuffix(".weight").rpartition(".")
        place = module.name if name not in _SIDE_BY_SIDE else "block" if shape.norms == 1 else parent
        widths[place] = module.inputs * (shape.active_experts if module.expert else 1)
    return sum(widths.values())


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
    """So many arrays as wide as the MLP, the hidden states (the queries, if wider) and the scores of one block, bytes.

    With packed projections beside them.
    """
    width = shape.act_bytes * (k.back_wide if shape.act_bytes == 2 else 1)
    widest = shape.mlp + shape.active_experts * shape.expert_mlp
    values = (
        k.packed * _packed(shape)
        + mlp * widest
        + hidden * max(_normed(shape), shape.query)
        + attention * shape.heads * tokens
    )
    return width * options.batch_size * tokens * values


def _experts(shape: ModelShape, rows: int, k: Coefficients) -> float:
    """Saved activations of the experts of one trained block, bytes."""
    b = shape.act_bytes
    saved = rows * b * shape.active_experts * (k.expert_hidden * shape.hidden + k.expert_mlp * shape.expert_mlp)
    return saved * k.wide if b == 2 else saved


def _block(shape: ModelShape, options: TrainingOptions, tokens: int, k: Coefficients) -> float:
    """Saved activations of one trained block, bytes."""
    b, batch = shape.act_bytes, options.batch_size
    rows = batch * tokens
    saved = rows * b * (k.hidden * shape.hidden + k.query * shape.query + k.key * shape.key + k.mlp * shape.mlp)
    saved += rows * b * 2 * k.norm * (_normed(shape) - shape.hidden)
    saved += (k.attention + k.score_cap * shape.score_cap) * batch * shape.heads * tokens * tokens * b
    if b == 2:
        saved *= k.wide
    saved += _experts(shape, rows, k)
    full = options.fine_tune_type == "full"
    modules = shape.modules if full else adapted(shape, options)
    # An expert's layer is given the tokens sent to it: active_experts copies of each.
    inputs = sum(m.inputs * (shape.active_experts if m.expert else 1) for m in modules)
    outputs = sum(m.outputs * (shape.active_experts if m.expert else 1) for m in modules)
    reached = sum(shape.active_experts if m.expert else 1 for m in modules)
    if full:
        return saved + k.full * rows * b * inputs
    read = _inputs_read(shape, modules)
    if options.lora_parameters.dropout:
        saved += k.dropout * rows * ((4 + b) * inputs - b * read)
    elif b == 2:
        saved += k.lora * rows * (4 * (read if k.merges else inputs) - b * read)
    saved += k.rank * rows * 4 * options.lora_parameters.rank * reached
    if options.fine_tune_type == "dora":
        saved += k.dora * rows * b * outputs
        if shape.quantized and not options.grad_checkpoint:
            saved += k.dora_weight * b * sum(m.parameters for m in modules)
    return saved
