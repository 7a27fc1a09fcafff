"""Is what the measures train as good as what stock trains? Held-out loss of both, same rows, steps and seeds. JSON on stdout.

    python benchmarks/quality.py [--seeds 0 1 2 3 4] [--dtype bfloat16]

The demo's base, which has learnt something, on conversations of many lengths in the demo's new style: as many questions each
as a log-normal draw says. Each training is a job of ours; the loss is that of the whole validation split at the end, a mean
over its tokens for both. A difference below zero: the measures' is better.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mcp_server.demo import BASE, task  # noqa: E402
from mcp_server.platform import facts  # noqa: E402
from tests.exactness import finish, run  # noqa: E402

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLX_TRAINING_PLATFORMS", "linux-cpu,linux-cuda,apple-silicon")
TRAINING: dict[str, Any] = {
    "num_layers": 2,
    "learning_rate": 1e-4,
    "batch_size": 4,
    "val_batches": -1,
    "steps_per_report": 10,
    "max_seq_length": 512,
}
ROWS = {"train": 240, "valid": 60}


def write_conversations(folder: Path, seed: int) -> None:
    """Conversations of one to 16 questions; those of ``valid`` are about products that ``train`` never names."""
    draw = random.Random(seed)
    products = task.split_products(seed)
    folder.mkdir(parents=True)
    for split, names in (("train", products["train"]), ("valid", products["valid"] + products["test"])):
        lines: list[str] = []
        for _ in range(ROWS[split]):
            messages: list[dict[str, str]] = []
            for _ in range(min(16, max(1, round(draw.lognormvariate(1, 0.8))))):
                item, field = draw.choice(names), draw.choice(list(task.QUESTIONS))
                question = draw.choice(task.QUESTIONS[field]).format(item=item)
                messages += task.chat(question, task.record(item, field))["messages"]
            lines.append(json.dumps({"messages": messages}) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def train(options: dict[str, Any]) -> dict[str, Any]:
    """One job: its last validation loss and what it had on."""
    folder = run(**options)
    status = finish(folder, 600)
    if status != "completed":
        raise SystemExit(f"the training {status}: {folder.state().why}\n{folder.log.read_text()[-2000:]}")
    outcome = folder.outcome()
    assert outcome is not None
    assert outcome.result is not None
    return {"loss": outcome.result["final_val_loss"], "measures": outcome.result.get("measures")}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--iters", type=int, default=120)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    asked = parser.parse_args()
    backend, _ = facts.backend(facts.collect())
    if backend == "linux-cpu":  # every fused kernel would cost a call of the C++ compiler
        os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
    pairs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ |= {"MLX_TRAINING_HOME": str(root / "home"), "CLAUDE_PROJECT_DIR": name}
        model = str(BASE)
        if asked.dtype != "float32":
            model = str(root / "model")
            convert = f"from mlx_lm import convert; convert({str(BASE)!r}, {model!r}, dtype={asked.dtype!r})"
            subprocess.run([sys.executable, "-c", convert], check=True, capture_output=True)
        for seed in asked.seeds:
            write_conversations(root / f"data-{seed}", seed)
            same = TRAINING | {"model": model, "data": f"data-{seed}", "seed": seed, "iters": asked.iters}
            same |= {"steps_per_eval": asked.iters, "save_every": asked.iters}
            stock = train(same | {"stock": True, "adapter_path": f"adapters/stock-{seed}"})
            ours = train(same | {"fused_loss": True, "adapter_path": f"adapters/ours-{seed}"})
            pairs.append({"seed": seed, "stock": stock["loss"], "ours": ours["loss"], "measures": ours["measures"]})
            print(json.dumps(pairs[-1]), file=sys.stderr)
    differences = [pair["ours"] - pair["stock"] for pair in pairs]
    print(
        json.dumps(
            {
                "benchmark": "held-out loss after training, the measures on against stock",
                "backend": backend,
                "arguments": vars(asked),
                "measures": pairs[0]["measures"],
                "losses": [{key: pair[key] for key in ("seed", "stock", "ours")} for pair in pairs],
                "difference_median": round(statistics.median(differences), 5),
                "difference_min_max": [round(min(differences), 5), round(max(differences), 5)],
                "stock_spread": round(max(p["stock"] for p in pairs) - min(p["stock"] for p in pairs), 5),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
