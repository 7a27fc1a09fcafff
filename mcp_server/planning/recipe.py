"""The hyper-parameters to begin with: the seed's table by data set size, refined by goal, tokens and what is trained.

| parameter     | small (< 1k rows) | medium (1k to 10k) | large (10k and more) |
| iters         | 200-500           | 500-1000           | 1000-2000            |
| batch_size    | 1                 | 2-4                | 4-8                  |
| learning_rate | 2e-5              | 1e-5               | 5e-6                 |
| num_layers    | 4-8               | 8-16               | 16-32                |
| warmup        | 10 %              | 10 %               | 5 %                  |
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel

from mcp_server.models.shape import ModelShape
from mcp_server.planning.memory import PAD
from mcp_server.planning.rows import RowLengths
from mcp_server.training.options import LoraParameters, TrainingOptions

Goal = Literal["fast", "good", "best"]
LONGEST_WINDOW = 4096  # tokens; longer rows are cut unless the caller asks for more
_EPOCHS: dict[Goal, float] = {"fast": 1.0, "good": 3.0, "best": 5.0}


class Sizes(BaseModel, frozen=True):
    """One column of the table; the ranges' ends are for the goals fast and best."""

    name: str
    iters: tuple[int, int]
    batch_size: tuple[int, int]
    learning_rate: float
    num_layers: tuple[int, int]
    warmup: float

    def pick(self, between: tuple[int, int], goal: Goal) -> int:
        low, high = between
        return {"fast": low, "good": (low + high) // 2, "best": high}[goal]


SMALL = Sizes(
    name="small (under 1,000 rows)",
    iters=(200, 500),
    batch_size=(1, 1),
    learning_rate=2e-5,
    num_layers=(4, 8),
    warmup=0.1,
)
MEDIUM = Sizes(
    name="medium (1,000 to 10,000 rows)",
    iters=(500, 1000),
    batch_size=(2, 4),
    learning_rate=1e-5,
    num_layers=(8, 16),
    warmup=0.1,
)
LARGE = Sizes(
    name="large (10,000 rows and more)",
    iters=(1000, 2000),
    batch_size=(4, 8),
    learning_rate=5e-6,
    num_layers=(16, 32),
    warmup=0.05,
)


def sizes(rows: int) -> Sizes:
    return SMALL if rows < 1000 else MEDIUM if rows < 10_000 else LARGE


class Recipe(BaseModel):
    """Options and a reason for each that was chosen."""

    options: TrainingOptions
    reasons: dict[str, str]


def write(
    *,
    model: str,
    data: str,
    shape: ModelShape,
    lengths: RowLengths,
    goal: Goal,
    fine_tune_type: Literal["lora", "dora", "full"],
    max_seq_length: int | None,
    longest_context: int | None,
) -> Recipe:
    """What one would start with if memory were no matter."""
    table = sizes(lengths.rows)
    why: dict[str, str] = {
        "model": f"{shape.label()}, {shape.layers} layers",
        "data": f"{lengths.rows:,} rows, {lengths.format}",
    }
    batch = min(table.pick(table.batch_size, goal), lengths.rows)
    why["batch_size"] = f"{batch} for a {table.name} data set" + (
        ", no more than train.jsonl has rows" if batch < table.pick(table.batch_size, goal) else ""
    )
    iters = _iters(table, lengths.rows, batch, goal, why)
    layers = min(table.pick(table.num_layers, goal), shape.layers)
    why["num_layers"] = (
        f"the last {layers} of {shape.layers}: the table's number for a {table.name} data set and goal {goal}"
    )
    rate = table.learning_rate / (2 if fine_tune_type == "full" else 1)
    why["learning_rate"] = f"{rate:g} for a {table.name} data set" + (
        ", halved since all weights move" if fine_tune_type == "full" else ""
    )
    window = _window(lengths, max_seq_length, longest_context, why)
    masked = lengths.format in ("chat", "completions")
    why["mask_prompt"] = (
        "the loss counts the answer alone, not the prompt (the last message, in a chat of several turns)"
        if masked
        else "plain text has no prompt to mask"
    )
    rank = 16 if goal == "best" and fine_tune_type != "full" else 8
    why["lora_parameters"] = f"rank {rank} with mlx-lm's scale 20 on all linear layers of a block"
    plain = (
        "QLoRA: the 4-bit weights stay as they are"
        if shape.quantized
        else "small adapters; the weights stay as they are"
    )
    why["fine_tune_type"] = plain if fine_tune_type == "lora" else "as asked for"
    options = TrainingOptions(
        model=model,
        data=data,
        fine_tune_type=fine_tune_type,
        num_layers=layers,
        lora_parameters=LoraParameters(rank=rank),
        iters=iters,
        batch_size=batch,
        learning_rate=rate,
        max_seq_length=window,
        mask_prompt=masked,
        val_batches=_val_batches(lengths, batch, why),
    )
    return Recipe(options=options, reasons=why)


def schedule(options: TrainingOptions, rows: int, why: dict[str, str]) -> dict[str, Any]:
    """What depends on the final number of steps: warm-up and decay, reports, validations, checkpoints."""
    share = sizes(rows).warmup
    why["lr_schedule"] = "cosine: the rate falls slowly, so that the last steps settle"
    why["warmup"] = f"{share:.0%} of the steps, by the table: Adam's first steps are large"
    why["steps_per_report"] = "a hundred points on the loss curve"
    why["steps_per_eval"] = "ten validations: enough to see overfitting begin"
    why["save_every"] = "five checkpoints, and one at a stop"
    return {
        "lr_schedule": "cosine",
        "warmup": share,
        "steps_per_report": max(options.iters // 100, 1),
        "steps_per_eval": max(options.iters // 10, 1),
        "save_every": max(options.iters // 5, 1),
    }


def _iters(table: Sizes, rows: int, batch: int, goal: Goal, why: dict[str, str]) -> int:
    low, high = table.iters
    wanted = math.ceil(_EPOCHS[goal] * math.ceil(rows / batch))
    iters = min(max(wanted, low), table.pick((low, high), goal) if goal != "good" else high)
    epochs = iters * batch / rows
    if wanted > iters:
        why["iters"] = (
            f"{iters}: the most for a {table.name} data set and goal {goal}; that is {_epochs(epochs)} "
            f"({_EPOCHS[goal]:g} would take {wanted:,} steps: raise it if the loss still falls)"
        )
    elif wanted < iters:
        why["iters"] = f"{iters}: fewer hardly teach anything; that is {_epochs(epochs)}, so watch the validation loss"
    else:
        why["iters"] = f"{iters}: {_epochs(epochs)}, as goal {goal} aims at"
    return iters


def _epochs(epochs: float) -> str:
    return f"{epochs:.1f} passes over the data" if epochs >= 1 else f"{epochs:.1%} of the rows"


def _window(lengths: RowLengths, asked: int | None, longest_context: int | None, why: dict[str, str]) -> int:
    fitting = PAD * -(-lengths.longest // PAD) + 1
    most = min(asked or LONGEST_WINDOW + 1, longest_context or fitting)
    window = max(min(fitting, most), 8)
    counted = f"the longest row seen has {lengths.longest} tokens (counted by {lengths.counted_by})"
    why["max_seq_length"] = (
        f"{window}: {counted}, so none is cut"
        if window == fitting
        else f"{window}: {counted}; longer rows are cut at their end (99 % have at most {lengths.p99})"
    )
    return window


def _val_batches(lengths: RowLengths, batch: int, why: dict[str, str]) -> int:
    if not lengths.valid_rows:
        why["val_batches"] = "0: there is no valid.jsonl, so overfitting can't be seen; prepare_dataset splits one off"
        return 0
    count = min(25, math.ceil(lengths.valid_rows / batch))
    why["val_batches"] = f"{count} batches of valid.jsonl ({lengths.valid_rows} rows)"
    return count
