"""Training beside its peers: stock mlx_lm.lora, mlx-lm-lora, mlx-tune and ours, on one model, data set, seed and number of steps.

    python benchmarks/peers.py [--rounds 5] [--epoch 16]

Each peer comes from the package index into an environment of its own (environments.py); one that can't be installed or does
not run here is named with its error. Everything runs in a fresh process, in turn, round after round. Each trains two epochs of
the same rows, and what counts is the time of the second, from report to report by one clock: no starting, tracing or
saving. Speed is useful tokens (padding left out) a second; the peak is ``mx.get_peak_memory`` of the training
process. Rows are of mixed lengths (log-normal), as chat data are. Ratios are against stock. mlx-lm-lora draws a batch anew
for every step instead of going through epochs: its second half is as many batches, not quite the same rows. mlx-tune always
trains with AdamW and a cosine schedule, the others with Adam at a constant rate: a difference in the optimizer's arithmetic
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import environments  # noqa: E402
from mcp_server.platform import facts  # noqa: E402

BATCH = 4
PEAK = "print('PEAK', mx.get_peak_memory(), flush=True)"
CLOCK = """
import time
from mlx_lm import cli_ui
cli_ui.TrainUI.report_train = lambda _, it, *__: print("AT", it, time.time(), flush=True)
"""
STOCK = f"""{CLOCK}
import json, sys, types
import mlx.core as mx
from mlx_lm import lora
lora.run(types.SimpleNamespace(**json.load(open(sys.argv[1]))))
{PEAK}
"""
LORA = f"""
import json, sys, time
import mlx.core as mx
from tqdm import tqdm
def write(text, *_, **__):
    if "tok/s" in text:
        print("AT", text.split()[1].rstrip(":"), time.time(), flush=True)
tqdm.write = write
from mlx_lm_lora import train
options = json.load(open(sys.argv[1]))
sys.argv = ["train", "--model", options["model"], "--train", "--data", options["data"], "--train-mode", "sft",
    "--train-type", "lora", "--optimizer", "adam", "--num-layers", str(options["num_layers"]),
    "--batch-size", str(options["batch_size"]), "--iters", str(options["iters"]), "--val-batches", "1",
    "--learning-rate", str(options["learning_rate"]), "--steps-per-report", str(options["steps_per_report"]),
    "--steps-per-eval", "100000",
    "--save-every", "100000", "--adapter-path", options["adapter_path"], "--seed", str(options["seed"]),
    "--max-seq-length", str(options["max_seq_length"])]
train.main()
{PEAK}
"""
TUNE = f"""{CLOCK}
import json, sys
import mlx.core as mx
from mlx_tune import FastLanguageModel, SFTConfig, SFTTrainer
options = json.load(open(sys.argv[1]))
rows = [json.loads(line) for line in open(options["data"] + "/train.jsonl")]
model, tokenizer = FastLanguageModel.from_pretrained(options["model"], max_seq_length=options["max_seq_length"],
    load_in_4bit=False)
