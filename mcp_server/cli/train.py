"""``mlx-training train``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mcp_server.cli.follow import end_text, exit_code, follow, job
from mcp_server.cli.options import add_json, add_options, read_options, show
from mcp_server.training.request import TrainingRequest
from mcp_server.training.start import start_training


def add_commands(commands: Any) -> None:
    train = commands.add_parser("train", help="fine-tune a model; Ctrl-C leaves the job running")
    add_options(train, TrainingRequest)
    train.add_argument("--detach", action="store_true", help="return when the job has started")
    add_json(train)
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    started = start_training(read_options(arguments, TrainingRequest))
    for warning in started.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.detach:
        show(
            started,
            as_json=arguments.json,
            text=f"{started.job_id}: {started.status}; follow with `mlx-training log {started.job_id} --follow`",
        )
        return 0
    news = follow(started.job_id, quiet=arguments.json)
    folder = job(started.job_id)
    result = news.result or {}
    text = end_text(folder)
    if result:
        named = (("loss", "final_train_loss"), ("validation loss", "final_val_loss"))  # neither need be known
        losses = ", ".join(f"{name} {result[key]:.4f}" for name, key in named if result.get(key) is not None)
        text += f"\nadapter: {result['adapter_path']}" + (f"\n{losses}" if losses else "")
    show(news, as_json=arguments.json, text=text)
    return exit_code(folder)
