"""The environment worker: uv installs the locked versions beside the old environment, and the link is turned when it works.

It runs in the server's own interpreter and imports nothing of mlx.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from mcp_server.errors import PlatformError
from mcp_server.jobs.files import write_json
from mcp_server.platform import environment
from mcp_server.platform.environment import EnvironmentOptions, EnvironmentResult
from mcp_server.workers import job

_SHOWN = ("mlx", "mlx-lm", "transformers", "numpy", "huggingface-hub")
_VERSIONS = """
import importlib.metadata as m, json
print(json.dumps({d.metadata["Name"].lower().replace("_", "-"): d.version for d in m.distributions()}))
"""
_WOULD = re.compile(r"Would (?:download|install) (\d+) package")
_STEP = re.compile(r"^\s*(Downloading|Downloaded|Building|Built|Prepared|Installed|Resolved)\b")
_UNREACHABLE = (
    r"dns error|failed to lookup|error sending request|tcp connect|connection refused|network is unreachable|"
    r"timed out|failed to fetch|could not connect|certificate"
)
_TRY_NETWORK = (
    "the package index could not be reached; check the network, proxy and certificates and call again "
    "(finished downloads are kept)"
)
# What uv prints → what it means and what to do. First match wins.
_CAUSES = (
    (_UNREACHABLE, _TRY_NETWORK),
    (r"no space left|os error 28", "the disk is full; free about 3 GB and call again"),
    (
        r"no interpreter found|requires-python|no solution found when resolving",
        "uv found no Python it may use; `uv python install 3.12`, then call again",
    ),
    (
        r"needs to be updated|failed to parse `?uv\.lock|unsupported lock",
        "the lock file does not fit this uv; update uv (`uv self update` or `brew upgrade uv`)",
    ),
    (r"permission denied|os error 13", "a folder can't be written; check the permissions of the folder named"),
)


def prepare(worker: job.WorkerJob) -> dict[str, object]:
    """Build, try, and swap in the environment; the result for ``outcome.json``."""
    options = EnvironmentOptions.model_validate(worker.spec.options)
    assert worker.spec.scratch is not None
    scratch, target = Path(worker.spec.scratch), Path(options.target)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    worker.phase("creating the environment", path=str(target))
    # Relocatable: it is built under another name than it will have.
    _uv(worker, options, ["venv", "--relocatable", "--no-project", str(scratch)], scratch)
    sync = ["sync", "--frozen", "--no-dev", "--no-install-project", "--project", options.project]
    sync += ["--extra", options.extra] if options.extra else []
    planned = _uv(worker, options, [*sync, "--dry-run"], scratch)
    total = max((int(found[1]) for found in map(_WOULD.search, planned) if found), default=0)
    worker.phase("installing packages", packages=total)
    _uv(worker, options, sync, scratch, total=total)
    worker.phase("trying the environment")
    python = scratch / "bin" / "python"
    done = subprocess.run([str(python), "-c", options.imports], capture_output=True, text=True, timeout=300)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise PlatformError(f"the new environment does not work and was not used: {' '.join(last)[:300]}")
    read = subprocess.run([str(python), "-c", _VERSIONS], capture_output=True, text=True, timeout=60, check=True)
    installed: dict[str, str] = json.loads(read.stdout)
    versions = {name: installed[name] for name in _SHOWN if name in installed}
    mark = {"lock": environment.lock_hash(Path(options.project)), "extra": options.extra, "versions": versions}
    write_json(scratch / environment.MARK, mark)
    worker.check_stop()
    place = target.parent / f"mlx-{worker.folder.job_id.removeprefix('environment-')}"
    scratch.rename(place)
    turn_link(target, place)
    for old in environment.unused(target):
        shutil.rmtree(old, ignore_errors=True)
    return EnvironmentResult(
        python=str(place / "bin" / "python"), versions=versions, made=True, note="jobs started from now on use it"
    ).model_dump()


def turn_link(target: Path, place: Path) -> None:
    """Make ``target`` a link to ``place`` in one step; a real folder there is moved aside first."""
    if target.is_dir() and not target.is_symlink():
        target.rename(target.parent / f"mlx-old-{time.time_ns()}")
    link = target.parent / f".mlx-link-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(place.name, target_is_directory=True)
    link.replace(target)


def _uv(
    worker: job.WorkerJob, options: EnvironmentOptions, arguments: list[str], scratch: Path, *, total: int = 0
) -> list[str]:
    """Run uv and pass its progress on; its lines. Raises PlatformError, or Stopped when a stop is asked for."""
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environ |= {"UV_PROJECT_ENVIRONMENT": str(scratch), "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [options.uv, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environ,
        cwd=options.project,
    )
    assert process.stdout is not None
    arrived: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, arrived), daemon=True).start()
    lines: list[str] = []
    step = 0
    try:
        while True:
            worker.check_stop()
            try:
                line = arrived.get(timeout=0.2)
            except queue.Empty:
                continue
            if line is None:
                break
            lines.append(line)
            print(line, flush=True)
            found = _STEP.match(line)
            if found and total:
                step = total if found[1] == "Installed" else min(step + (found[1] == "Downloaded"), total)
                worker.events.write("progress", name=line.strip()[:120], step=step, total=total)
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
    if process.wait() != 0:
        raise PlatformError(explain(arguments[0], lines))
    return lines


def _read(stream: IO[str], arrived: queue.Queue[str | None]) -> None:
    for line in stream:
        arrived.put(line.rstrip("\n"))
    arrived.put(None)


def explain(command: str, lines: list[str]) -> str:
    """What uv's failure means, in a sentence, with its own words after it."""
    text = " ".join(" ".join(lines[-12:]).split())
    for pattern, meaning in _CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return f"{meaning}. uv said: {text[-300:]}"
    return f"`uv {command}` failed: {text[-400:] or 'it printed nothing'}; the whole output is in job.log"


if __name__ == "__main__":
    job.run(prepare)
