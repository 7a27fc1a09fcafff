"""run_benchmark against stock mlx-lm: test loss, perplexity, and generation speed in alternating pairs of one run.

Loss against ``mlx_lm lora --test`` (base and an adapter), perplexity against ``mlx_lm.perplexity.eval_ppl``, speed against
``mlx_lm.benchmark``, both in fresh processes that take turns. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if sys.platform == "linux":  # on a CPU every fused kernel would cost a call of the C++ compiler, on both sides
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLX_TRAINING_PLATFORMS", "linux-cpu,linux-cuda,apple-silicon")

LOSS_GOAL, PERPLEXITY_GOAL, SPEED_GOAL = 1e-3, 0.01, 0.05


def mlx_lm(*arguments: str) -> str:
    """What stock mlx-lm prints."""
    command = [sys.executable, "-m", "mlx_lm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def report(**options: Any) -> dict[str, Any]:
    """The report of one benchmark job."""
    import anyio

    from mcp_server.evaluation.options import BenchmarkOptions
    from mcp_server.evaluation.start import start_benchmark
    from mcp_server.jobs.wait import wait_for_end

    folder = start_benchmark(BenchmarkOptions.model_validate(options))
    view = anyio.run(wait_for_end, folder, 7200.0)
    outcome = folder.outcome()
    if view.status != "completed" or outcome is None or outcome.result is None:
        raise SystemExit(f"the benchmark {view.status}: {view.why}")
    return outcome.result


def losses(model: str, adapter: str | None) -> dict[str, float]:
    """Both test losses; stock prints three decimals."""
    mine = report(model=model, adapter_path=adapter, data="data", mask_prompt=True, num_prompts=0, speed_trials=0)
    words = ["lora", "--test", "--test-batches", "-1", "--mask-prompt", "--model", model]
    stock = mlx_lm(
        *words, "--data", str(Path(os.environ["CLAUDE_PROJECT_DIR"]) / "data"), "--adapter-path", adapter or ""
    )
    found = re.search(r"Test loss ([\d.]+)", stock)
    assert found is not None, stock
    ours = mine["adapter" if adapter else "base"]["loss"]
    return {"ours": ours, "stock": float(found[1]), "difference": abs(ours - float(found[1]))}


def perplexity(model: str, text: Path) -> dict[str, float]:
    """Perplexity of ``text`` by both, on the same windows."""
    from mlx_lm import load
    from mlx_lm.perplexity import eval_ppl

    from mcp_server.workers import general_text

    network, tokenizer, *_ = load(model)
    data = general_text.windows(text, tokenizer, None)
    sums, counts = general_text.losses(network, data, batch_size=8)
    ours, (stock, _) = math.exp(sums.sum() / counts.sum()), eval_ppl(network, data, batch_size=8)
    return {"ours": ours, "stock": stock, "ratio": ours / stock}


def speed(model: str, prompt: int, generation: int, trials: int) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens per second, ours and stock's, one after the other: medians of ``trials`` trials each."""
    words = ["benchmark", "--model", model, "-p", str(prompt), "-g", str(generation), "-n", str(trials)]
    stock = mlx_lm(*words)
    lines = [line for line in stock.splitlines() if line.startswith("Trial")]
    assert len(lines) == trials, stock
    theirs = {
        name: statistics.median(float(re.findall(rf"{name}_tps=([\d.]+)", line)[0]) for line in lines)
        for name in ("prompt", "generation")
    }
    timing = {"speed_prompt_tokens": prompt, "speed_generation_tokens": generation, "speed_trials": trials}
    found = report(model=model, data="data", num_prompts=0, speed_batch_size=1, **timing)["base"]["speed"]
    if (found["prompt_tokens"], found["generation_tokens"]) != (prompt, generation):
        raise SystemExit(f"the model's context holds only {found}; ask for shorter prompts")
    return {name: found[f"{name}_tokens_per_second"]["median"] for name in theirs}, theirs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="pairs of speed measurements")
    parser.add_argument("--trials", type=int, default=5, help="trials in each measurement")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--generation-tokens", type=int, default=128)
    parser.add_argument("--model", help="measure speed on this model instead of the demo's")
    chosen = parser.parse_args()
    from mcp_server.demo import BASE, task
    from tests.adapters import train_adapter

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ |= {"MLX_TRAINING_HOME": str(root / "home"), "CLAUDE_PROJECT_DIR": str(root)}
        task.write_dataset(root / "data")
        adapter = str(train_adapter(root / "adapter", iters=20))
        text = root / "text.txt"
        text.write_text("\n".join(task.sentence(item, field) for item in task.PRODUCTS for field in task.QUESTIONS))
        found = {"base": losses(str(BASE), None), "adapter": losses(str(BASE), adapter)}
        perplexities = perplexity(str(BASE), text)
        model = chosen.model or str(BASE)
        pairs = [
            speed(model, chosen.prompt_tokens, chosen.generation_tokens, chosen.trials) for _ in range(chosen.pairs)
        ]
    ratios = {name: [mine[name] / theirs[name] for mine, theirs in pairs] for name in ("prompt", "generation")}
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    print(
        json.dumps(
            {
                "benchmark": "run_benchmark against stock mlx-lm",
                "rounds": chosen.pairs,
                "arguments": vars(chosen),
                "test_loss": {name: {key: round(v, 6) for key, v in pair.items()} for name, pair in found.items()},
                "test_loss_within_1e-3": all(pair["difference"] < LOSS_GOAL for pair in found.values()),
                "perplexity": {key: round(value, 6) for key, value in perplexities.items()},
                "perplexity_within_1_percent": abs(perplexities["ratio"] - 1) < PERPLEXITY_GOAL,
                "speed_ratio_median": {name: round(value, 3) for name, value in medians.items()},
                "speed_ratio_min_max": {n: [round(min(v), 3), round(max(v), 3)] for n, v in ratios.items()},
                "generation_within_5_percent": abs(medians["generation"] - 1) < SPEED_GOAL,
                "goal": "loss within 1e-3, perplexity within 1 %, generation speed within 5 %",
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
