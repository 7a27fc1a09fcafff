"""Each measure beyond stock mlx-lm alone, and all together, against stock: useful tokens a second, peak memory, losses.

    python benchmarks/measures.py --shape tiny --output measures.json                            (CPU, minutes)
    python benchmarks/measures.py --shape qwen2.5-3b --type 16 --rounds 3 --output 3b.json       (CUDA)

Random weights and random tokens, made on the fly: nothing is downloaded. Workloads: ``fixed``, rows of one length with
grad_checkpoint, and ``real``, log-normal lengths of median 200 up to the longest. The configurations of a round run one after
the other, each on a model of its own, in another order in each round; those that start MLX with the same variables share a fresh
process, which on a GPU is most of the time. *Useful* tokens are those of the rows, padding left out; their speed is that of steps
whose shape was traced before. The evaluation loss is stock's own, on the same held-out rows for all. Prints a table, writes JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# hidden, layers, intermediate, heads, key-value heads, vocabulary; Qwen2.5's from their config.json
SHAPES = {
    "tiny": (128, 4, 384, 4, 2, 16_000),
    "small": (512, 12, 1408, 8, 2, 32_000),
    "qwen2.5-0.5b": (896, 24, 4864, 14, 2, 151_936),
    "qwen2.5-3b": (2048, 36, 11008, 16, 2, 151_936),
}
ROWS = 2_000  # of the data set from which a run's batches are taken: bucketing's windows depend on it
NONE: dict[str, Any] = {
    "length_bucketing": False, "fused_loss": False, "command_buffer_limits": False, "cuda_graphs": True,
}  # fmt: skip
STOCK_CACHE = {"clear_cache_threshold": 0}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "stock": {"stock": True},
    "length bucketing": NONE | STOCK_CACHE | {"length_bucketing": True},
    "cache kept": NONE | {"keep_cache": True},
    "fused loss": NONE | STOCK_CACHE | {"fused_loss": True},
    "command-buffer limits": NONE | STOCK_CACHE | {"command_buffer_limits": True},
    "no CUDA graphs": NONE | STOCK_CACHE | {"cuda_graphs": False},
    "all": {"length_bucketing": True, "fused_loss": True, "command_buffer_limits": True, "keep_cache": True},
    "default": {},
    "all, 4 operations a buffer": {
        "length_bucketing": True, "fused_loss": True, "command_buffer_limits": False, "keep_cache": True,
        "environment": {"MLX_MAX_OPS_PER_BUFFER": "4", "MLX_BFS_MAX_WIDTH": "1"},
    },
    "4 operations a buffer": NONE | STOCK_CACHE | {
        "environment": {"MLX_MAX_OPS_PER_BUFFER": "4", "MLX_BFS_MAX_WIDTH": "1"}
    },
}  # fmt: skip
RESULT = "RESULT "
VARIABLES = ("MLX_MAX_", "MLX_BFS_", "MLX_USE_CUDA_GRAPHS")
CUDA_ALONE = ("no CUDA graphs", "all, 4 operations a buffer", "4 operations a buffer")


def config_of(shape: str) -> dict[str, Any]:
    """``config.json`` of a Qwen2 of ``shape``."""
    hidden, layers, mlp, heads, kv_heads, vocabulary = SHAPES[shape]
    return {
        "model_type": "qwen2", "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": mlp,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": hidden // heads,
        "vocab_size": vocabulary, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "tie_word_embeddings": True,
    }  # fmt: skip


def make_model(shape: str, kind: str) -> Any:
    """A random Qwen2 of ``shape``: "32", "16" or "4" bits (4-bit weights with 16-bit scales)."""
    import mlx.core as mx
    from mlx_lm.models import qwen2
    from mlx_lm.utils import quantize_model

    config = config_of(shape)
    mx.random.seed(0)
    model: Any = qwen2.Model(qwen2.ModelArgs.from_dict(config))
    model.set_dtype(mx.float32 if kind == "32" else mx.bfloat16)
    if kind == "4":
        model, _ = quantize_model(model, config, group_size=64, bits=4)
    mx.eval(model.parameters())
    return model


def make_rows(workload: str, count: int, longest: int, vocabulary: int, seed: int) -> list[Any]:
    """Token ids that can be learnt a little: each row walks with a stride of its own over few words."""
    import numpy as np

    draw = np.random.default_rng(seed)
    sizes = [longest] * count
    if workload == "real":
        sizes = np.clip(draw.lognormal(np.log(200 * longest / 2048), 0.8, count), 8, longest).astype(int).tolist()
    return [(np.arange(size) * draw.integers(1, 5) + draw.integers(50)) % 997 % vocabulary for size in sizes]


class Made:
    """Token ids as mlx-lm's data sets give them."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, int]:
        return {"row": row}

    def process(self, row: dict[str, int]) -> tuple[list[int], int]:
        return self._rows[row["row"]].tolist(), 0  # no prompt


