"""Training from Python, with the shape of the seed's integration point:

    from mcp_server.pipelines.train import TrainConfig, TrainPipeline

    config = TrainConfig(model="mlx-community/Qwen2.5-3B-Instruct-4bit", train_data=Path("data/train.jsonl"), iters=500)
    result = TrainPipeline(config).execute()

It runs in the foreground with progress on the screen, through the same job machinery as the tools: the job survives this
process and can be followed, stopped and resumed from anywhere. In a notebook the cell waits for the end. Other back ends
are added with ``register_backend``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcp_server.cli.follow import end_text, follow
from mcp_server.errors import ArgumentError, JobError, UserError, explain
from mcp_server.jobs import store
from mcp_server.training.request import TrainingRequest
from mcp_server.training.start import start_training


class TrainConfig(BaseModel):
    """What to train. Every option of ``start_lora_training`` may be given by its name besides the fields here.

    Its ``backend``, which the ranks of a training over several machines speak, is taken from a hostfile here.
    """

    model_config = ConfigDict(extra="allow")

    backend: str = "mlx"
    model: str | None = None
    train_data: Path | None = Field(default=None, description="The data folder, or its train.jsonl")
    quiet: bool = Field(default=False, description="Show no progress")


class TrainResult(BaseModel):
    """A training that completed."""

    job_id: str
    adapter_path: Path
    steps: int
    final_train_loss: float | None = None
    final_val_loss: float | None = None
    best_val_loss: float | None = None
    test_loss: float | None = None


Backend = Callable[[TrainConfig], TrainResult]
_BACKENDS: dict[str, Backend] = {}


def register_backend(name: str, run: Backend) -> None:
    """Add a back end: ``run`` trains as a config says and returns the result. Raises ArgumentError when the name is taken."""
    if name in _BACKENDS:
        raise ArgumentError(f"backend {name!r} is already registered; choose another name")
    _BACKENDS[name] = run


class TrainPipeline:
    """One training."""

    def __init__(self, config: TrainConfig) -> None:
        if config.backend not in _BACKENDS:
            raise ArgumentError(
                f"backend={config.backend!r} is not known here; known: {', '.join(sorted(_BACKENDS))}; "
                "add another with mcp_server.pipelines.train.register_backend(name, run)"
            )
        self._config = config

    def execute(self) -> TrainResult:
        """Train and wait for the end. Raises a UserError when it can't start, fails, or is stopped."""
        return _BACKENDS[self._config.backend](self._config)


def _run_mlx(config: TrainConfig) -> TrainResult:
    given: dict[str, Any] = dict(config.model_extra or {})
    if config.model is not None:
        given["model"] = config.model
    if config.train_data is not None:
        given["data"] = str(_data_folder(config.train_data))
    try:
        request = TrainingRequest.model_validate(given)
    except ValidationError as error:
        raise explain(error, TrainingRequest) from error
    started = start_training(request)
    news = follow(started.job_id, quiet=config.quiet)
    if news.status != "completed" or news.result is None:
        raise JobError(
            f"{end_text(store.get(started.job_id))}; {news.next_step or 'read_training_log has the details'}"
        )
    return TrainResult(job_id=started.job_id, **{k: v for k, v in news.result.items() if k in TrainResult.model_fields})


def _data_folder(train_data: Path) -> Path:
    """mlx-lm reads a folder; the seed names its train.jsonl."""
    if train_data.suffix != ".jsonl":
        return train_data
    if train_data.name != "train.jsonl":
        raise ArgumentError(
            f"train_data={str(train_data)!r}: mlx-lm reads a folder with train.jsonl and valid.jsonl; "
            "rename the file to train.jsonl"
        )
    return train_data.parent


register_backend("mlx", _run_mlx)

__all__ = ["TrainConfig", "TrainPipeline", "TrainResult", "UserError", "register_backend"]
