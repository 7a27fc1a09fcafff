"""Fit the memory formula's coefficients to measured peaks, and say how well an estimate meets them.

    python benchmarks/memory_fit.py fit benchmarks/memory_grid.linux-cpu.json
    python benchmarks/memory_fit.py report benchmarks/memory_grid.linux-cpu.json
    python benchmarks/memory_fit.py summary benchmarks/memory_grid.linux-cpu.json

The fit is Gauss-Newton on log(estimate / measured) of the configurations for building, with coefficients kept positive, drawn
towards ``START`` because shapes of real models are alike, and underestimates weighted 3: those freeze a desk. The report
is JSON on stdout.

``KEPT`` is what a block saves, and drawn to strongly: it was fitted to 31 32-bit configurations (26 of them fitted here too)
measured with ``mx.set_memory_limit(1)``, which keeps MLX from queueing ahead (median error 1.1 %, worst 9 %). The rest of
``START`` is what reading the code and those runs suggest.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcp_server.models.shape import ModelShape, from_headers
from mcp_server.planning.coefficients import Coefficients, coefficients
from mcp_server.planning.memory import estimate
from mcp_server.training.options import TrainingOptions

KEPT = {
    "hidden": 4.5, "query": 4.2, "key": 1.9, "mlp": 4.6, "norm": 1, "expert_hidden": 2.9, "expert_mlp": 4.4, "attention": 1,
    "score_cap": 1.1, "wide": 1, "lora": 1, "rank": 1, "dropout": 1, "dora": 0.93, "dora_weight": 1,
    "boundary": 1.15,
}  # fmt: skip
START = KEPT | {
    "logits": 4.2, "logits32": 0.1, "softcap": 1.2, "fused": 4.4, "fused32": 0.1, "fused_hidden": 3,
    "full": 0.5, "update": 2, "update_ahead": 3, "packed": 1, "dora_ahead": 0.5,
    "gc_loss": 1.3, "gc_loss_expert": 0.7, "recompute": 1.1, "next": 0.5, "next_packed": 1,
    "ahead_mlp": 5, "ahead_hidden": 2, "ahead_attention": 0.2,
    "back_attention": 3, "back_mlp": 9, "back_mlp_held": 3.6, "back_hidden": 5, "back_wide": 1.5,
}  # fmt: skip
PULL, PULL_KEPT = 0.3, 1.0
BUILDING = (
    "fitted",
    "fused_fitted",
    "drawn",
    "drawn_again",
    "drawn_third",
    "drawn_fourth",
    "drawn_fifth",
    "drawn_sixth",
    "drawn_seventh",
    "drawn_16_bit",
    "layers",
)
PARTS = (*BUILDING, "held_out", "later", "fused_held_out", "left_over", "drawn_eighth")
UNDER = 3.0
Point = tuple[dict[str, Any], ModelShape, TrainingOptions]


def load(path: Path) -> list[Point]:
    """The measured configurations with their shapes, read as the server reads a model folder."""
    points: list[Point] = []
    record = json.loads(path.read_text())
    for row in record["configurations"]:
        model = record["models"][f"{row['shape']} {row['type']}"]
        tensors = {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in model["header"].items()}
        points.append((row, from_headers(model["config"], tensors), TrainingOptions.model_validate(row["options"])))
    return points


def errors(points: list[Point], k: Coefficients) -> np.ndarray:
    """estimate / measured - 1, one a configuration."""
    peaks = [estimate(shape, options, row["tokens"], k, row.get("chunk")).peak for row, shape, options in points]
    return np.array(peaks) / np.array([row["peak_bytes"] for row, _, _ in points]) - 1


def fit(points: list[Point], *, compiled: bool) -> Coefficients:
    """The coefficients that meet ``points`` best; ``compiled``: whether mlx compiled their steps."""
    start = np.array(list(START.values()), dtype=float)
    pulls = np.array([PULL_KEPT if name in KEPT else PULL for name in START])

    def made(x: np.ndarray) -> Coefficients:
        return Coefficients(**dict(zip(START, x.tolist(), strict=True)), merges=compiled, error=0, origin="fitted")

    def residuals(x: np.ndarray) -> np.ndarray:
        missed = np.log1p(errors(points, made(x)))
        return np.concatenate(
            [np.where(missed < 0, UNDER * missed, missed), pulls * (x - start) / np.maximum(start, 1)]
        )

    x, damping = start.copy(), 1e-3
    now = residuals(x)
    for _ in range(80):
        slope = np.stack([(residuals(x + 1e-4 * unit) - now) / 1e-4 for unit in np.eye(len(x))], axis=1)
        for _ in range(8):
            step = -np.linalg.solve(slope.T @ slope + damping * np.eye(len(x)), slope.T @ now)
            tried = np.clip(x + step, 0, None)
            then = residuals(tried)
            if then @ then < now @ now:
                damping = max(damping / 3, 1e-7)
                break
            damping *= 3
        else:
            break
        gained = now @ now - then @ then
        x, now = tried, then
        if gained < 1e-9:
            break
    return made(np.round(x, 3))


def summary(points: list[Point], k: Coefficients) -> dict[str, Any]:
    found = errors(points, k)
    return {
        "configurations": len(points),
        "median_error": round(float(np.median(np.abs(found))), 4),
        "worst_error": round(float(np.abs(found).max()), 4),
        "furthest_under": round(float(found.min()), 4),
    }


def report(path: Path) -> dict[str, Any]:
    """How the shipped coefficients meet the measured peaks: by part, of all not built on, of all, and row by row."""
    recorded = json.loads(path.read_text())
    points = load(path)
    k = coefficients(recorded["backend"], compiled=recorded["compiled"])
    groups = {part: [point for point in points if point[0]["part"] == part] for part in PARTS}
    groups["not_built_on"] = [point for point in points if point[0]["part"] not in BUILDING]
    groups["all"] = points
    rows = [
        {
            "name": row["name"],
            "part": row["part"],
            "measured_mb": round(row["peak_bytes"] / 1e6, 1),
            "error": round(float(error), 4),
        }
        for (row, _, _), error in zip(points, errors(points, k), strict=True)
    ]
    return {
        **{name: recorded[name] for name in ("backend", "compiled", "versions", "measured_on")},
        "parts": {part: summary(group, k) for part, group in groups.items() if group},
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("fit", "report", "summary"))
    parser.add_argument("grid", type=Path)
    arguments = parser.parse_args()
    if arguments.command != "fit":
        found = report(arguments.grid)
        if arguments.command == "summary":
            del found["rows"]
        print(json.dumps(found, indent=1))
        return
    points, recorded = load(arguments.grid), json.loads(arguments.grid.read_text())
    parts = {part: [point for point in points if point[0]["part"] == part] for part in PARTS}
    k = fit([point for part in BUILDING for point in parts[part]], compiled=recorded["compiled"])
    found = {part: summary(chosen, k) for part, chosen in parts.items() if chosen}
    print(json.dumps({"coefficients": {name: getattr(k, name) for name in START}} | found))


if __name__ == "__main__":
    main()
