"""Every measurement in one command, and RESULTS.md from what they gave.

    python benchmarks/results.py [--only NAME ...] [--render]

Each entry of ``MEASUREMENTS`` (measurements.py) runs a script in a fresh process and keeps its JSON in ``benchmarks/results``;
RESULTS.md is made from those files alone (rows.py), so that no figure gets in by hand. One that fails or takes too long leaves
its earlier JSON as it was, and the others go on. What a script says while it works is in a log beside the environments
(environments.py). ``--render`` measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import environments, rows  # noqa: E402
from benchmarks.measurements import MEASUREMENTS, Measurement  # noqa: E402
from mcp_server.platform import facts  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "RESULTS.md"
MARK = "MLX_BENCHMARK_RUN"
"""In the environment of everything that a measurement starts, so that nothing of it outlives the measurement."""


class NoResultError(Exception):
    """A measurement gave no figures."""


def measure(name: str, entry: Measurement, results: Path, logs: Path) -> float:
    """Run one measurement and keep its JSON; gives its seconds. Raises NoResultError."""
    began, before = time.monotonic(), os.getloadavg()[0]
    log = logs / f"{name}.log"
    found = _run(entry, log)
    seconds = time.monotonic() - began
    found["taken"] = {
        "command": entry.command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {package: metadata.version(package) for package in ("mlx", "mlx-lm")},
        "load_before": round(before, 1),
        "load_average": round(os.getloadavg()[0], 1),
        "seconds": round(seconds),
    }
    results.mkdir(exist_ok=True)
    part = results / f"{name}.json.part"
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(results / f"{name}.json")
    return seconds


def _run(entry: Measurement, log: Path) -> dict[str, Any]:
    """The JSON that the script gives, on its standard output or in the file that it is told to write."""
    run = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch:
        output = Path(scratch) / "output.json"
        command = [sys.executable, *(part.replace("{output}", str(output)) for part in entry.command)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": scratch, MARK: run}
        try:
            with log.open("w", encoding="utf-8") as words:
                done = subprocess.run(
                    command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=words, timeout=entry.limit
                )
            text = output.read_text(encoding="utf-8") if output.exists() else done.stdout.decode()
            return json.loads(text[text.index("{") :])
        except subprocess.TimeoutExpired as error:
            raise NoResultError(f"not done within {entry.limit:.0f} s; its words are in {log}") from error
        except ValueError as error:
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise NoResultError(f"{last[:200]} (all of it in {log})") from error
        finally:
            _end(run)


def _end(run: str) -> None:
    """Kill what a measurement left behind: jobs outlive the process that started them."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == run:
                process.kill()
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's


def machine() -> str:
    """What this machine is, in words."""
    known = facts.collect()
    system = f"macOS {known['macos']}" if known["system"] == "Darwin" else str(known["system"])
    memory = known["memory_bytes"]
    size = f", {memory / 2**30:.0f} GiB" if isinstance(memory, int) else ""
    return f"{system} {known['machine']}, {known.get('chip')}, {os.cpu_count()} CPUs{size}, Python {platform.python_version()}"


def _table(chosen: list[rows.Row]) -> list[str]:
    marks = {True: "✓", False: "**✗ missed**", None: ""}
    lines = ["", "| what | figure | goal | met |", "| --- | --- | --- | --- |"]
    return lines + [_line(*row[:3], marks[row.met]) for row in chosen]


def _line(*cells: str) -> str:
    """A row of a table: a script's error may hold what would break it."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _taken(found: dict[str, Any]) -> list[str]:
    """When, where and under which load a file's figures were taken, as far as it says so."""
    taken = found.get("taken", {})
    words = [str(taken[key]) for key in ("date", "machine") if key in taken]
    words += [f"{package} {version}" for package, version in taken.get("versions", {}).items()]
    if "load_average" in taken:
        loads = [str(taken[key]) for key in ("load_before", "load_average") if key in taken]
        words.append("load " + " → ".join(loads))
    return words + ([f"{taken['seconds']} s"] if "seconds" in taken else [])


def _command(script: str, arguments: dict[str, Any]) -> str:
    """The command that a script took down as its own ``arguments``, by their names."""
    words = [script]
    for name, value in arguments.items():
        if value is None or value is False:
            continue
        given = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, given)]
    return shlex.join(words)


