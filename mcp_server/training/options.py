"""What can be asked of a training run: mlx-lm's own names, defaults and meaning, checked before anything starts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

OPTIMIZERS = ("adam", "adamw", "muon", "sgd", "adafactor")
Finite = Annotated[float, Field(allow_inf_nan=False)]


class LoraParameters(BaseModel):
    """mlx-lm's ``lora_parameters``. PEFT's alpha / rank is mlx-lm's ``scale``."""

    model_config = ConfigDict(extra="forbid")

    rank: Annotated[int, Field(ge=1)] = 8
    scale: Annotated[Finite, Field(gt=0)] = 20.0
    dropout: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    keys: list[str] | None = None


class TrainingOptions(BaseModel):
    """The arguments of one LoRA, DoRA or full fine-tuning run."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Model folder or Hub id; a 4-bit model gives QLoRA")
    data: str = Field(description="Folder with train.jsonl, valid.jsonl and, for benchmarks, test.jsonl")
    adapter_path: str | None = Field(
        default=None, description="New folder for the adapter; default adapters/<model>-<job id>. Never overwritten"
    )
    fine_tune_type: Literal["lora", "dora", "full"] = Field(default="lora", description="What is trained")
    num_layers: int = Field(default=16, ge=-1, description="Layers to train, counted from the last; -1 for all")
    lora_parameters: LoraParameters = Field(
        default_factory=LoraParameters, description="{rank, scale, dropout, keys}; scale = PEFT's alpha / rank"
    )
    iters: int = Field(default=1000, ge=1, description="Training steps, each of one batch")
    batch_size: int = Field(default=4, ge=1, description="Rows per step")
    grad_accumulation_steps: int = Field(default=1, ge=1, description="Steps whose gradients make one update")
    learning_rate: float = Field(
        default=1e-5, gt=0, allow_inf_nan=False, description="Rate, or the peak of lr_schedule"
    )
    lr_schedule: dict[str, Any] | None = Field(
        default=None,
        description="mlx-lm's {name, arguments, warmup, warmup_init}, e.g. "
        '{"name": "cosine_decay", "arguments": [1e-5, 1000], "warmup": 100}; replaces learning_rate',
    )
    optimizer: Literal["adam", "adamw", "muon", "sgd", "adafactor"] = Field(default="adam", description="Optimizer")
    optimizer_config: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description='Keyword arguments by optimizer, e.g. {"adamw": {"weight_decay": 0.01}}'
    )
    max_seq_length: int = Field(default=2048, ge=8, description="Tokens per row; longer rows are cut")
    mask_prompt: bool = Field(default=False, description="Learn only the last answer, not the prompt")
    grad_checkpoint: bool = Field(default=False, description="Less memory for activations, about a third slower")
    val_batches: int = Field(default=25, ge=-1, description="Validation batches; -1 all, 0 no validation")
    steps_per_report: int = Field(default=10, ge=1, description="Steps between training losses in the log")
    steps_per_eval: int = Field(default=200, ge=1, description="Steps between validations")
    save_every: int = Field(default=100, ge=1, description="Steps between checkpoints")
    clear_cache_threshold: int = Field(default=0, ge=0, description="Bytes the allocator may keep between steps")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of data order, dropout and LoRA's start")

    @field_validator("model", "data")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value

    @field_validator("num_layers")
    @classmethod
    def _some_layers(cls, value: int) -> int:
        if value == 0:
            raise ValueError("0 would train all layers in mlx-lm; say -1 for all or a number from 1")
        return value

    @model_validator(mode="after")
    def _optimizer_config_names(self) -> TrainingOptions:
        unknown = self.optimizer_config.keys() - set(OPTIMIZERS)
        if unknown:
            raise ValueError(f"optimizer_config has settings for unknown optimizers: {', '.join(sorted(unknown))}")
        return self

    def as_mlx_lm(self) -> dict[str, Any]:
        """The same run as mlx-lm's own configuration (``adapter_config.json``, ``mlx_lm lora --config``)."""
        own = self.model_dump(mode="json")
        lora = own.pop("lora_parameters")
        return own | {
            "train": True,
            "test": False,
            "test_batches": 500,
            "optimizer_config": {name: {} for name in OPTIMIZERS} | self.optimizer_config,
            "lora_parameters": None
            if self.fine_tune_type == "full"
            else {k: v for k, v in lora.items() if v is not None},
            "resume_adapter_file": None,
            "config": None,
            "report_to": None,
            "project_name": None,
            "trust_remote_code": False,
        }


def short_name(model: str) -> str:
    """A folder name made of a model's last path component."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", model.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "model"
