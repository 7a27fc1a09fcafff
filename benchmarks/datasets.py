"""``inspect_dataset`` on a million rows: peak memory, and time against a plain ``json.loads`` loop over the same file.

    python benchmarks/datasets.py [--rows 1000000] [--prepare]

Writes its figures as JSON to standard output. Each part runs in a fresh process, so that its peak is its own; the loop runs
before and after, since other programs share the machine. The rows are chats of 20 to 90 words: 2 % repeat an earlier one, 3 %
differ from an earlier one by a word, valid and test hold 1 % of each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcp_server.datasets.findings import Collector
from mcp_server.datasets.inspect import inspect_dataset
from mcp_server.datasets.preparation import PrepareRequest
from mcp_server.datasets.prepare import prepare_dataset
from mcp_server.datasets.report import InspectRequest
from mcp_server.datasets.scan import scan_file
from mcp_server.datasets.watch import Watch


def write_rows(folder: Path, rows: int) -> None:
    """A data set of ``rows`` in all, the same every time."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucm", k=rng.randint(2, 10))) for _ in range(20_000)]
    kept: list[tuple[str, str]] = []
    for name, share in (("train", 0.98), ("valid", 0.01), ("test", 0.01)):
        with (folder / f"{name}.jsonl").open("w") as out:
            for _ in range(round(rows * share)):
                kind = rng.random()
                if kind < 0.05 and kept:
                    question, answer = rng.choice(kept)
                    if kind >= 0.02:
                        changed = answer.split()
                        changed[rng.randrange(len(changed))] = rng.choice(words)
                        answer = " ".join(changed)
                else:
                    question = " ".join(rng.choices(words, k=rng.randint(8, 30)))
                    answer = " ".join(rng.choices(words, k=rng.randint(12, 60)))
                    if len(kept) < 50_000:
                        kept.append((question, answer))
                turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                out.write(json.dumps({"messages": turns}) + "\n")


def loop(folder: Path) -> dict[str, Any]:
    """The floor: every line parsed and thrown away."""
    count = 0
    for file in sorted(folder.glob("*.jsonl")):
        with file.open() as lines:
            for line in lines:
                json.loads(line)
                count += 1
    return {"rows": count}


def scan(folder: Path) -> dict[str, Any]:
    """The checks that start_lora_training makes."""
    findings = Collector()
    return {"rows": sum(scan_file(file, findings).lines for file in sorted(folder.glob("*.jsonl")))}


def exact(folder: Path) -> dict[str, Any]:
    """Without near-duplicates."""
    report = inspect_dataset(InspectRequest(data=str(folder), near_duplicates=False), Watch())
    return {"duplicates": report.duplicates.model_dump(exclude_none=True)}


def whole(folder: Path) -> dict[str, Any]:
    """Everything that needs no tokenizer."""
    report = inspect_dataset(InspectRequest(data=str(folder)), Watch())
    return {"duplicates": report.duplicates.model_dump(exclude_none=True)}


def prepare(folder: Path) -> dict[str, Any]:
    """The same rows read, deduplicated and split anew."""
    request = PrepareRequest(source=str(folder), output=str(folder.parent / "prepared"), resplit=True)
    report = prepare_dataset(request, Watch())
    return {"rows": report.rows, "dropped": report.dropped_rows, "near_groups": report.near_groups}


def _timed(part: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    started, cpu = time.perf_counter(), time.process_time()
    result = part(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mb": round(peak / 1e6, 1),
        **result,
    }


def measure(part: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Time and peak memory of ``part`` in a process of its own (spawned: a forked one would start with our memory)."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(_timed, part, folder).result()
    print(part.__name__, result, file=sys.stderr)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--prepare", action="store_true", help="measure prepare_dataset too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        folder.mkdir()
        write_rows(folder, chosen.rows)
        parts = [loop, scan, exact, whole, *([prepare] if chosen.prepare else [])]
        figures = {part.__name__: measure(part, folder) for part in parts}
        again = measure(loop, folder)
        size = sum(file.stat().st_size for file in folder.glob("*.jsonl"))
    floor = min(figures["loop"]["cpu_seconds"], again["cpu_seconds"])
    ratios = {name: round(figure["cpu_seconds"] / floor, 2) for name, figure in figures.items()}
    total = figures["whole"]["cpu_seconds"]
    near_share = (total - figures["exact"]["cpu_seconds"]) / total
    json.dump(
        {
            "rows": chosen.rows,
            "megabytes": round(size / 1e6, 1),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "python": platform.python_version(),
            "parts": figures | {"loop_again": again},
            "cpu_time_as_multiple_of_json_loads": ratios,
            "near_duplicates_share_of_inspection": round(near_share, 3),
        },
        sys.stdout,
        indent=1,
    )
    print()


if __name__ == "__main__":
    main()
