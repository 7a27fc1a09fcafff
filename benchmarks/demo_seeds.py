"""Measure the demo's training over several seeds: `python benchmarks/demo_seeds.py --seeds 0 1 2 3 4`.

For each seed: write the data, train an adapter with `task.TRAINING` through mlx-lm's own `train_model`, and count exact
matches of greedy answers on the test rows, before and after. `--quantize` does it on the 4-bit conversion (as the demo
does), else on the committed base. Prints one line a seed and writes JSON with `--output`.
"""

# pyright: basic, reportArgumentType=false
# (MLX and mlx-lm annotate their own calls partly or too narrowly.)
from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import types
from pathlib import Path
from typing import Any

# On the CPU backend every fused kernel would cost a g++ call; must be set before MLX is imported.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import mlx.core as mx
import numpy as np
from mlx_lm import batch_generate, convert, load
from mlx_lm.lora import CONFIG_DEFAULTS, train_model
from mlx_lm.tuner.datasets import load_dataset

from mcp_server.demo import BASE, task


class Curve:
    """Keeps the losses that mlx-lm's loop reports."""

    def __init__(self) -> None:
        self.train: list[tuple[int, float]] = []
        self.valid: list[tuple[int, float]] = []

    def on_train_loss_report(self, info: dict[str, Any]) -> None:
        self.train.append((info["iteration"], round(info["train_loss"], 4)))

    def on_val_loss_report(self, info: dict[str, Any]) -> None:
        self.valid.append((info["iteration"], round(info["val_loss"], 4)))


def exact_match(model: Any, tokenizer: Any, rows: list[task.Row]) -> float:
    """Share of rows whose greedy answer is exactly the row's last message."""
    prompts = [
        tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=False)
        for row in rows
    ]
    answers = batch_generate(model, tokenizer, prompts, max_tokens=32).texts
    return sum(answer == row["messages"][-1]["content"] for answer, row in zip(answers, rows, strict=True)) / len(rows)


def measure(model_path: Path, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Train with `settings` on the data of `seed`; gives exact match before and after, seconds and losses."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        task.write_dataset(data, seed)
        args = types.SimpleNamespace(
            **{
                **CONFIG_DEFAULTS,
                **settings,
                "model": str(model_path),
                "data": str(data),
                "train": True,
                "seed": seed,
                "adapter_path": str(Path(scratch) / "adapter"),
            }
        )
        np.random.seed(seed)
        model, tokenizer = load(str(model_path))[:2]
        test = task.dataset(seed)["test"]
        before = exact_match(model, tokenizer, test)
        train_set, valid_set, _ = load_dataset(args, tokenizer)
        curve = Curve()
        start = time.monotonic()
        train_model(args, model, train_set, valid_set, curve)
        seconds = time.monotonic() - start
        after = exact_match(model, tokenizer, test)
    return {
        "seed": seed,
        "before": before,
        "after": after,
        "seconds": round(seconds, 1),
        "peak_bytes": mx.get_peak_memory(),
        "train": curve.train,
        "valid": curve.valid,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--quantize", action="store_true", help="train on the 4-bit conversion, as the demo does")
    parser.add_argument("--set", type=json.loads, default={}, help="JSON that replaces some of task.TRAINING")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        model_path = args.base
        if args.quantize:
            model_path = Path(scratch) / "q4"
            convert(str(args.base), str(model_path), quantize=True, q_bits=4, q_group_size=64, dtype="float32")
        for seed in args.seeds:
            result = measure(model_path, seed, {**task.TRAINING, **args.set})
            results.append(result)
            print(
                f"seed {seed}: exact match {result['before']:.3f} -> {result['after']:.3f}, {result['seconds']} s, "
                f"train loss {result['train'][0][1]} -> {result['train'][-1][1]}, "
                f"valid loss {result['valid'][0][1]} -> {result['valid'][-1][1]}",
                flush=True,
            )
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
