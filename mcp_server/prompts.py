"""Prompts for clients that offer them to people. In Claude Code the plugin's skills and its agent take their place."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.prompts.base import Prompt
from pydantic import Field

_FINE_TUNE = """Fine-tune a language model on this Mac with the mlx tools, and prove that it got better.

What it shall learn: {goal}
Model: {model}
Data: {data}

Go in this order, act on what each tool says, and state no number that no tool gave:
1. check_platform; if MLX is missing, prepare_environment. If the machine can't, say why and stop.
2. inspect_dataset with the model; for other formats or faulty rows prepare_dataset into a new folder.
3. plan_training, then start_lora_training with its arguments as they are and a new adapter_path. First 20 to 50 iters.
4. read_training_log with the last cursor and wait_seconds=600 until finished; act on alerts.
5. run_benchmark of the adapter against the base on test.jsonl, which training never saw.
6. Report: job id, verdict with difference and interval, the adapter's folder, samples that got better and worse, next step.
Ask before downloads of many GB, runs over two hours, or changing my data."""

_STATUS = """Tell me how my training jobs stand ({job}). Use list_jobs, read_training_log and get_metal_memory.
In at most four lines a job: state, step and time left, losses first to last, alerts with their remedy.
Start, stop and change nothing."""

_REPORT = """Write a report on a training ({job}) from read_training_log and its adapter's benchmark in list_jobs:
verdict with difference, interval and number of test rows; a table base | adapter; the curve; three samples, one of them
worse if any is; the settings that matter; limits of the proof; the next step.
Without a benchmark say so and offer run_benchmark."""


def add_prompts(server: MCPServer) -> None:
    """Publish the prompts."""
    for function, title in ((fine_tune, "Fine-tune a model"), (status, "Status of training"), (report, "Report")):
        server.add_prompt(Prompt.from_function(function, title=title))


def fine_tune(
    goal: Annotated[str, Field(description="What it should learn, and how one would see it")],
    data: Annotated[str, Field(description="Folder or file with the examples")] = "find it in the project, or ask me",
    model: Annotated[str, Field(description="Model folder or Hub id")] = "mlx-community/Qwen2.5-3B-Instruct-4bit",
) -> str:
    """Fine-tune a model on this Mac and prove that it got better."""
    return _FINE_TUNE.format(goal=goal, data=data, model=model)


def status(job_id: Annotated[str, Field(description="A job; without it all that run")] = "") -> str:
    """What is training, how far it is and whether it goes well."""
    return _STATUS.format(job=job_id or "those that run or wait, else the newest")


def report(job_id: Annotated[str, Field(description="A training; without it the newest")] = "") -> str:
    """What was done, whether it got better, what to do next."""
    return _REPORT.format(job=job_id or "the newest completed one")
