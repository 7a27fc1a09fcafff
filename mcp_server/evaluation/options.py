"""What can be asked of a benchmark."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class BenchmarkOptions(BaseModel):
    """The arguments of one benchmark."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Model folder or Hub id: the base of the comparison", min_length=1)
    adapter_path: str | None = Field(
        default=None, description="Adapter to compare with the base; without it the base alone"
    )
    data: str = Field(description="Folder with test.jsonl, which training never saw", min_length=1)
    mask_prompt: bool = Field(default=True, description="Measure the loss of the answers alone, not of the prompts")
    batch_size: int = Field(default=4, ge=1, description="Rows per batch")
    max_seq_length: int = Field(default=2048, ge=8, description="Tokens per row; longer rows are cut")
    num_prompts: int = Field(
        default=50, ge=0, description="Test rows to answer and compare with the reference; 0 for none"
    )
    max_tokens: int = Field(default=256, ge=1, description="Longest generated answer, tokens")
    speed_trials: int = Field(default=3, ge=0, description="Timed generations after a warm-up; 0 for none")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the bootstrap")