def batches_of(made: list[Any], steps: int, options: Any) -> tuple[Any, list[list[int]]]:
    """``TokenRows``, and ``steps`` batches of it in the order that ``options`` ask for: training's own.

    The rows are the same for every configuration: those that bucketing gives in as many steps of a run on ``made``. Its very
    first batch is left out: it is the longest of its window, which in few steps would count for too much.
    """
    import numpy as np

    from mcp_server.workers.batches import BucketedOrder, StockOrder
    from mcp_server.workers.tokens import TokenRows

    rows = TokenRows(Made(made), "rows", options, None)
    batches = list(BucketedOrder(rows, options.batch_size, seed=0).coming(steps + 1))[1:]
    if options.buckets:
        return rows, batches
    taken = sorted(piece for batch in batches for piece in batch)  # by the order in which they were read: shuffled
    rows = TokenRows(Made([rows.tokens(piece) for piece in taken]), "rows", options, None)
    np.random.seed(0)
    return rows, list(itertools.islice(StockOrder(rows, options.batch_size).batches(), steps))


def run_one(spec: dict[str, Any]) -> dict[str, Any]:
    """Train as ``spec`` says and measure. Runs in a process that was started with the variables of ``spec``."""
    import gc

    import mlx.core as mx
    import psutil
    from mlx_lm import cli_ui
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.callbacks import TrainingCallback

    from mcp_server.training import measures as job_measures
    from mcp_server.workers import loop, train
    from mcp_server.workers.guard import guard
    from mcp_server.workers.losses import weighed
    from mcp_server.workers.proof import choose_loss
    from mcp_server.workers.tokens import TokenRows
    from mcp_server.workers.validation import Validation

    options, settings = options_of(spec), dict(spec["configuration"])
    vocabulary, longest = SHAPES[spec["shape"]][-1], spec["tokens"]
    model = make_model(spec["shape"], spec["type"])
    block = type(model.layers[0])
    unwrapped = (
        block.__call__
    )  # grad_checkpoint wraps the class's: without this the process's next run would recompute twice
    train.make_trainable(model, options)
    optimizer = guard(train.make_optimizer(options), options)
    count = max(ROWS, (spec["steps"] + 1) * spec["batch"])
    rows, plan = batches_of(make_rows(spec["workload"], count, longest, vocabulary, seed=1), spec["steps"], options)
    held_out_rows = Made(make_rows(spec["workload"], 4 * spec["batch"], longest, vocabulary, seed=3))
    loss, fused = (trainer.default_loss, "off: stock")
    if not options.stock:
        coarse = job_measures.coarse_chunks(backend(), quantized=spec["type"] == "4")
        loss, fused = choose_loss(model, options, rows.batch(plan[0]), coarse=coarse)
    kept = loop.cache_threshold(options)
    if settings.get("keep_cache"):  # on the CPU too, where it is off by default
        kept = kept or psutil.virtual_memory().total // 20
    ends: list[float] = []
    losses: list[float] = []

    class Clock(TrainingCallback):
        def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
            ends.append(time.perf_counter())
            losses.append(train_info["train_loss"])

    counted = [sum(map(rows.counted, batch)) for batch in plan]
    usual = sum(counted) / len(plan)

    def batches(**_: Any) -> Any:
        for batch, count in zip(plan, counted, strict=True):
            arrays = rows.batch(batch)
            yield (*arrays, mx.array(count / usual, mx.float32)) if options.buckets else arrays

    cli_ui.make_console().quiet = True
    gc.collect()  # what the process's run before left
    mx.clear_cache()
    mx.reset_peak_memory()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = trainer.TrainingArgs(
            batch_size=spec["batch"], iters=len(plan), steps_per_report=1, steps_per_save=len(plan) + 1,
            max_seq_length=longest + 1, adapter_file=str(Path(scratch) / "adapters.safetensors"),
            grad_checkpoint=options.grad_checkpoint, clear_cache_threshold=kept,
        )  # fmt: skip
        trainer.train(
            model=model, optimizer=optimizer, train_dataset=[], args=arguments,
            loss=weighed(loss) if options.buckets else loss,
            iterate_batches=batches, training_callback=Clock(),
        )  # fmt: skip
    block.__call__ = unwrapped
    peak = mx.get_peak_memory()
    # Tracing a shape for the first time takes about as long as some steps of it: in a real run each shape comes a thousand
    # times, so speed is that of steps whose shape was seen before, and what the first ones took on top is said apart.
    shapes = [rows.batch(batch)[0].shape[1] for batch in plan]
    again = [step for step in range(1, len(plan)) if shapes[step] in shapes[:step]]
    tokens = [sum(map(rows.length, batch)) for batch in plan]
    useful = sum(tokens[step] for step in again)
    seconds = sum(ends[step] - ends[step - 1] for step in again)
    padded = sum(len(batch) * (shape - 1) for batch, shape in zip(plan, shapes, strict=True))
    held_out = Validation(TokenRows(held_out_rows, "held out", options, None), options, -1)
    return {
        "useful_tokens_per_second": round(useful / seconds, 2),
        "shapes": len(set(shapes)),
        "steps_timed": len(again),
        "seconds_of_first_steps": round(ends[-1] - ends[0] - seconds, 2),
        "peak_gb": round(peak / 1e9, 4),
        "train_loss": losses[-1] * (usual / counted[-1] if options.buckets else 1),
        "eval_loss": held_out.loss(model, trainer.default_loss),
        "padding": round(1 - sum(tokens) / padded, 4),
        "fused_loss": fused,
        "cache_bytes": kept,
        "variables": {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)},
    }


