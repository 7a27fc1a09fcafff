"""Cold start of the server, from spawn to the answer of the first request, against a bare ``MCPServer`` with one empty tool.

The two are started in turn, so that what else the machine does falls on both; a round's ratio is that of its two starts.
Prints JSON: medians, and the ratio of the least CPU time, which other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import psutil

BARE = (
    "from mcp.server import MCPServer\n"
    "app = MCPServer('bare')\n"
    "@app.tool()\n"
    "def nothing() -> None:\n"
    "    'Do nothing.'\n"
    "app.run('stdio')\n"
)
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}


def seconds_to_first_answer(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Spawn, send one tools/list, wait for its answer: time on the wall, and of the CPU."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(REQUEST).encode() + b"\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    seconds = time.perf_counter() - started
    assert answer["result"]["tools"], answer
    used = psutil.Process(process.pid).cpu_times()
    process.kill()
    process.wait()
    return seconds, used.user + used.system


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    commands = {"bare": [sys.executable, "-c", BARE], "ours": [sys.executable, "-m", "mcp_server"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as home:
        # As the plugin's launcher starts it: with byte code kept, whatever this shell says of that.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"MLX_TRAINING_HOME": home, "PYTHONPYCACHEPREFIX": f"{home}/bytecode"}
        for number in range(rounds + 1):
            for name, command in commands.items():
                seconds, used = seconds_to_first_answer(command, environment)
                if number:  # the first of each compiles bytecode and warms the file cache
                    times[name].append(seconds)
                    cpu[name].append(used)
    ratios = [ours / bare for ours, bare in zip(times["ours"], times["bare"], strict=True)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    least = {name: min(values) for name, values in cpu.items()}
    spread = {name: [round(min(values), 3), round(max(values), 3)] for name, values in times.items()}
    print(
        json.dumps(
            {
                "benchmark": "server cold start",
                "rounds": rounds,
                "median_seconds": {name: round(value, 3) for name, value in medians.items()},
                "min_max_seconds": spread,
                "ratio": round(statistics.median(ratios), 3),
                "ratio_min_max": [round(min(ratios), 3), round(max(ratios), 3)],
                "least_cpu_seconds": {name: round(value, 3) for name, value in least.items()},
                "cpu_ratio": round(least["ours"] / least["bare"], 3),
                "goal": "<= 1.25",
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
