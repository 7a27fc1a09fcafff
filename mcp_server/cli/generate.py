"""``mlx-training generate``."""

from __future__ import annotations

import argparse
from typing import Any

from mcp_server.cli.follow import end_text, exit_code, follow
from mcp_server.cli.options import add_json, add_options, read_options, show
from mcp_server.generation.options import GenerateOptions, GenerationResult
from mcp_server.generation.start import start_generation


def add_commands(commands: Any) -> None:
    generate = commands.add_parser("generate", help="try a model or an adapter on a prompt")
    add_options(generate, GenerateOptions)
    add_json(generate)
    generate.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> int:
    folder = start_generation(read_options(arguments, GenerateOptions))
    news = follow(folder.job_id, quiet=arguments.json)
    if news.result is None:
        show(news, as_json=arguments.json, text=end_text(folder))
        return exit_code(folder)
    result = GenerationResult.model_validate(news.result)
    answers = [
        f"{name}:\n{answer.text}" if result.base and result.adapter else answer.text
        for name, answer in (("base", result.base), ("adapter", result.adapter))
        if answer is not None
    ]
    show(result, as_json=arguments.json, text="\n\n".join([*answers, *result.notes]))
    return 0
