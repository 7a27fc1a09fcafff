"""``mlx-training generate``."""

from __future__ import annotations

import argparse
from typing import Any

from mcp_server.cli.follow import run_job
from mcp_server.cli.options import add_json, add_options
from mcp_server.generation.options import GenerateOptions, GenerationResult
from mcp_server.generation.start import start_generation


def add_commands(commands: Any) -> None:
    generate = commands.add_parser("generate", help="try a model or an adapter on a prompt")
    add_options(generate, GenerateOptions)
    add_json(generate)
    generate.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> int:
    return run_job(arguments, GenerateOptions, start_generation, GenerationResult, _said)


def _said(result: GenerationResult) -> str:
    answers = [
        f"{name}:\n{answer.text}" if result.base and result.adapter else answer.text
        for name, answer in (("base", result.base), ("adapter", result.adapter))
        if answer is not None
    ]
    return "\n\n".join([*answers, *result.notes])
