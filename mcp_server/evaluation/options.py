"""What can be asked of a benchmark."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from mcp_server.datasets.features import GivenNames


class BenchmarkOptions(GivenNames):
    """The arguments of one benchmark."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None, description="Model folder or Hub id: the base. Default: what the adapter was trained on"
    )
    adapter_path: str | None = Field(
        default=None, description="Adapter to compare with the base; without any the base alone is measured"
    )
    adapters: list[str] | None = Field(default=None, description="Several adapters or checkpoints, to be ranked")
    job_id: str | None = Field(default=None, description="A training job, to rank its checkpoints")
    data: str | None = Field(
        default=None, description="Folder with test.jsonl, which training never saw. Default: that of the adapter"
    )
    split: Literal["test", "valid"] = Field(
        default="test", description="valid: choose among checkpoints and leave test.jsonl for the final word"
    )
    mask_prompt: bool | None = Field(
        default=None, description="Loss of the answers alone. Default: as the adapter was trained; true without one"
    )
    batch_size: int = Field(default=4, ge=1, description="Rows per batch")
    max_seq_length: int = Field(default=2048, ge=8, description="Tokens per row; longer rows are cut")
    num_prompts: int = Field(
        default=50, ge=0, description="Rows to answer and compare with the reference, evenly spread; 0 for none"
    )
    max_tokens: int = Field(default=256, ge=1, description="Longest generated answer, tokens")
    json_schema: str | None = Field(default=None, description="JSON Schema file that answers should satisfy")
    metric: str | None = Field(
        default=None,
        description="Own metric 'file.py:function', function(answer, reference) -> number, higher is better; "
        "needs allow_metric_code",
    )
    allow_metric_code: bool = Field(
        default=False, description="Run the Python code that metric, or a task's YAML file, names"
    )
    forgetting_data: str | None = Field(
        default=None, description="General text (.txt, .md, .jsonl or a folder of them): has the adapter unlearnt it?"
    )
    speed_trials: int = Field(
        default=3, ge=0, description="Timed generations of each model after a warm-up; 0 for none"
    )
    speed_prompt_tokens: int = Field(default=512, ge=1, description="Prompt length when timing, tokens")
    speed_generation_tokens: int = Field(default=128, ge=2, description="Generated tokens when timing")
    speed_batch_size: int = Field(default=4, ge=1, description="Prompts at once when timing batches; 1 for no batches")
    tasks: list[str] | None = Field(
        default=None, description="lm-evaluation-harness tasks by name, or YAML files; needs the extra lm-eval"
    )
    task_limit: int | None = Field(default=None, ge=1, description="Examples per task")
    num_fewshot: int | None = Field(default=None, ge=0, description="Examples in a task's prompt")
    num_samples: int = Field(default=3, ge=0, le=50, description="Prompts shown with their answers")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the bootstrap and the timed prompts")
