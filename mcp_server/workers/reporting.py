"""``report_to``: wandb and swanlab through mlx-lm's own callbacks, trackio through one of the same shape."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from mlx_lm.tuner import callbacks
from mlx_lm.tuner.callbacks import TrainingCallback

from mcp_server.errors import ArgumentError
from mcp_server.training.options import TrainingOptions


class TrackioCallback(TrainingCallback):
    """Metrics to a local trackio dashboard. Arguments as mlx-lm gives them to its own callbacks."""

    def __init__(
        self, project_name: str | None, log_dir: str, config: dict[str, Any], wrapped_callback: TrainingCallback | None
    ) -> None:
        self._wrapped = wrapped_callback
        self._trackio = importlib.import_module("trackio")
        self._trackio.init(project=project_name or "mlx-training", name=Path(log_dir).name, config=config)

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self._trackio.log(train_info, step=train_info.get("iteration"))
        if self._wrapped is not None:
            self._wrapped.on_train_loss_report(train_info)

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        self._trackio.log(val_info, step=val_info.get("iteration"))
        if self._wrapped is not None:
            self._wrapped.on_val_loss_report(val_info)


def make_reporter(options: TrainingOptions) -> TrainingCallback | None:
    """The services of ``report_to``. Raises ArgumentError when one's library is not installed."""
    if options.report_to is None:
        return None
    services: dict[str, Any] = callbacks.SUPPORT_CALLBACK
    services.setdefault("trackio", TrackioCallback)
    try:
        return callbacks.get_reporting_callbacks(
            options.report_to,
            project_name=options.project_name,
            log_dir=options.adapter_path,
            config=options.as_mlx_lm(),  # type: ignore[arg-type] # mlx-lm annotates str and passes a dict itself
        )
    except ImportError as error:
        raise ArgumentError(
            f"report_to={options.report_to!r}: {error}; install it where jobs run, in the environment of {sys.executable}, or "
            "leave report_to out"
        ) from error
