"""From model, data, machine and goal to the complete arguments of a training, with a reason for each."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mcp_server import settings
from mcp_server.datasets import hub
from mcp_server.datasets.features import FeatureNames
from mcp_server.datasets.hub import HubData
from mcp_server.datasets.watch import Watch
from mcp_server.errors import ModelError
from mcp_server.models import folder as models
from mcp_server.models import shape as shapes
from mcp_server.planning import budget as budgets
from mcp_server.planning import memory, recipe, rows, time
from mcp_server.planning.check import Expectation, MemoryEstimate, advice, gb, judge
from mcp_server.planning.ladder import Smaller, fits, smallest_harm
from mcp_server.planning.probe import ProbeResult
from mcp_server.planning.recipe import Goal, Recipe
from mcp_server.planning.rows import RowLengths
from mcp_server.platform.check import require_platform
from mcp_server.training import measures
from mcp_server.training.options import TrainingOptions
from mcp_server.training.ranks import world_of


class PlanRequest(HubData, FeatureNames):
    """What is to be planned."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Model folder, or a Hub id that is on this machine", min_length=1)
    data: str = Field(description="Folder with train.jsonl and valid.jsonl, or a Hub data set", min_length=1)
    goal: Goal = Field(default="good", description="fast: a first try; good: three passes; best: more layers and steps")
    fine_tune_type: Literal["lora", "dora", "full"] = Field(default="lora", description="What is trained")
    max_seq_length: int | None = Field(
        default=None, ge=8, description="Tokens per row at most; default the longest row, up to 4,097"
    )
    hosts: list[str] | None = Field(default=None, description="As in start_lora_training: one rank on each")
    hostfile: str | None = Field(default=None, description="As in start_lora_training")
    num_processes: int = Field(default=1, ge=1, le=64, description="Ranks on this machine")
    backend: Literal["any", "ring", "jaccl", "nccl"] = Field(default="any", description="As in start_lora_training")


class Alternative(BaseModel):
    """Another way that fits, and what it costs or gives."""

    change: dict[str, Any]
    peak_gb: float
    what: str


class Plan(BaseModel):
    """A training that can be started as it is."""

    summary: str
    fits: bool
    arguments: dict[str, Any] | None = Field(
        default=None, description="For start_lora_training, complete; null when nothing fits"
    )
    reasons: dict[str, str] = Field(description="One for each argument that was chosen")
    cut_to_fit: list[str] = Field(default_factory=list, description="What was given up so that it fits, in order")
    memory: MemoryEstimate
    memory_verdict: str
    seconds_per_step: float | None = None
    total_seconds: float | None = None
    time_from: str = Field(description="A probe (within 15 %), or a rough reckoning (within a factor of three)")
    disk_gb: float = Field(description="Adapter, checkpoints kept, and logs")
    checkpoint_mb: float
    data: RowLengths
    measures: dict[str, str] = Field(
        default_factory=dict, description="What each measure beyond stock mlx-lm buys on this machine"
    )
    alternatives: list[Alternative] = Field(default_factory=list)
    what_would_fit: str | None = None
    warnings: list[str] = Field(default_factory=list)
    probe: ProbeResult | None = None
    probe_job: str | None = None
    next_step: str


class Draft:
    """A plan before its probe."""

    def __init__(
        self, request: PlanRequest, written: Recipe, lengths: RowLengths, wanted: Expectation, smaller: Smaller | None
    ) -> None:
        self.request, self.recipe, self.lengths, self.wanted, self.smaller = request, written, lengths, wanted, smaller
        chosen = smaller.expected if smaller is not None else wanted
        # Only now is the number of steps known, on which the schedule depends.
        final = chosen.options.model_copy(update=recipe.schedule(chosen.options, lengths.rows, written.reasons))
        self.expected = Expectation(chosen.shape, final, chosen.tokens, chosen.budget)

    def after(self, probe: ProbeResult) -> Draft:
        """The same plan with what its probe taught: the probe's own peak is the expectation now."""
        self.expected.measured(probe.peak_bytes)
        return self


