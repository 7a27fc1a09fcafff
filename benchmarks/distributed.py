"""Two ranks on this machine against one, same global batch: steps per second, and the losses, which must be equal.

Random weights and text rows of log-normal length, so that the ranks have unequal numbers of tokens, in an epoch whose last
batch is small. Each run is a job of ours in fresh processes. Needs mlx, mlx-lm, pydantic, psutil and pyyaml, and neither
mlx-training nor mcp installed. Prints JSON.

    python benchmarks/distributed.py                                     two ranks on the CPU, over the ring
    python benchmarks/distributed.py --hidden 1024 --layers 24 --batch-size 16 --max-seq-length 1024 --backend nccl

On CUDA the products of 32-bit matrices are rounded to TF32, so losses are equal to about 1e-3; with MLX_ENABLE_TF32=0 they are
32-bit products, slower: compare losses with it and speed without.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLX_TRAINING_PLATFORMS", "linux-cpu,linux-cuda,apple-silicon")

WORDS = ("red", "cat", "river", "moon", "hill", "quiet", "long", "old", "rose", "saw", "over", "by")
SETTINGS = (
    "MLX_ENABLE_TF32",
    "MLX_USE_CUDA_GRAPHS",
    "MLX_MAX_MB_PER_BUFFER",
    "MLX_MAX_OPS_PER_BUFFER",
    "CUDA_VISIBLE_DEVICES",
)
WARM_UP = 5  # steps that hold compilation


def make_inputs(folder: Path, shape: dict[str, Any], rows: int, longest: int) -> None:
    """A random model (in a process of its own: this one must not hold a GPU) and data whose rows have unequal lengths."""
    code = f"from tests.tiny import make_tiny_model; make_tiny_model({str(folder / 'model')!r}, **{shape!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    dice = random.Random(0)
    (folder / "data").mkdir()
    for name, count in (("train", rows), ("valid", 64)):
        lengths = [min(max(int(dice.lognormvariate(4, 0.8)), 4), longest // 2) for _ in range(count)]
        lines = [json.dumps({"text": " ".join(dice.choices(WORDS, k=length))}) for length in lengths]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def train(options: dict[str, Any]) -> dict[str, Any]:
    """One job: losses by step, steps and tokens per second after the warm-up, peak memory of the largest rank."""
    from mcp_server.jobs import service, store
    from mcp_server.jobs.events import read_since
    from mcp_server.training.request import TrainingRequest
    from mcp_server.training.start import start_training

    folder = store.get(start_training(TrainingRequest.model_validate(options)).job_id)
    while not (state := service.reconcile(folder)).finished:
        time.sleep(0.2)
    if state.status != "completed":
        raise SystemExit(f"the training {state.status}: {state.why}\n{folder.log.read_text()[-2000:]}")
    events = read_since(folder.metrics, 0).events
    reports = [event for event in events if event["type"] == "train"]
    timed = reports[WARM_UP - 1 :]
    seconds = timed[-1]["time"] - timed[0]["time"]
    outcome, world = folder.outcome(), folder.spec().world
    assert outcome is not None and outcome.result is not None
    return {
        "engine": world.engine if world is not None else None,
        "measures": outcome.result["measures"],
        "losses": [event["loss"] for event in reports],
        "steps_per_second": (timed[-1]["step"] - timed[0]["step"]) / seconds,
        "tokens_per_second": (timed[-1]["trained_tokens"] - timed[0]["trained_tokens"]) / seconds,
        "peak_gb": max(event["peak_bytes"] for event in events if event["type"] == "memory") / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--backend", default="any")
    parser.add_argument("--iters", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-seq-length", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--repeat", type=int, default=3, help="how often each is measured, in turn")
    given = parser.parse_args()

    from mcp_server.platform import facts

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= {"MLX_TRAINING_HOME": str(folder / "home"), "CLAUDE_PROJECT_DIR": scratch}
        shape = {"hidden": given.hidden, "layers": given.layers, "vocab": given.vocab, "dtype": given.dtype}
        make_inputs(folder, shape, (given.iters - 1) * given.batch_size + 1, given.max_seq_length)
        options = {
            "model": "model",
            "data": "data",
            "iters": given.iters,
            "batch_size": given.batch_size,
            "max_seq_length": given.max_seq_length,
            "num_layers": -1,
            "learning_rate": 1e-4,
            "steps_per_report": 1,
            "val_batches": 0,
            "save_every": given.iters,
        }
        found: dict[str, list[dict[str, Any]]] = {"one": [], "several": []}
        for number in range(given.repeat):
            found["one"].append(train(options | {"adapter_path": f"adapters/one-{number}"}))
            spread = {"num_processes": given.ranks, "backend": given.backend}
            found["several"].append(train(options | spread | {"adapter_path": f"adapters/several-{number}"}))
    pairs = [
        (one, several)
        for left, right in zip(found["one"], found["several"], strict=True)
        for one, several in zip(left["losses"], right["losses"], strict=True)
    ]
    ratios = [
        b["steps_per_second"] / a["steps_per_second"] for a, b in zip(found["one"], found["several"], strict=True)
    ]
    result = {
        "ranks": given.ranks,
        "engine": found["several"][0]["engine"],
        "backend": facts.backend(facts.collect())[0],
        "arguments": vars(given),
        "environment": {name: value for name, value in os.environ.items() if name in SETTINGS},
        "measures": found["several"][0]["measures"],
        "steps_per_second": {name: [round(run["steps_per_second"], 3) for run in runs] for name, runs in found.items()},
        "tokens_per_second": {name: [round(run["tokens_per_second"]) for run in runs] for name, runs in found.items()},
        "peak_gb": {name: round(max(run["peak_gb"] for run in runs), 3) for name, runs in found.items()},
        "speed_ratio": [round(ratio, 3) for ratio in ratios],
        "first_and_last_loss": {name: [runs[0]["losses"][0], runs[0]["losses"][-1]] for name, runs in found.items()},
        "largest_loss_difference": max(abs(one - several) for one, several in pairs),
        "largest_relative_loss_difference": max(abs(one - several) / abs(one) for one, several in pairs),
        "steps_compared": len(pairs),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
