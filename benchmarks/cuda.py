"""The table of ``measures.py`` at real size, on every NVIDIA GPU at hand at once, as far as the time goes.

    python benchmarks/cuda.py --output DIR --seconds 540 [--only NAME ...]

Each entry of ``RUNS`` is one file of ``benchmarks/results``; a GPU takes the next one when it is done with the last. What was
measured when the time is over is kept: ``measures.py`` writes after every process. Copy what is good to ``results``, then
``results.py --render``. On a fresh machine the first process of each kind takes a minute or two more: CUDA kernels are compiled.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALONE = ("cache kept", "fused loss", "command-buffer limits")


def _runs() -> dict[str, list[str]]:
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
        for shape in ("qwen2.5-3b", "qwen2.5-0.5b"):
            words = ["--shape", shape, "--type", kind, "--workload", workload, "--steps", str(steps)]
            size = shape.removeprefix("qwen2.5-").replace(".", "")
            found[f"measures-cuda-{size}-{kind}-{workload}-each"] = [*words, "--rounds", "2", "--only", *only]
    return found


RUNS = _runs()


def deal(names: list[str], devices: list[str], output: Path, seconds: float) -> dict[str, int | None]:
    """Run the named entries, one at a time on each device; gives exit codes, None for one that the time cut short."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    until, codes = time.monotonic() + seconds, dict[str, int | None]()

    def work(device: str) -> None:
        while time.monotonic() < until:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                return
            command = [sys.executable, str(ROOT / "benchmarks" / "measures.py"), *RUNS[name]]
            command += ["--output", str(output / f"{name}.json")]
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": device, "PYTHONPATH": str(ROOT)}
            with (output / f"{name}.log").open("w") as log:
                # A group of its own: measures.py starts a process for each configuration, which must not outlive the time.
                started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, process_group=0)
                try:
                    codes[name] = started.wait(until - time.monotonic())
                except subprocess.TimeoutExpired:
                    os.killpg(started.pid, signal.SIGKILL)
                    started.wait()
                    codes[name] = None

    threads = [threading.Thread(target=work, args=(device,)) for device in devices]
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
    parser.add_argument("--only", nargs="+", choices=RUNS, metavar="NAME", help=f"of {', '.join(RUNS)}")
    asked = parser.parse_args()
    listed = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    devices = asked.devices or subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    asked.output.mkdir(parents=True, exist_ok=True)
    names = [name for name in RUNS if not asked.only or name in asked.only]
    codes = deal(names, devices, asked.output, asked.seconds)
    for name in names:
        code = codes.get(name, "not reached")
        print(f"{name}: {'cut short' if code is None else 'done' if code == 0 else code}")


if __name__ == "__main__":
    main()
