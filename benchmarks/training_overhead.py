"""Our training against stock ``mlx_lm lora``: tokens per second of the training loop, peak memory, and the losses.

Both train the same model on the same data with the same options, in fresh processes, in turn. Stock's loop is driven through
``mlx_lm.lora.run`` itself; its reporting callback tells the losses (its screen shows three decimals). Speed on both sides is
tokens over the wall time between the first and the last report, so that neither side's own bookkeeping counts. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measures import SHAPES, config_of
from mcp_server.platform import facts

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLX_TRAINING_PLATFORMS", "linux-cpu,linux-cuda,apple-silicon")
BACKEND, _ = facts.backend(facts.collect())
if BACKEND == "linux-cpu":  # every fused kernel would cost a call of the C++ compiler, on both sides
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")

STOCK = """
import json, sys, time, types
import mlx.core as mx
from mlx_lm import lora
from mlx_lm.tuner import callbacks
seen = []
class Keep(callbacks.TrainingCallback):
    def __init__(self, **_): pass
    def on_train_loss_report(self, info): seen.append((time.time(), info["trained_tokens"], info["train_loss"]))
callbacks.SUPPORT_CALLBACK["keep"] = Keep
options = json.load(open(sys.argv[1])) | {"report_to": "keep"}
lora.run(types.SimpleNamespace(**options))
print("SEEN", json.dumps({"reports": seen, "peak": mx.get_peak_memory()}))
"""


def stock(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train with stock mlx-lm: its reports and its peak memory, bytes."""
    (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(folder / "options.json")], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.rpartition("SEEN ")[2])


def ours(options: dict[str, Any], number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train through our job machinery: the same figures, and the options as mlx-lm's configuration."""
    import anyio

    from mcp_server.jobs import service, store
    from mcp_server.jobs.events import read_since
    from mcp_server.jobs.wait import wait_for_end
    from mcp_server.training.request import TrainingRequest
    from mcp_server.training.start import start_training

    started = start_training(TrainingRequest.model_validate(options | {"adapter_path": f"adapters/{number}"}))
    folder = store.get(started.job_id)
    anyio.run(wait_for_end, folder, 3600.0)
    state = service.reconcile(folder)
    if state.status != "completed":
        raise SystemExit(f"our training {state.status}: {state.why}")
    events = read_since(folder.metrics, 0).events
    reports = [(e["time"], e["trained_tokens"], e["loss"]) for e in events if e["type"] == "train"]
    peak = max(event["peak_bytes"] for event in events if event["type"] == "memory")
    config = json.loads((Path(started.adapter_path) / "adapter_config.json").read_text(encoding="utf-8"))
    return {"reports": reports, "peak": peak}, config


def tokens_per_second(found: dict[str, Any]) -> float:
    """Over all reports but the first, which holds compilation."""
    (start, tokens_before, _), (end, tokens_after, _) = found["reports"][0], found["reports"][-1]
    return (tokens_after - tokens_before) / (end - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iters", type=int, default=60)
    parser.add_argument("--hidden", type=int, help="measure on a random model of this width instead of the demo's")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--shape", choices=SHAPES, help="measure on a random 16-bit model of this shape instead")
    parser.add_argument("--bits", type=int, help="with --hidden or --shape: quantize the base")
    parser.add_argument("--grad-checkpoint", action="store_true")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per row")
    parser.add_argument("--batch-size", type=int, default=8)
    chosen = parser.parse_args()
    from mcp_server.demo import BASE, task
    from tests.tiny import make_tiny_model

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ |= {"MLX_TRAINING_HOME": str(root / "home"), "CLAUDE_PROJECT_DIR": str(root)}
        task.write_dataset(root / "data")
        model = BASE
        if chosen.hidden or chosen.shape:
            size: dict[str, Any] = {"hidden": chosen.hidden, "layers": chosen.layers, "vocab": chosen.vocab}
            if chosen.shape:
                size = {"shape": config_of(chosen.shape), "dtype": "bfloat16"}
            model = make_tiny_model(root / "model", quantize_bits=chosen.bits, **size)
            row = json.dumps({"text": "lamp " * chosen.tokens}) + "\n"
            for split in ("train", "valid"):
                (root / "data" / f"{split}.jsonl").write_text(row * 64, encoding="utf-8")
        options = {
            "model": str(model),
            "stock": True,
            "data": "data",
            "num_layers": 2,
            "iters": chosen.iters,
            "batch_size": chosen.batch_size,
            "learning_rate": 1e-4,
            "max_seq_length": chosen.tokens,
            "grad_checkpoint": chosen.grad_checkpoint,
            "steps_per_report": 10,
            "save_every": chosen.iters,
            "val_batches": 1,
            "steps_per_eval": chosen.iters + 1,
        }
        rows: list[dict[str, Any]] = []
        for number in range(chosen.rounds):
            mine, config = ours(options, number)
            theirs = stock(config | {"adapter_path": str(root / f"stock-{number}")}, root)
            rows.append(
                {
                    "speed_ratio": tokens_per_second(mine) / tokens_per_second(theirs),
                    "peak_ratio": mine["peak"] / theirs["peak"],
                    "peak_gb": [round(one["peak"] / 1e9, 3) for one in (mine, theirs)],
                    "losses_equal": [r[2] for r in mine["reports"]] == [r[2] for r in theirs["reports"]],
                }
            )
    speeds = [row["speed_ratio"] for row in rows]
    print(
        json.dumps(
            {
                "benchmark": "training against stock mlx_lm lora, alternating",
                "backend": BACKEND,
                "rounds": chosen.rounds,
                "arguments": {k: v for k, v in vars(chosen).items() if k != "rounds"},
                "speed_ratio_median": round(statistics.median(speeds), 3),
                "speed_ratio_min_max": [round(min(speeds), 3), round(max(speeds), 3)],
                "peak_memory_ratio": round(statistics.median(row["peak_ratio"] for row in rows), 4),
                "peak_gb_ours_and_stock": [row["peak_gb"] for row in rows],
                "losses_equal": all(row["losses_equal"] for row in rows),
                "goal": "speed >= 0.98, peak <= 1.02, losses equal",
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
