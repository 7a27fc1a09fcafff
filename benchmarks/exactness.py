"""Kill, resume, compare: is a continued run bit for bit the uninterrupted one on this machine's back end? Prints JSON.

``--hidden`` and the like choose a random model's size; ``MLX_DISABLE_COMPILE`` decides as always whether mlx compiles.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLX_TRAINING_PLATFORMS", "linux-cpu,linux-cuda,apple-silicon")

from mcp_server.demo import task
from mcp_server.platform import facts
from tests.exactness import finish, losses, options, run, run_with_kills, weights
from tests.tiny import make_tiny_model


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--iters", type=int, default=24)
    parser.add_argument("--bits", type=int, help="quantize the base")
    parser.add_argument("--pairs", nargs="*", default=["lora:adam", "dora:adamw", "full:muon", "lora:adafactor"])
    chosen = parser.parse_args()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ |= {"MLX_TRAINING_HOME": str(root / "home"), "CLAUDE_PROJECT_DIR": str(root)}
        task.write_dataset(root / "data")
        make_tiny_model(root / "model", hidden=chosen.hidden, layers=chosen.layers, quantize_bits=chosen.bits)
        for pair in chosen.pairs:
            kind, optimizer = pair.split(":")
            arguments = options(kind, optimizer, iters=chosen.iters)
            whole = run(**arguments, adapter_path=f"adapters/{kind}-{optimizer}-whole")
            status = finish(whole, 300)
            if status != "completed":
                raise SystemExit(f"{pair}: {status}: {whole.state().why}")
            resumed, hits, resumes = run_with_kills(arguments, f"{kind}-{optimizer}-killed", chosen.kills, seed=1)
            pairs = zip(losses(resumed), losses(whole), strict=True)
            results[pair] = {
                "kills": hits,
                "resumes": resumes,
                "largest_loss_difference": max(abs(a[2] - b[2]) for a, b in pairs),
                "weights_equal": weights(resumed) == weights(whole),
            }
    backend, _ = facts.backend(facts.collect())
    print(json.dumps({"benchmark": "exact resume", "backend": backend, "arguments": vars(chosen), **results}, indent=1))


if __name__ == "__main__":
    main()
