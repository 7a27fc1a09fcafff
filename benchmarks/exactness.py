"""Kill, resume, compare: is a continued run bit for bit the uninterrupted one on this machine's back end? Prints JSON.

``--hidden`` and the like choose a random model's size; ``MLX_DISABLE_COMPILE`` decides as always whether mlx compiles.
``--everything`` switches on what is off by default: the fused loss, clipping of gradients, skipping of non-finite steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLX_TRAINING_PLATFORMS", "linux-cpu,linux-cuda,apple-silicon")

from benchmarks.measures import SHAPES, config_of
from mcp_server.demo import task
from mcp_server.jobs.store import JobFolder
from mcp_server.platform import facts
from tests.exactness import finish, losses, options, run, run_with_kills, weights
from tests.tiny import make_tiny_model

SECONDS = 300.0  # the longest that one run may take


def measures_of(job: JobFolder) -> dict[str, str]:
    """What the run had on beyond stock, and why."""
    outcome = job.outcome()
    assert outcome is not None
    assert outcome.result is not None
    return outcome.result["measures"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--iters", type=int, default=24)
    parser.add_argument("--bits", type=int, help="quantize the base")
    parser.add_argument("--shape", choices=SHAPES, help="instead of --hidden and --layers, in 16 bits")
    parser.add_argument("--max-seq-length", type=int, default=64)
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--pairs", nargs="*", default=["lora:adam", "dora:adamw", "full:muon", "lora:adafactor"])
    chosen = parser.parse_args()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ |= {"MLX_TRAINING_HOME": str(root / "home"), "CLAUDE_PROJECT_DIR": str(root)}
        task.write_dataset(root / "data")
        size: dict[str, Any] = {"hidden": chosen.hidden, "layers": chosen.layers}
        if chosen.shape:
            size = {"shape": config_of(chosen.shape), "dtype": "bfloat16"}
        make_tiny_model(root / "model", quantize_bits=chosen.bits, **size)
        more: dict[str, Any] = {"iters": chosen.iters, "max_seq_length": chosen.max_seq_length}
        if chosen.everything:
            more |= {"fused_loss": True, "max_grad_norm": 0.5, "skip_nonfinite": True}
        for pair in chosen.pairs:
            kind, optimizer = pair.split(":")
            arguments = options(kind, optimizer, **more)
            whole = run(**arguments, adapter_path=f"adapters/{kind}-{optimizer}-whole")
            status = finish(whole, SECONDS)
            if status != "completed":
                raise SystemExit(f"{pair}: {status}: {whole.state().why}")
            resumed, hits, resumes = run_with_kills(
                arguments, f"{kind}-{optimizer}-killed", chosen.kills, seed=1, seconds=SECONDS
            )
            pairs = zip(losses(resumed), losses(whole), strict=True)
            results[pair] = {
                "kills": hits,
                "resumes": resumes,
                "largest_loss_difference": max(abs(a[2] - b[2]) for a, b in pairs),
                "weights_equal": weights(resumed) == weights(whole),
                "measures": measures_of(resumed),
            }
    backend, _ = facts.backend(facts.collect())
    print(json.dumps({"benchmark": "exact resume", "backend": backend, "arguments": vars(chosen), **results}, indent=1))


if __name__ == "__main__":
    main()
