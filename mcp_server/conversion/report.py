"""What conversions and fusions report: numbers, and what they mean in words."""

from __future__ import annotations

from pydantic import BaseModel, Field

# A fused model is called faithful when this share of the adapter's effect on the logits is there, with an error no larger.
_KEPT = 0.95
_SMALL_ERROR = 0.1
_HALF = 0.5


class ConversionResult(BaseModel):
    """A converted model that was loaded again, looked through for NaN and made to generate text."""

    mlx_path: str
    summary: str
    source_bytes: int = Field(description="Weights before, bytes on disk")
    bytes: int = Field(description="Weights after, bytes on disk")
    source_bits_per_weight: float
    bits_per_weight: float
    source_perplexity: float | None = None
    perplexity: float
    perplexity_change_percent: float | None = Field(
        default=None, description="What the conversion costs; positive is worse"
    )
    interval_95: tuple[float, float] | None = Field(
        default=None, description="Of that change, percent: paired bootstrap over the pieces of text"
    )
    measured_on: str = Field(description="The text, and how many tokens of it")
    sample: str = Field(description="What it generates for a short prompt, to show that it loads")
    notes: list[str] = Field(default_factory=list)
    seconds: float


class LogitChange(BaseModel):
    """Two models' logits at the same positions."""

    max_difference: float
    mean_difference: float = Field(description="Mean absolute difference")
    kl: float = Field(description="Mean Kullback-Leibler divergence of the second from the first, nats")
    top1_agreement: float = Field(description="Share of positions with the same most likely token")


class FusionResult(BaseModel):
    """A fused model that was loaded again and compared with base + adapter."""

    save_path: str
    gguf_path: str | None = None
    summary: str
    fine_tune_type: str
    bytes: int = Field(description="Weights, bytes on disk")
    bits_per_weight: float
    fused_vs_adapted: LogitChange = Field(description="Fused model against base + adapter")
    adapted_vs_base: LogitChange = Field(description="The adapter's own effect, for scale")
    effect_kept: float | None = Field(
        default=None, description="Share of the adapter's effect on the logits that the fused model has; 1 is all of it"
    )
    relative_error: float | None = Field(
        default=None, description="|fused - adapted| / |adapted - base| of the logits; 0 is exact"
    )
    norm_ratio: float | None = Field(default=None, description="|fused - base| / |adapted - base| of the logits")
    perplexity: dict[str, float] = Field(description="Of base, adapted and fused on the same text")
    same_greedy_text: bool = Field(description="Whether base + adapter and the fused model answer a prompt alike")
    measured_on: str
    sample: str
    notes: list[str] = Field(default_factory=list)
    seconds: float


def summarize_conversion(result: ConversionResult) -> str:
    """Size and quality before and after."""
    ratio = result.bytes / result.source_bytes
    text = (
        f"{result.source_bits_per_weight:.4g} → {result.bits_per_weight:.4g} bits per weight, "
        f"{result.source_bytes / 1e6:.1f} → {result.bytes / 1e6:.1f} MB ({ratio:.0%})"
    )
    if result.perplexity_change_percent is None:
        return f"{text}; perplexity {result.perplexity:.4g} on {result.measured_on}"
    change = f"{result.perplexity_change_percent:+.2f} %"
    if result.interval_95:
        change += f", 95 % interval {result.interval_95[0]:+.2f} to {result.interval_95[1]:+.2f} %"
    return f"{text}; perplexity {result.source_perplexity:.4g} → {result.perplexity:.4g} ({change}) on {result.measured_on}"


def summarize_fusion(
    kept: float | None, error: float | None, agreement: float, *, quantized: bool, measured_on: str
) -> str:
    """Whether the fused model is what base + adapter was, and what to do when it is not. ``quantized``: the result is."""
    remedy = (
        "fuse again with dequantize=true, which keeps it and costs size"
        if quantized
        else "16-bit rounding is as large as the adapter's effect here: fuse onto a float32 copy of the base "
        "(convert_model with quantize=false, dtype='float32') to keep it, or train it further"
    )
    numbers = f"(same most likely token at {agreement:.1%} of the positions of {measured_on})"
    if kept is None or error is None:
        return f"The adapter changes nothing on {measured_on}: fused model and base are the same there"
    if kept >= _KEPT and error <= _SMALL_ERROR:
        return f"The fused model is what base + adapter is: {kept:.1%} of the adapter's effect, error {error:.1%} {numbers}"
    head = "Most of the adapter was rounded away" if kept < _HALF else "The fused model differs from base + adapter"
    return f"{head}: {kept:.1%} of the adapter's effect is left, with an error of {error:.0%} of that effect {numbers}; {remedy}"
