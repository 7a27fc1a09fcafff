"""A short-lived process that knows the libraries which the server never imports: one request in, progress and one answer out.

It reads its request from standard input, writes a line of JSON about twice a second (``workers/voice.py``), and ends when
nobody reads them; it uses no GPU and waits for no job.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mcp_server import launch
from mcp_server.datasets.watch import Watch
from mcp_server.errors import DataError, ModelError, UserError
from mcp_server.platform import interpreter

BOUND_SECONDS = 3600.0


def ask(module: str, request: BaseModel, watch: Watch, *, died: UserError, cwd: Path | None = None) -> dict[str, Any]:
    """What the worker ``module`` answers. Raises the ModelError or DataError that it says, one of ``died``'s kind with its
    last words when it ends without an answer, PlatformError without mlx-lm, Cancelled.

    The process is ended when this returns or raises, in any case after an hour.
    """
    command = launch.command(interpreter.require(), module)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=launch.environment(),
            cwd=cwd,
        )
        assert process.stdin is not None and process.stdout is not None
        bound = threading.Timer(BOUND_SECONDS, process.kill)
        bound.start()
        try:
            process.stdin.write(request.model_dump_json().encode())
            process.stdin.close()
            for line in process.stdout:
                word = json.loads(line)
                if "progress" in word:
                    watch.tick(*word["progress"])
                elif "error" in word:
                    raise (ModelError if word["kind"] == "model" else DataError)(word["error"])
                else:
                    return word
        except BrokenPipeError:
            pass
        finally:
            bound.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        raise type(died)(f"{died}: {_last_words(errors, process)}")


def _last_words(errors: Any, process: subprocess.Popen[bytes]) -> str:
    errors.seek(0)
    lines = errors.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else f"its process ended with code {process.returncode}"