def _footer(entry: Measurement, found: dict[str, Any]) -> str:
    """How a section's figures came about."""
    taken = found.get("taken", {}).get("command")
    command = shlex.join(taken) if taken else _command(entry.command[0], found.get("arguments", {}))
    count = found.get("rounds")
    words: list[str] = [found["machine"]] if "taken" not in found and "machine" in found else []
    words += [] if count is None else [f"median of {count} rounds" if count > 1 else "1 round"]
    return f"`{command}` — {', '.join(words + _taken(found))}"


def _sections(results: Path) -> Iterable[tuple[str, list[rows.Row], str]]:
    """Title, rows and footer of every kept file: MEASUREMENTS in the order of its entries, then those of measures.py.

    ``NAME@PLACE.json`` is what the script of the entry ``NAME`` gave on another machine, which ``make bench`` leaves alone.
    """
    for name, entry in MEASUREMENTS.items():
        if not entry.section:
            continue
        for file in (results / f"{name}.json", *sorted(results.glob(f"{name}@*.json"))):
            if file.exists():
                found = json.loads(file.read_text(encoding="utf-8"))
                where = f", on {file.stem.partition('@')[2]}" if "@" in file.stem else ""
                yield entry.title + where, list(entry.rows(found)), _footer(entry, found)
    for file in sorted(results.glob("measures-*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        asked = found["arguments"]
        size = f"{asked['shape']}, {asked['type']}-bit, {asked['batch']} × {asked['tokens']:,} tokens, {asked['steps']} steps"
        words = [found["machine"]] if "machine" in found else []
        title = f"Against stock on {found['backend']}: {size} (`{file.stem}`)"
        figures = "Figure: useful tokens/s against stock; peak memory against stock."
        command = _command("benchmarks/measures.py", asked)
        yield title, list(rows.measures(found)), f"{figures} `{command}` — {', '.join(words + _taken(found))}"


def render(results: Path = RESULTS) -> str:
    """RESULTS.md from the kept files."""
    sections = list(_sections(results))
    judged = [(title, row) for title, chosen, _ in sections for row in chosen if row.met is not None]
    missed = [(title, row) for title, row in judged if not row.met]
    lines = [
        "# Results",
        "",
        "Made by `make bench` from `benchmarks/results/*.json`. Ratios compare two things measured in turn in one run on one",
        "machine: the median over the rounds, and in brackets the smallest and the largest round. `load` is the machine's load",
        "average before and after a measurement. What is measured and where the goals come from: [README.md](README.md).",
        "",
        _macs(footer for _, _, footer in sections),
        "",
        f"**{len(judged) - len(missed)} of {len(judged)} goals are met.**" + (" Missed:" if missed else ""),
    ]
    if missed:
        lines += ["", "| missed | figure | goal | section |", "| --- | --- | --- | --- |"]
        lines += [_line(*row[:3], title) for title, row in missed]
    absent = [
        f"`{name}`" for name, entry in MEASUREMENTS.items() if entry.section and not (results / f"{name}.json").exists()
    ]
    if absent:
        lines += ["", f"Not measured yet: {', '.join(absent)}."]
    for title, chosen, footer in sections:
        lines += ["", f"## {title}", *_table(chosen), "", footer]
    return "\n".join(lines) + "\n"


def _macs(footers: Iterable[str]) -> str:
    if any("macOS" in footer for footer in footers):
        return "Figures whose line says macOS were taken on a Mac."
    return "**No figure here was taken on a Mac.**"


def main() -> int:
    """Measure and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}"
    )
    parser.add_argument("--render", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    asked = [] if chosen.render else [name for name in MEASUREMENTS if not chosen.only or name in chosen.only]
    failed: list[str] = []
    logs = environments.folder() / "logs"
    if asked:
        environments.prepare()
        logs.mkdir(parents=True, exist_ok=True)
        minutes = sum(MEASUREMENTS[name].seconds for name in asked) / 60
        order = ", ".join(f"{name} {MEASUREMENTS[name].seconds} s" for name in asked)
        _say(f"{len(asked)} measurements, about {minutes:.0f} min on two quiet cores: {order}")
    for number, name in enumerate(asked, 1):
        entry = MEASUREMENTS[name]
        _say(f"{time.strftime('%H:%M:%S')} {number}/{len(asked)} {name}: about {entry.seconds} s")
        try:
            _say(f"  done in {measure(name, entry, RESULTS, logs):.0f} s")
        except NoResultError as error:
            failed.append(name)
            _say(f"  no result: {error}")
    PAGE.write_text(render(), encoding="utf-8")
    if asked:
        print(PAGE.read_text(encoding="utf-8"))
    if failed:
        _say(f"Without a result, what was kept before stands: {', '.join(failed)}")
    return 1 if failed else 0


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