def options_of(spec: dict[str, Any]) -> Any:
    """The training that a configuration is: options this version does not have are the benchmark's own business."""
    from mcp_server.training.options import TrainingOptions

    chosen = {name: value for name, value in spec["configuration"].items() if name in TrainingOptions.model_fields}
    return TrainingOptions.model_validate(
        {"model": "m", "data": "d", "batch_size": spec["batch"], "max_seq_length": spec["tokens"] + 1,
         "num_layers": min(16, SHAPES[spec["shape"]][1]), "learning_rate": 1e-4,
         "grad_checkpoint": spec["workload"] == "fixed"} | chosen
    )  # fmt: skip


def variables_of(spec: dict[str, Any]) -> dict[str, str]:
    """The variables that a job's worker would be started with."""
    from mcp_server.training import measures

    clean = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
    chosen = measures.process_variables(options_of(spec), backend(), clean, quantized=spec["type"] == "4")
    return chosen | spec["configuration"].get("environment", {})


def measure(specs: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and ``run_one`` of each, as they are done: one process for those of the same variables."""
    shared: dict[str, list[str]] = {}
    for name, spec in specs.items():
        shared.setdefault(json.dumps(variables_of(spec), sort_keys=True), []).append(name)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
    for variables, names in shared.items():
        command = [sys.executable, __file__, "--each", json.dumps([specs[name] for name in names])]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=clean | json.loads(variables)
            )
            assert process.stdout is not None
            done = 0
            for line in process.stdout:
                if line.startswith(RESULT):
                    yield names[done], json.loads(line.removeprefix(RESULT))
                    done += 1
            process.wait()
            errors.seek(0)
            why = (errors.read().strip().splitlines() or ["no word"])[-1][:300]
        for name in names[done:]:
            yield name, {"failed": why}


def backend() -> str | None:
    from mcp_server.platform import facts

    return facts.backend(facts.collect())[0]


def summary(runs: list[dict[str, Any]], stock: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians; speed and memory as ratios to stock's run of the same round."""
    both = zip(runs, stock, strict=False)  # one of the two may not have run in the last round yet
    pairs = [(run, base) for run, base in both if "failed" not in run and "failed" not in base]
    if not pairs:
        return {"failed": next((run["failed"] for run in runs if "failed" in run), "stock failed")}
    speed = [run["useful_tokens_per_second"] / base["useful_tokens_per_second"] for run, base in pairs]
    return {
        "useful_tokens_per_second": statistics.median(run["useful_tokens_per_second"] for run, _ in pairs),
        "speed_ratio": round(statistics.median(speed), 3),
        "speed_ratio_min_max": [round(min(speed), 3), round(max(speed), 3)],
        "peak_gb": statistics.median(run["peak_gb"] for run, _ in pairs),
        "peak_ratio": round(statistics.median(run["peak_gb"] / base["peak_gb"] for run, base in pairs), 3),
        **{
            name: statistics.median(run[name] for run, _ in pairs)
            for name in ("train_loss", "eval_loss", "padding", "shapes", "steps_timed", "seconds_of_first_steps")
        },
        "fused_loss": pairs[0][0]["fused_loss"],
        "rounds": len(pairs),
    }


def parser_of_arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--type", choices=("32", "16", "4"), default="32")
    parser.add_argument("--workload", choices=("fixed", "real", "both"), default="both")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=2048, help="the longest row")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS, help="beside stock")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--each", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Measure, print, write."""
    asked = parser_of_arguments().parse_args()
    if asked.each:
        for spec in json.loads(asked.each):
            print(f"{RESULT}{json.dumps(run_one(spec))}", flush=True)
        return
    known = [name for name in CONFIGURATIONS if name not in CUDA_ALONE or backend() == "linux-cuda"]
    names = [name for name in known if not asked.only or name in asked.only or name == "stock"]
    record: dict[str, Any] = {
        "benchmark": "measures against stock, interleaved", "backend": backend(),
        "arguments": {k: v for k, v in vars(asked).items() if k not in ("each", "output")}, "workloads": {},
    }  # fmt: skip
    for workload in ("fixed", "real") if asked.workload == "both" else (asked.workload,):
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        common = {key: getattr(asked, key) for key in ("shape", "type", "batch", "tokens", "steps")}
        for number in range(asked.rounds):
            turned = names[number % len(names) :] + names[: number % len(names)]
            specs = {name: common | {"workload": workload, "configuration": CONFIGURATIONS[name]} for name in turned}
            for name, found in measure(specs):
                runs[name].append(found)
                print(f"{workload} {name}: {json.dumps(found)}", file=sys.stderr)
                # Written after every run: what was measured is kept when the machine or the time is taken away.
                record["workloads"][workload] = {
                    name: summary(done, runs["stock"]) for name, done in runs.items() if done and runs["stock"]
                }
                if asked.output:
                    asked.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(record))


def table(record: dict[str, Any]) -> str:
    """Markdown."""
    lines = [f"Back end {record['backend']}, {record['arguments']}", ""]
    lines.append("| workload | measure | useful tokens/s | × stock (min, max) | peak GB | × stock | eval loss |")
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for workload, rows in record["workloads"].items():
        for name, row in rows.items():
            if "failed" in row:
                lines.append(f"| {workload} | {name} | failed: {row['failed']} | | | | |")
                continue
            low, high = row["speed_ratio_min_max"]
            lines.append(
                f"| {workload} | {name} | {row['useful_tokens_per_second']:.0f} | {row['speed_ratio']} ({low}, {high}) | "
                f"{row['peak_gb']:.3f} | {row['peak_ratio']} | {row['eval_loss']:.5f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
