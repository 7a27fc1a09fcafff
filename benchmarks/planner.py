"""Probe against real run: memory and time of whole trainings that a plan with a probe foretold. JSON on stdout.

    python benchmarks/planner.py [--case 0] [--steps 120]

Each case makes a random model and a data set of rows of mixed lengths in a folder of its own, asks ``plan_training`` with
probe=true, starts the training with the plan's own arguments (only the number of steps is set, for both), and compares. The
cases' steps are chosen so that each trains for more than half a minute on two cores. One that fails or takes more than
``--seconds`` is named with its reason, and the others go on.
On a Linux CPU, LD_PRELOAD of an OpenBLAS makes the steps up to 80 times faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measures import SHAPES, config_of  # noqa: E402
from mcp_server.jobs import service, store  # noqa: E402
from mcp_server.planning import plan as planning  # noqa: E402
from mcp_server.planning.measured import PlanTraining, make_plan  # noqa: E402
from mcp_server.planning.probe import ProbeResult, total_seconds  # noqa: E402
from mcp_server.training.options import TrainingOptions  # noqa: E402
from mcp_server.training.request import TrainingRequest  # noqa: E402
from mcp_server.training.start import start_training  # noqa: E402
from tests.tiny import make_tiny_model  # noqa: E402

# model type, hidden size, layers, vocabulary, rows, longest row in words, goal, steps
CASES = (
    ("qwen2", 256, 4, None, 120, 60, "good", 250),
    ("qwen2", 256, 4, 8000, 1200, 40, "fast", 250),
    ("llama", 384, 6, None, 1200, 30, "best", 80),
    ("gemma2", 256, 4, 4000, 120, 50, "best", 250),
    ("mixtral", 192, 4, None, 120, 60, "good", 250),
    ("phi3", 256, 6, None, 1500, 40, "good", 120),
)


def write_rows(folder: Path, count: int, longest: int) -> None:
    """Chat rows whose lengths are spread as real ones are: many short, few long."""
    folder.mkdir(parents=True)
    draw = random.Random(0)
    for name, rows in (("train", count), ("valid", 20)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for _ in range(rows):
                words = max(2, round(longest * draw.betavariate(1.5, 4)))
                messages = [
                    {"role": "user", "content": "lamp price " * words},
                    {"role": "assistant", "content": "The lamp costs 42."},
                ]
                file.write(json.dumps({"messages": messages}) + "\n")


def name_of(case: tuple[Any, ...]) -> str:
    kind, hidden, layers, _, rows, _, goal, _ = case
    return f"{kind} h{hidden} L{layers}, {rows} rows, {goal}"


async def run_case(
    case: tuple[Any, ...], steps: int, seconds: float, scratch: Path, shape: str | None = None, bits: int | None = None
) -> dict[str, Any]:
    """Probe, run, compare. Raises RuntimeError when either gives no figures within ``seconds``."""
    deadline = time.monotonic() + seconds
    kind, hidden, layers, vocabulary, rows, longest, goal, _ = case
    size: dict[str, Any] = {"model_type": kind, "hidden": hidden, "layers": layers, "vocab": vocabulary}
    if shape is not None:
        size = {"shape": config_of(shape), "dtype": "bfloat16"}
    model = make_tiny_model(scratch / "model", quantize_bits=bits, **size)
    write_rows(scratch / "data", rows, longest)
    request = PlanTraining(model=str(model), data=str(scratch / "data"), goal=goal, probe=True, wait_seconds=seconds)
    plan = await make_plan(request)
    if plan.arguments is None or plan.probe is None:
        raise RuntimeError(f"the probe gave no word: {plan.warnings}")
    probe: ProbeResult = plan.probe
    changes = {"iters": steps, "steps_per_eval": max(steps // 4, 1), "adapter_path": str(scratch / "adapter")}
    options = TrainingOptions.model_validate(plan.arguments | changes)
    foretold = total_seconds(options, probe.seconds_per_step, probe.load_seconds, probe.validation_seconds)
    guess = planning.finish(
        planning.draft(planning.PlanRequest(model=str(model), data=str(scratch / "data"), goal=goal))
    )
    started = start_training(TrainingRequest.model_validate(plan.arguments | changes))
    folder = store.get(started.job_id)
    while not (state := service.reconcile(folder)).finished:
        if time.monotonic() > deadline:
            service.ask_to_stop(folder, "kill")
            raise RuntimeError(f"not done within {seconds:.0f} s")
        await anyio.sleep(0.2)
    if state.status != "completed":
        raise RuntimeError(f"the training {state.status}: {state.why}")
    events = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    peak = max(event["peak_bytes"] for event in events if event["type"] == "memory")
    reports = [event for event in events if event["type"] == "train"]
    spent = sum(plan.arguments["steps_per_report"] / event["iterations_per_second"] for event in reports[1:])
    step = spent / (len(reports[1:]) * plan.arguments["steps_per_report"])
    took = (state.ended or 0) - (state.started or 0)
    what = f"{shape or name_of(case)}{f', {bits}-bit' if bits else ''}"
    return {
        "case": f"{what}, batch {options.batch_size}, up to {options.max_seq_length} tokens",
        "status": state.status,
        "steps": steps,
        "peak_mb": {
            "estimate": round(1e3 * guess.memory.peak_gb, 1),
            "probe": round(probe.peak_bytes / 1e6, 1),
            "run": round(peak / 1e6, 1),
        },
        "probe_memory_error": round(probe.peak_bytes / peak - 1, 4),
        "seconds_per_step": {"probe": probe.seconds_per_step, "run": round(step, 4)},
        "step_time_error": round(probe.seconds_per_step / step - 1, 4),
        "seconds_in_all": {"foretold": round(foretold, 1), "run": round(took, 1)},
        "seconds_before_steps": {
            "probe": probe.load_seconds,
            "one validation": probe.validation_seconds,
            "run, with the first steps": round(reports[0]["time"] - (state.started or 0), 1),
        },
        "total_time_error": round(foretold / took - 1, 4),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="of each run, instead of the case's own")
    parser.add_argument("--seconds", type=float, default=300, help="longest time of one case (default 300)")
    parser.add_argument("--case", type=int, help="one case alone, by its number")
    parser.add_argument(
        "--shape", choices=SHAPES, help="one case alone: 16-bit weights of this shape, rows up to 512 words"
    )
    parser.add_argument("--bits", type=int, help="with --shape: quantize the base")
    arguments = parser.parse_args()
    os.environ.setdefault("MLX_TRAINING_PLATFORMS", "linux-cpu,linux-cuda,apple-silicon")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    found: list[dict[str, Any]] = []
    asked = vars(arguments).copy()
    cases = CASES if arguments.shape is None else (("qwen2", 0, 0, None, 1200, 512, "good", 150),)
    for number, case in enumerate(cases):
        if arguments.case is not None and number != arguments.case:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["MLX_TRAINING_HOME"] = str(Path(scratch) / "home")
            os.environ["CLAUDE_PROJECT_DIR"] = scratch
            steps = arguments.steps or case[-1]
            try:
                sizes = (arguments.shape, arguments.bits)
                found.append(anyio.run(run_case, case, steps, arguments.seconds, Path(scratch), *sizes))
            except Exception as error:  # whatever it is, the other cases have their say
                found.append({"case": name_of(case), "steps": steps, "failed": f"{type(error).__name__}: {error}"})
        print(json.dumps(found[-1]), file=sys.stderr)
    compiled = os.environ.get("MLX_DISABLE_COMPILE") is None
    print(
        json.dumps(
            {
                "machine": platform.platform(),
                "date": time.strftime("%Y-%m-%d"),
                "arguments": asked,
                "compiled": compiled,
                "cases": found,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
