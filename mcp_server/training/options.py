"""What can be asked of a training run: mlx-lm's own names, defaults and meaning, checked before anything starts.

What mlx-lm lacks has the name it has in Hugging Face's trainer (early_stopping_patience, save_total_limit, ...).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mcp_server.datasets.features import FeatureNames
from mcp_server.datasets.hub import HubData

OPTIMIZERS = ("adam", "adamw", "muon", "sgd", "adafactor")
Finite = Annotated[float, Field(allow_inf_nan=False)]


class LoraParameters(BaseModel):
    """mlx-lm's ``lora_parameters``. PEFT's alpha / rank is mlx-lm's ``scale``."""

    model_config = ConfigDict(extra="forbid")

    rank: Annotated[int, Field(ge=1)] = 8
    scale: Annotated[Finite, Field(gt=0)] = 20.0
    dropout: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    keys: list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _scale_not_alpha(cls, given: Any) -> Any:
        if isinstance(given, dict) and "alpha" in given:
            raise ValueError("alpha is PEFT's; mlx-lm's scale = alpha / rank, give that with rank, dropout and keys")
        return given


class TrainingOptions(HubData, FeatureNames):
    """The arguments of one LoRA, DoRA or full fine-tuning run."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Model folder or Hub id; a 4-bit model gives QLoRA")
    data: str = Field(
        description="Folder with train.jsonl, valid.jsonl and, for benchmarks, test.jsonl; or a Hub data set"
    )
    adapter_path: str | None = Field(
        default=None, description="New folder for the adapter; default adapters/<model>-<job id>. Never overwritten"
    )
    fine_tune_type: Literal["lora", "dora", "full"] = Field(default="lora", description="What is trained")
    num_layers: int = Field(default=16, ge=-1, description="Layers to train, counted from the last; -1 for all")
    lora_parameters: LoraParameters = Field(
        default_factory=LoraParameters, description="{rank, scale, dropout, keys}; scale = PEFT's alpha / rank"
    )
    iters: int = Field(default=1000, ge=1, description="Training steps, each of one batch")
    epochs: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Passes over train.jsonl, instead of iters"
    )
    batch_size: int = Field(default=4, ge=1, description="Rows per step, of all ranks together")
    grad_accumulation_steps: int = Field(default=1, ge=1, description="Steps whose gradients make one update")
    learning_rate: float = Field(
        default=1e-5, gt=0, allow_inf_nan=False, description="Rate, or the peak of lr_schedule"
    )
    lr_schedule: str | dict[str, Any] | None = Field(
        default=None,
        description='"constant", "linear", "cosine", "exponential" or "step" from learning_rate; '
        'or phases "400:2e-5,400:1e-5" (iterations:rate); or mlx-lm\'s {name, arguments, warmup, warmup_init}',
    )
    warmup: float = Field(
        default=0, ge=0, allow_inf_nan=False, description="Warm-up of a named lr_schedule: steps, or a share below 1"
    )
    optimizer: Literal["adam", "adamw", "muon", "sgd", "adafactor"] = Field(default="adam", description="Optimizer")
    optimizer_config: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description='Keyword arguments by optimizer, e.g. {"adamw": {"weight_decay": 0.01}}'
    )
    max_seq_length: int = Field(
        default=2048, ge=8, description="Tokens per row; for longer rows see excess_length_strategy"
    )
    excess_length_strategy: Literal["truncate", "split", "drop"] = Field(
        default="truncate", description="Rows longer than max_seq_length: cut off, made several rows, or left out"
    )
    mask_prompt: bool = Field(default=False, description="Learn only the last answer, not the prompt")
    assistant_only_loss: bool = Field(default=False, description="Learn every answer of a chat, and nothing else")
    length_bucketing: bool | None = Field(
        default=None,
        description="Batches of rows of like length, every row in every epoch; default on, off with stock",
    )
    grad_checkpoint: bool = Field(default=False, description="Less memory for activations, for more time per step")
    val_batches: int = Field(default=25, ge=-1, description="Validation batches; -1 all, 0 no validation")
    steps_per_report: int = Field(default=10, ge=1, description="Steps between training losses in the log")
    steps_per_eval: int = Field(default=200, ge=1, description="Steps between validations")
    save_every: int = Field(default=100, ge=1, description="Steps between checkpoints")
    save_total_limit: int = Field(default=3, ge=1, description="Newest checkpoints kept, besides the best")
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="Stop after this many validations without improvement; the best is the result"
    )
    early_stopping_threshold: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Smallest drop of validation loss that counts"
    )
    load_best_model_at_end: bool | None = Field(
        default=None, description="Make the checkpoint of best validation loss the result; default with early stopping"
    )
    test: bool = Field(default=False, description="Measure the loss on test.jsonl afterwards")
    test_batches: int = Field(default=500, ge=-1, description="Batches of that; -1 all")
    clear_cache_threshold: int | None = Field(
        default=None,
        ge=0,
        description="Bytes the allocator may keep between steps; 0 on the CPU, 1/20 of a Mac's memory, 2/5 of a CUDA GPU's",
    )
    fused_loss: bool | None = Field(
        default=None, description="Loss in chunks that never hold all logits; default where it pays, off with stock"
    )
    command_buffer_limits: bool | None = Field(
        default=None, description="Smaller command buffers, for less memory; default on CUDA with grad_checkpoint"
    )
    cuda_graphs: bool | None = Field(
        default=None,
        description="CUDA graphs: less memory, slower on rows of many lengths; default with grad_checkpoint",
    )
    max_grad_norm: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Clip gradients to this global norm"
    )
    skip_nonfinite: bool | None = Field(
        default=None, description="Skip an update whose gradients are not finite; default on, off with stock"
    )
    stock: bool = Field(default=False, description="Leave everything that decides speed and memory as mlx-lm has it")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of data order, dropout and LoRA's start")
    resume_adapter_file: str | None = Field(
        default=None, description="Weights to begin with (adapters.safetensors); a fresh run, unlike resume"
    )
    report_to: str | None = Field(
        default=None, description="Send metrics to wandb, swanlab or trackio (comma separated) too"
    )
    project_name: str | None = Field(default=None, description="Project name there")
    hosts: list[str] | None = Field(
        default=None, description="Train on several machines, one rank each: ssh names or addresses, this machine first"
    )
    hostfile: str | None = Field(
        default=None, description="The same as MLX's JSON hostfile, with addresses and RDMA devices"
    )
    num_processes: int = Field(default=1, ge=1, le=64, description="Ranks on this machine")
    backend: Literal["any", "ring", "jaccl", "nccl"] = Field(
        default="any", description="What the ranks speak: ring (TCP), jaccl (RDMA over Thunderbolt 5), nccl (CUDA)"
    )
    auto_recover: bool = Field(
        default=True,
        description="Out of memory: go on from the last checkpoint with less (smaller batches, checkpointing)",
    )
    recover_by_cutting: bool = Field(
        default=False, description="Let auto_recover halve max_seq_length too, when nothing else is left"
    )

    @field_validator("model", "data")
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be empty")
        return value

    @field_validator("num_layers")
    @classmethod
    def _some_layers(cls, value: int) -> int:
        if value == 0:
            raise ValueError("0 would train all layers in mlx-lm; say -1 for all or a number from 1")
        return value

    @field_validator("hosts")
    @classmethod
    def _plain_names(cls, value: list[str] | None) -> list[str] | None:
        odd = [name for name in value or [] if not is_host_name(name)]
        if odd:
            raise ValueError(f"{odd[0]!r} is no host name or address")
        return value or None

    @field_validator("report_to")
    @classmethod
    def _known_services(cls, value: str | None) -> str | None:
        unknown = {name.strip() for name in (value or "").split(",")} - {"", "wandb", "swanlab", "trackio"}
        if unknown:
            raise ValueError(f"knows wandb, swanlab and trackio, not {', '.join(sorted(unknown))}")
        return value or None

    @model_validator(mode="after")
    def _fits_together(self) -> TrainingOptions:
        ways = [self.hosts is not None, self.hostfile is not None, self.num_processes > 1]
        if sum(ways) > 1:
            raise ValueError("hosts, hostfile and num_processes each say where the ranks are; give one of them")
        unknown = self.optimizer_config.keys() - set(OPTIMIZERS)
        if unknown:
            raise ValueError(f"optimizer_config has settings for unknown optimizers: {', '.join(sorted(unknown))}")
        if self.early_stopping_patience is not None and self.val_batches == 0:
            raise ValueError("early_stopping_patience needs validation, but val_batches=0; give -1 or a number")
        if self.load_best_model_at_end and self.val_batches == 0:
            raise ValueError("load_best_model_at_end needs validation, but val_batches=0; give -1 or a number")
        if self.mask_prompt and self.assistant_only_loss:
            raise ValueError(
                "mask_prompt learns the last answer alone and assistant_only_loss every answer; give one of them"
            )
        return self

    @model_validator(mode="after")
    def _warmup_has_a_schedule(self) -> TrainingOptions:
        if self.warmup and not isinstance(self.lr_schedule, str):
            raise ValueError(
                "warmup goes with a named lr_schedule such as 'constant' or 'cosine'; in mlx-lm's own form say it there"
            )
        return self

    @property
    def keeps_best(self) -> bool:
        """Whether the result is the best checkpoint and not the last."""
        if self.load_best_model_at_end is not None:
            return self.load_best_model_at_end
        return self.early_stopping_patience is not None

    @property
    def buckets(self) -> bool:
        """Whether batches are made of rows of like length."""
        return not self.stock if self.length_bucketing is None else self.length_bucketing

    def steps_per_epoch(self, rows: int) -> int:
        """Steps in which each of ``rows`` rows is seen once; stock's batches leave the last few out."""
        return max(1, -(-rows // self.batch_size) if self.buckets else rows // self.batch_size)

    @property
    def skips(self) -> bool:
        """Whether an update that is not finite is skipped."""
        return not self.stock if self.skip_nonfinite is None else self.skip_nonfinite

    def as_mlx_lm(self) -> dict[str, Any]:
        """The same run as mlx-lm's own configuration (``adapter_config.json``, ``mlx_lm lora --config``).

        Phases have no form there: the first rate stands for them.
        """
        own = self.model_dump(mode="json", exclude=OURS_ALONE)
        lora = own.pop("lora_parameters")
        if isinstance(self.lr_schedule, str):
            own["lr_schedule"] = None
        if self.hf_dataset is None:
            own.pop("hf_dataset")
        return own | {
            "train": True,
            "optimizer_config": {name: {} for name in OPTIMIZERS} | self.optimizer_config,
            "lora_parameters": None
            if self.fine_tune_type == "full"
            else {k: v for k, v in lora.items() if v is not None},
            "clear_cache_threshold": self.clear_cache_threshold or 0,
            "config": None,
            "trust_remote_code": False,
        }


# Options that mlx-lm does not have.
OURS_ALONE = {
    "epochs",
    "warmup",
    "save_total_limit",
    "early_stopping_patience",
    "early_stopping_threshold",
    "load_best_model_at_end",
    "auto_recover",
    "recover_by_cutting",
    "fused_loss",
    "command_buffer_limits",
    "cuda_graphs",
    "max_grad_norm",
    "skip_nonfinite",
    "hosts",
    "hostfile",
    "num_processes",
    "backend",
    "stock",
    "length_bucketing",
    "assistant_only_loss",
    "excess_length_strategy",
}


def is_host_name(text: str) -> bool:
    """Whether ssh would take ``text`` for a host, with or without a user, and for nothing else."""
    return re.fullmatch(r"[A-Za-z0-9_][\w.@:-]*", text) is not None


def short_name(model: str) -> str:
    """A folder name made of a model's last path component."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", model.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "model"
