"""A plain tool call on our server against the same call on a bare ``MCPServer``: from the request's bytes to the answer's.

The tool is ``list_jobs`` over an empty home, which reads a folder; the bare server's has the same name, the same argument and
the same answer, and does nothing. Both run over stdio and are warm. The two are called in turn, a hundred calls at a time, and
a round's ratio is that of its two medians. Prints JSON.
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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.server_start import META

BARE = """
from pydantic import BaseModel
from mcp.server import MCPServer
class JobList(BaseModel):
    jobs: list[str]
    showing: str
app = MCPServer("bare")
@app.tool()
def list_jobs(limit: int = 20) -> JobList:
    "List."
    return JobList(jobs=[], showing="0 of 0 jobs")
app.run("stdio")
"""
CALLS = 100


class Server:
    """A server over stdio that is asked one thing after the other."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )

    def milliseconds(self) -> tuple[float, dict[str, Any]]:
        """One call of ``list_jobs``: its time and its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        params = {"name": "list_jobs", "arguments": {"limit": 5}, "_meta": META}
        request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode() + b"\n"
        began = time.perf_counter()
        self.process.stdin.write(request)
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        taken = (time.perf_counter() - began) * 1000
        answer = json.loads(line)["result"]
        assert not answer.get("isError"), answer
        return taken, answer["structuredContent"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    medians: dict[str, list[float]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory() as home:
        environment = dict(os.environ) | {"MLX_TRAINING_HOME": home}
        servers = {
            "bare": Server([sys.executable, "-c", BARE], environment),
            "ours": Server([sys.executable, "-m", "mcp_server"], environment),
        }
        try:
            answers = {name: server.milliseconds()[1] for name, server in servers.items()}
            assert answers["bare"] == answers["ours"], answers
            for number in range(rounds + 1):
                for name, server in servers.items():
                    times = [server.milliseconds()[0] for _ in range(CALLS)]
                    if number:  # the first round warms both
                        medians[name].append(statistics.median(times))
        finally:
            for server in servers.values():
                server.close()
    ratios = [ours / bare for ours, bare in zip(medians["ours"], medians["bare"], strict=True)]
    print(
        json.dumps(
            {
                "benchmark": "round trip of a tool call",
                "rounds": rounds,
                "calls_a_round": CALLS,
                "median_ms": {name: round(statistics.median(values), 3) for name, values in medians.items()},
                "ratio": round(statistics.median(ratios), 3),
                "ratio_min_max": [round(min(ratios), 3), round(max(ratios), 3)],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