model = FastLanguageModel.get_peft_model(model, r=8, lora_alpha=160, lora_dropout=0)
SFTTrainer(model=model, tokenizer=tokenizer, train_dataset=rows, args=SFTConfig(output_dir=options["adapter_path"],
    per_device_train_batch_size=options["batch_size"], max_steps=options["iters"], save_steps=100000,
    logging_steps=options["steps_per_report"], learning_rate=options["learning_rate"], dataset_text_field="text", val_batches=0,
    max_seq_length=options["max_seq_length"])).train()
{PEAK}
"""


def version(package: str, python: Path) -> str:
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    return subprocess.run([python, "-c", code, package], capture_output=True, text=True, check=True).stdout.strip()


def run_script(python: Path | str, script: str, options: dict[str, Any], scratch: Path) -> tuple[float, int]:
    """Seconds of the second epoch and peak bytes. Raises RuntimeError with the last words of a training that fails."""
    file = scratch / "options.json"
    file.write_text(json.dumps(options), encoding="utf-8")
    done = subprocess.run(
        [str(python), "-c", script, str(file)], cwd=scratch, capture_output=True, text=True, check=False, timeout=1800
    )
    found = done.stdout.rpartition("PEAK ")[2].split()
    if done.returncode != 0 or not found or not found[0].isdigit():
        raise RuntimeError((done.stderr or done.stdout).strip()[-400:])
    reports = [line.split() for line in done.stdout.splitlines() if line.startswith("AT ")]
    return _second_epoch({int(step): float(at) for _, step, at in reports}, options), int(found[0])


def run_ours(options: dict[str, Any], stock: bool) -> tuple[float, int]:
    """The same of a job of ours."""
    import anyio

    from mcp_server.jobs import service, store
    from mcp_server.jobs.wait import wait_for_end
    from mcp_server.training.request import TrainingRequest
    from mcp_server.training.start import start_training

    asked = {name: options[name] for name in OURS}
    started = start_training(TrainingRequest.model_validate(asked | {"stock": stock, "val_batches": 0}))
    folder = store.get(started.job_id)
    anyio.run(wait_for_end, folder, 1800.0)
    outcome = folder.outcome()
    if outcome is None or outcome.status != "completed" or outcome.result is None:
        raise RuntimeError(str(service.reconcile(folder).why))
    events = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    reports = {event["step"]: event["time"] for event in events if event["type"] == "train"}
    return _second_epoch(reports, options), max(event["peak_bytes"] for event in events if event["type"] == "memory")


def _second_epoch(reports: dict[int, float], options: dict[str, Any]) -> float:
    """Seconds between the reports of the first epoch's last step and the second's; ``reports``: step → time."""
    first, second = options["iters"] // 2, options["iters"]
    if not {first, second} <= reports.keys():
        raise RuntimeError(f"no report of steps {first} and {second}, only of {sorted(reports)}")
    return reports[second] - reports[first]


OURS = (
    "model", "data", "adapter_path", "num_layers", "iters", "batch_size", "learning_rate", "max_seq_length", "seed",
    "steps_per_report", "save_every",
)  # fmt: skip


def write_rows(folder: Path, longest: int, rows: int) -> None:
    """Rows of log-normal length, median a fifth of the window."""
    draw = random.Random(0)
    folder.mkdir()
    for name, count in (("train", rows), ("valid", 8)):
        lengths = [min(longest - 8, max(8, round(draw.lognormvariate(0, 0.8) * longest / 5))) for _ in range(count)]
        text = "".join(json.dumps({"text": "lamp " * length}) + "\n" for length in lengths)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epoch", type=int, default=16, help="steps of an epoch")
    parser.add_argument("--seconds", type=float, default=1200, help="no round is begun that would end later than this")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=8000)
    parser.add_argument("--window", type=int, default=256, help="max_seq_length")
    chosen = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("MLX_TRAINING_PLATFORMS", "linux-cpu,linux-cuda,apple-silicon")
    if sys.platform == "linux":  # on a CPU every fused kernel would cost a call of the C++ compiler, for all alike
        os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ |= {"MLX_TRAINING_HOME": str(scratch / "home"), "CLAUDE_PROJECT_DIR": str(scratch)}
        from tests.tiny import make_tiny_model

        model = make_tiny_model(scratch / "model", hidden=chosen.hidden, layers=chosen.layers, vocab=chosen.vocab)
        write_rows(scratch / "data", chosen.window, chosen.epoch * BATCH)
        print(json.dumps(measure(chosen, scratch, model), indent=1))


def measure(chosen: argparse.Namespace, scratch: Path, model: Path) -> dict[str, Any]:
    """Every contender in turn, round after round."""
    failed: dict[str, str] = {}
    pythons: dict[str, Path] = {}
    scripts = dict(zip(environments.TRAINERS, (LORA, TUNE), strict=True))
    for package in scripts:
        try:
            pythons[package] = environments.trainer(package)
        except environments.UnavailableError as error:
            failed[package] = f"not installed: {error}"
    found: dict[str, list[tuple[float, int]]] = {}
    names = ["mlx_lm.lora", *pythons, "mlx-training", "mlx-training stock=true"]
    began = time.monotonic()
    for turn in range(chosen.rounds):
        if turn and (time.monotonic() - began) * (turn + 1) / turn > chosen.seconds:
            break
        for contender in names:
            if contender in failed:
                continue
            try:
                seconds, peak = _one(contender, turn, chosen, scratch, model, pythons, scripts)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed[contender] = str(error)
                continue
            found.setdefault(contender, []).append((seconds, peak))
            print(contender, round(seconds, 3), peak, file=sys.stderr)
    stock = found["mlx_lm.lora"]
    return {
        "benchmark": "training beside its peers, in turn; ratios against stock mlx_lm.lora",
        "machine": platform.platform(),
        "backend": facts.backend(facts.collect())[0],
        "arguments": vars(chosen),
        "rounds": len(stock),
        "versions": {package: version(package, python) for package, python in pythons.items()},
        "contenders": {contender: _ratios(runs, stock) for contender, runs in found.items()},
        "do_not_run_here": failed,
    }


def _one(
    contender: str,
    turn: int,
    chosen: argparse.Namespace,
    scratch: Path,
    model: Path,
    pythons: dict[str, Path],
    scripts: dict[str, str],
) -> tuple[float, int]:
    options = {
        "model": str(model), "data": str(scratch / "data"), "num_layers": chosen.layers, "learning_rate": 1e-4, "seed": 0,
        "iters": 2 * chosen.epoch, "batch_size": BATCH, "max_seq_length": chosen.window,
        "steps_per_report": chosen.epoch, "save_every": 100_000,
        "adapter_path": str(scratch / "adapters" / f"{contender.replace(' ', '-')}-{turn}"),
    }  # fmt: skip
    if contender.startswith("mlx-training"):
        return run_ours(options, stock="stock" in contender)
    if contender == "mlx_lm.lora":
        from mlx_lm.lora import CONFIG_DEFAULTS

        stock = CONFIG_DEFAULTS | options | {"train": True, "val_batches": 1, "steps_per_eval": 100_000, "config": None}
        return run_script(sys.executable, STOCK, stock, scratch)
    return run_script(pythons[contender], scripts[contender], options, scratch)


def _ratios(runs: list[tuple[float, int]], stock: list[tuple[float, int]]) -> dict[str, Any]:
    speeds = [theirs[0] / mine[0] for mine, theirs in zip(runs, stock, strict=False)]
    peaks = [mine[1] / theirs[1] for mine, theirs in zip(runs, stock, strict=False)]
    return {
        "speed": round(statistics.median(speeds), 3),
        "speed_min_max": [round(min(speeds), 3), round(max(speeds), 3)],
        "peak_memory": round(statistics.median(peaks), 3),
        "peak_memory_min_max": [round(min(peaks), 3), round(max(peaks), 3)],
        "rounds": len(runs),
    }


if __name__ == "__main__":
    main()
