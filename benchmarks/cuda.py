"""What is measured at real size, on every NVIDIA GPU at hand at once, as far as the time goes.

    python benchmarks/cuda.py --output DIR --seconds 540 [--only NAME ...]

Each entry of ``RUNS`` is one file of ``benchmarks/results``; a GPU takes the next one when it is done with the last. The tables
of ``measures.py`` come first, of which all is kept that was measured when the time is over; then the real workers:
``training_overhead.py``, ``planner.py`` and ``exactness.py``. Copy what is good to ``results``, then ``results.py --render``. A
fresh machine compiles CUDA's kernels for about three minutes: each GPU begins with a run for nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALONE = ("cache kept", "fused loss", "command-buffer limits")
WARM_UP = [
    ["measures.py", "--shape", "qwen2.5-0.5b", "--type", kind, "--workload", "fixed", "--steps", "2", "--rounds", "1",
     "--only", "default"]
    for kind in ("4", "16")
]  # fmt: skip


def _tables() -> dict[str, list[str]]:
    """Fixed lengths with grad_checkpoint, then realistic ones; 4-bit steps take ten times as long as 16-bit ones.

    Quantized bases keep their CUDA graphs: without, 12 steps of the 0.5B one were not done in 80 s.
    """
    fixed, real = (*ALONE, "all", "default"), ("length bucketing", *ALONE[:2], "all", "default")
    found: dict[str, list[str]] = {}
    for workload, kind, steps, only in (
        ("fixed", "4", 4, fixed),
        ("fixed", "16", 16, fixed),
        ("real", "4", 40, real),  # enough that shapes come more than once
        ("real", "16", 100, (*real, "no CUDA graphs")),
    ):
        for size in ("3b", "0.5b"):
            words = ["--shape", f"qwen2.5-{size}", "--type", kind, "--workload", workload, "--steps", str(steps)]
            name = f"measures-cuda-{size.replace('.', '')}-{kind}-{workload}-each"
            found[name] = ["measures.py", *words, "--rounds", "2", "--only", *only]
    return found


def _workers() -> dict[str, list[str]]:
    """Jobs through the whole machinery."""
    found: dict[str, list[str]] = {}
    for size in ("3b", "0.5b"):
        for bits, quantized in (("16", []), ("4", ["--bits", "4"])):
            model, place = ["--shape", f"qwen2.5-{size}", *quantized], f"GPU, {size.upper()} in {bits} bits"
            batch = ["--batch-size", "4", "--tokens", "2048", "--iters", "30", "--rounds", "2"]
            found[f"training_overhead@{place}"] = ["training_overhead.py", *model, *batch]
            found[f"training_overhead@{place}, grad_checkpoint"] = [
                "training_overhead.py", *model, *batch, "--grad-checkpoint",
            ]  # fmt: skip
            found[f"planner@{place}"] = ["planner.py", *model, "--steps", "400", "--seconds", "300"]
            pairs = ["--kills", "2", "--max-seq-length", "256", "--pairs", "lora:adam"]
            found[f"exactness@{place}"] = ["exactness.py", *model, "--everything", *pairs]
    return found


RUNS = _tables() | _workers()


class Device:
    """One GPU, on which one script runs at a time until the time is over."""

    def __init__(self, index: str, until: float) -> None:
        self.until = until
        self._environment = os.environ | {"CUDA_VISIBLE_DEVICES": index, "PYTHONPATH": str(ROOT)}

    def run(self, words: list[str], output: Path) -> int | None:
        """Run a script, whose JSON is in ``output`` then; its exit code, None when the time cut it short."""
        command = [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:]]
        writes = words[0] == "measures.py"  # while it measures; the others print when they are done
        command += ["--output", str(output)] if writes else []
        log, printed = output.with_suffix(".log"), output.with_suffix(".out")
        with log.open("w") as errors, printed.open("w") as shown:
            # A group of its own: scripts start processes, which must not outlive the time.
            started = subprocess.Popen(command, env=self._environment, stdout=shown, stderr=errors, process_group=0)
            try:
                code = started.wait(max(0.0, self.until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()
                return None
        if not writes and code == 0:
            text = printed.read_text(encoding="utf-8")
            output.write_text(text[text.index("{") :], encoding="utf-8")  # mlx-lm may say something first
        return code


def deal(
    names: list[str], devices: list[str], output: Path, seconds: float, machine: str = ""
) -> dict[str, int | None]:
    """Run the named entries, one at a time on each device; gives exit codes, None for one that the time cut short."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    until, codes = time.monotonic() + seconds, dict[str, int | None]()

    def work(index: str) -> None:
        device = Device(index, until)
        for number, words in enumerate(WARM_UP):
            device.run(words, output / f"warm-up-{index}-{number}.json")
        while time.monotonic() < until:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            file = output / f"{name}.json"
            codes[name] = device.run(RUNS[name], file)
            if file.exists():
                found = json.loads(file.read_text(encoding="utf-8")) | {"machine": machine}
                file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    threads = [threading.Thread(target=work, args=(index,)) for index in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return codes


def main() -> None:
    """Measure, and say what was done and what was not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--devices", nargs="+", help="default: those that nvidia-smi lists")
    parser.add_argument("--only", nargs="+", choices=RUNS, metavar="NAME", help=f"of {'; '.join(RUNS)}")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    devices = asked.devices or _nvidia("index")
    machine = f"{_nvidia('name')[0]}, {time.strftime('%Y-%m-%d')}, MLX {version('mlx')}"
    names = [name for name in RUNS if not asked.only or name in asked.only]
    codes = deal(names, devices, asked.output, asked.seconds, machine)
    for name in names:
        code = codes.get(name, "not reached")
        print(f"{name}: {'cut short' if code is None else 'done' if code == 0 else code}")


def _nvidia(field: str) -> list[str]:
    """A field of every GPU."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


if __name__ == "__main__":
    main()