def draft(request: PlanRequest) -> Draft:
    """Read model, data and machine, and choose. Raises a UserError for what can't be read."""
    backend = require_platform()
    path = models.locate(request.model)
    if path is None:
        raise ModelError(
            f"model {request.model!r} is not on this machine, and a plan needs its config.json and file headers; "
            f"download it first (convert_model(model={request.model!r}), or `hf download {request.model}`)"
        )
    config = models.check(path)
    shape = shapes.read(path)
    on_hub = hub.is_hub_data(request.data, request.hf_dataset)
    data = request.data if on_hub else str(settings.resolve(request.data))
    # Of hf_dataset each entry has feature names of its own, and the rows here have mlx-lm's.
    names = {} if request.hf_dataset is not None else request.features
    with hub.local(request.data, request.hf_dataset, Watch()) as source:
        lengths = rows.read(source.path, path, names)
    if request.fine_tune_type == "full" and shape.quantized:
        raise ModelError(
            f"{request.model} is quantized, and quantized weights can't be trained; use fine_tune_type='lora' (QLoRA) "
            "or the unquantized model"
        )
    written = recipe.write(
        model=request.model,
        data=request.data,
        shape=shape,
        lengths=lengths,
        goal=request.goal,
        fine_tune_type=request.fine_tune_type,
        max_seq_length=request.max_seq_length,
        longest_context=_context(config),
    )
    tokens = memory.padded(lengths.longest, written.options.max_seq_length)
    world = world_of(request, backend)
    budget = budgets.read(budgets.backend_name(backend)).of_rank(world)
    taken = request.model_dump(include={"hosts", "hostfile", "num_processes", "backend"})
    named = request.model_dump(include=set(FeatureNames.model_fields), exclude_defaults=True)
    written.reasons |= dict.fromkeys(named, "what the data call this field")
    taken |= named | {"model": str(path), "data": data, "hf_dataset": hub.located(request.hf_dataset)}
    options = written.options.model_copy(update=taken)
    if world is not None and options.batch_size % world.size:
        batch = -(-options.batch_size // world.size) * world.size
        iters = -(-options.iters * options.batch_size // batch)
        options = options.model_copy(update={"batch_size": batch, "iters": iters})
        written.reasons["batch_size"] = f"{batch}, so that each of {world.size} ranks has {batch // world.size}"
        written.reasons["iters"] = f"{iters}: as many passes over the rows, in batches of {batch}"
    wanted = Expectation(shape, options, tokens, budget)
    return Draft(request, written, lengths, wanted, smallest_harm(wanted, lengths))


def finish(drafted: Draft, probe: ProbeResult | None = None, probe_job: str | None = None) -> Plan:
    """The plan, with what the probe measured if there was one."""
    expected, lengths, smaller = drafted.expected, drafted.lengths, drafted.smaller
    options, budget = expected.options, expected.budget
    reasons = drafted.recipe.reasons
    for name, value in (smaller.changes if smaller else {}).items():
        before = reasons.get(name)
        reasons[name] = f"{_plain(value)}: changed so that it fits" + (f" (wanted: {before})" if before else "")
    if not options.grad_checkpoint:
        reasons["grad_checkpoint"] = "not needed: it fits without, and is a third faster so"
    if options.batch_size > 1:
        reasons["length_bucketing"] = _bucketing(options, lengths)
    check = judge(expected)
    can = smaller is not None and check.verdict != "does not fit"
    step, total, source = _times(drafted, probe)
    arguments = _arguments(drafted) if can else None
    checkpoint = memory.adapter_bytes(expected.shape, options) + memory.optimizer_bytes(expected.shape, options)
    disk = memory.adapter_bytes(expected.shape, options) + 4 * checkpoint + 20 * 10**6
    estimate = check.estimate
    peak = gb(probe.peak_bytes) if probe else estimate.peak_gb
    would = None if can else advice(expected.shape, budget)
    if can:
        summary = (
            f"{options.fine_tune_type} on {options.num_layers if options.num_layers > 0 else 'all'} layers, "
            f"{options.iters} steps of {options.batch_size} rows{_split(drafted)}: about {peak} GB"
            + (f", {_hours(total)}" if total else "")
            + (f"; cut to fit: {'; '.join(smaller.cut)}" if smaller and smaller.cut else "")
        )
    else:
        summary = f"nothing of this model fits in {gb(budget.limit)} GB ({budget.limit_from}); {would}"
    return Plan(
        summary=summary,
        fits=can,
        arguments=arguments,
        reasons=reasons if can else {},
        cut_to_fit=smaller.cut if smaller else [],
        memory=estimate,
        memory_verdict=check.text,
        seconds_per_step=step,
        total_seconds=total,
        time_from=source,
        disk_gb=gb(disk),
        checkpoint_mb=round(checkpoint / 1e6, 1),
        data=lengths,
        measures=_bought(expected) if can else {},
        alternatives=_alternatives(drafted) if can else [],
        what_would_fit=would,
        warnings=_warnings(drafted, check.verdict),
        probe=probe,
        probe_job=probe_job,
        next_step="start_lora_training(**arguments)"
        if can and check.verdict != "not now"
        else "close other programs, then start_lora_training(**arguments)"
        if can
        else "plan_training with another model or max_seq_length",
    )


def _bucketing(options: TrainingOptions, lengths: RowLengths) -> str:
    """What batches of rows of like length buy, by the lengths of the sampled rows."""
    mixed, _ = lengths.padding(options.model_copy(update={"length_bucketing": False}))
    alike, _ = lengths.padding(options.model_copy(update={"length_bucketing": True}))
    return f"on by default: rows of like length share a batch, so {alike:.0%} of a batch is padding and not {mixed:.0%}"


def _arguments(drafted: Draft) -> dict[str, Any]:
    """Everything start_lora_training takes; model and data as the caller wrote them."""
    plain = drafted.expected.options.model_dump(mode="json", exclude_none=True, exclude={"adapter_path"})
    # Options that the plan has no opinion on keep their defaults by not being named.
    default = TrainingOptions(model="m", data="d").model_dump(mode="json")
    chosen = {name: value for name, value in plain.items() if name in drafted.recipe.reasons or value != default[name]}
    own = drafted.request.model_dump(include={"model", "data", "hf_dataset"}, exclude_none=True)
    return chosen | own


def _times(drafted: Draft, probe: ProbeResult | None) -> tuple[float | None, float | None, str]:
    if probe is not None:
        return probe.seconds_per_step, probe.total_seconds, "a probe of this very training on this machine"
    expected = drafted.expected
    _, usual = drafted.lengths.padding(expected.options)
    step = time.rough_step_seconds(expected.shape, expected.options, usual, expected.budget)
    if step is None:
        return None, None, "unknown: nothing was measured on this machine; call with probe=true"
    return (
        round(step, 4),
        round(step * expected.options.iters, 1),
        "rough: floating-point operations and the chip's paper figures, within a factor of three; probe=true measures it",
    )


def _alternatives(drafted: Draft) -> list[Alternative]:
    """Other ways that fit: cheaper ones, richer ones."""
    expected = drafted.expected
    found: list[Alternative] = []
    options, shape = expected.options, expected.shape

    def offer(change: dict[str, Any], what: str) -> None:
        changed = options.model_copy(update=change)
        tokens = memory.padded(drafted.lengths.longest, changed.max_seq_length)
        other = Expectation(shape, changed, tokens, expected.budget)
        if fits(other):
            found.append(
                Alternative(change={k: _plain(v) for k, v in change.items()}, peak_gb=gb(other.peak), what=what)
            )

    if not options.grad_checkpoint:
        offer({"grad_checkpoint": True}, "less memory, about a third slower")
    layers = memory.trained_layers(shape, options)
    if layers > 4:
        offer({"num_layers": max(layers // 2, 4)}, "faster and smaller; learns less")
    if layers < shape.layers:
        offer({"num_layers": -1}, "all layers: learns more, slower")
    if drafted.lengths.p99 * 2 < drafted.lengths.longest and options.max_seq_length > drafted.lengths.longest:
        window = memory.PAD * -(-drafted.lengths.p99 // memory.PAD) + 1
        offer({"max_seq_length": window}, "the longest 1 % of the rows are cut; the worst batch is much smaller")
    return found


def _bought(expected: Expectation) -> dict[str, str]:
    """What each measure buys here, by the formula or by what was measured on this back end."""
    options, shape, budget = expected.options, expected.shape, expected.budget
    on, why = measures.fused_loss(options, shape.vocabulary, coarse=expected.coarse)
    if expected.fuses:
        without = Expectation(shape, options.model_copy(update={"fused_loss": False}), expected.tokens, budget)
        fused = f"on: about {gb(expected.peak)} GB at the peak instead of {gb(without.peak)} ({why})"
    else:
        fused = "off: the head or the embeddings are trained" if on else f"off: {why}"
    bought = {
        "fused_loss": fused,
        "allocator_cache": "off: stock"
        if options.stock
        else "off: nothing to gain on the CPU"
        if budget.backend == "linux-cpu"
        else "on: buffers are used again in the next step; what it gains was not measured on a Mac",
        "command_buffer_limits": "on: with the fused loss 12.4 GB instead of 29.1 for a 3B model on an H200"
        if measures.buffer_limits(options, budget.backend, {})
        else measures.describe_buffer_limits(options, budget.backend, {}),
    }
    if measures.no_graphs(options, budget.backend, {}, quantized=expected.shape.quantized):
        bought["cuda_graphs"] = (
            "off: with the others 1.35 to 1.61 times stock's speed on rows of many lengths, at 1.24 times its memory "
            "(a 3B model, H200)"
        )
    return bought


def _warnings(drafted: Draft, verdict: str) -> list[str]:
    found: list[str] = []
    options, lengths = drafted.expected.options, drafted.lengths
    if lengths.counted_by == "characters":
        found.append(
            "tokens were guessed from characters (no tokenizer.json could be read); lengths may be off by a third"
        )
    if lengths.longest > options.max_seq_length and options.mask_prompt:
        found.append(
            f"rows longer than max_seq_length={options.max_seq_length} are cut; one whose prompt alone is longer has nothing "
            "left to learn and is left out: inspect_dataset finds them"
        )
    if drafted.expected.origin.endswith("not measured on a Mac") and not drafted.expected.correction.jobs:
        found.append(
            "the memory formula was never measured on a Mac; probe=true measures this training in a minute or two"
        )
    if drafted.expected.budget.ranks > 1:
        found.append(
            "memory and time are those of one rank by itself: what ranks send each other was not reckoned with"
        )
    if verdict == "tight":
        found.append("memory is tight; call with probe=true before a long run")
    return found


def _split(drafted: Draft) -> str:
    expected = drafted.expected
    ranks, batch = expected.budget.ranks, expected.options.batch_size
    return f", {batch // ranks} on each of {ranks} ranks" if ranks > 1 else ""


def _context(config: dict[str, Any]) -> int | None:
    value = (config.get("text_config") or {}).get("max_position_embeddings") or config.get("max_position_embeddings")
    return value if isinstance(value, int) and value >= 8 else None


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value


def _hours(seconds: float) -> str:
    return f"about {seconds / 3600:.1f} h" if seconds >= 5400 else f"about {max(seconds / 60, 0.1):.1f} min"
