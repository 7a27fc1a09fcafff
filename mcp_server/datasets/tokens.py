"""Token lengths of a data set with a model's own tokenizer and chat template, measured in a short-lived process of its own.

The server never imports transformers. The process reads one request from its standard input, writes a line of JSON about
twice a second, and ends when nobody reads them; it does not use the GPU and waits for no job.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import zlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from mcp_server import launch
from mcp_server.datasets.findings import Finding
from mcp_server.datasets.watch import Watch
from mcp_server.errors import DataError, ModelError
from mcp_server.platform import interpreter

WORKER = "mcp_server.workers.inspect"
BOUND_SECONDS = 3600.0


class TokenFile(BaseModel):
    """One file and which of its lines are measured."""

    split: str
    path: str
    lines: int
    every: int = Field(default=1, description="Measure one line in so many")
    also: list[int] = Field(default_factory=list, description="And these, for what the window cuts, not for statistics")

    def takes(self, line: int) -> bool:
        """Whether ``line`` is in the sample. Scattered, since data often repeat in a rhythm, and the same every time."""
        return self.every == 1 or zlib.crc32(line.to_bytes(8, "little")) % self.every == 0


class TokenRequest(BaseModel):
    """What the process is asked."""

    model: str
    files: list[TokenFile]
    max_seq_length: int
    batch_size: int
    mask_prompt: bool
    names: dict[str, str] = Field(default_factory=dict, description="The data's own field name → mlx-lm's")
    assistant_only_loss: bool = False
    lengths_to: str | None = Field(
        default=None, description="File for the length of every line as 32-bit numbers; 0 where there is none"
    )


class SplitTokens(BaseModel):
    """Token lengths of one split, template included."""

    rows_measured: int
    rows: int
    tokens: int = Field(description="Of the measured rows")
    mean: float
    p50: int
    p90: int
    p99: int
    max: int
    rows_cut: float = Field(description="Share of rows longer than max_seq_length")
    tokens_cut: float = Field(description="Share of tokens beyond max_seq_length")
    tokens_trained: float = Field(description="Share of the tokens in the window that count in the loss")
    padding_stock: float = Field(description="Share of padding in mlx-lm's batches (file order) of batch_size rows")
    padding_bucketed: float = Field(
        description="The same with length_bucketing, the default: rows of like length share a batch"
    )
    histogram: list[tuple[int, int]] = Field(description="[tokens up to, rows]")


class Part(BaseModel):
    """Text within the window that is trained, or that is context alone."""

    trained: bool
    text: str


class Example(BaseModel):
    """One row exactly as the model sees it: the texts joined are the whole rendered row. Secrets are removed."""

    file: str
    line: int
    not_trained: str | None = Field(default=None, description="Context only (the first token is never predicted)")
    trained: str | None = Field(default=None, description="What the loss is taken of")
    parts: list[Part] | None = Field(default=None, description="With assistant_only_loss, in place of these two")
    cut: str | None = Field(default=None, description="Lost: beyond max_seq_length")
    tokens: int
    trained_tokens: int
    then: str | None = Field(default=None, description="What mlx-lm's mask counts after the row's end")


class TokenReport(BaseModel):
    """What the tokenizer says."""

    model: str
    max_seq_length: int
    batch_size: int
    mask_prompt: bool
    assistant_only_loss: bool
    splits: dict[str, SplitTokens]
    example: Example | None = None


class TokenAnswer(BaseModel):
    """The process's last word."""

    report: TokenReport
    findings: list[Finding]


def measure(request: TokenRequest, watch: Watch) -> TokenAnswer:
    """Ask the process. Raises ModelError when the tokenizer can't be loaded, PlatformError without mlx-lm, Cancelled.

    The process is ended when this returns or raises, in any case after an hour.
    """
    command = launch.command(interpreter.require(), WORKER)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
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
                    return TokenAnswer.model_validate(word)
        except BrokenPipeError:
            pass
        finally:
            bound.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        raise ModelError(f"the tokenizer of {request.model} could not be tried: {_last_words(errors, process)}")


def _last_words(errors: Any, process: subprocess.Popen[bytes]) -> str:
    errors.seek(0)
    lines = errors.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else f"its process ended with code {process.returncode}"


def lines_to_measure(path: Path, split: str, lines: int, limit: int, longest: list[int]) -> TokenFile:
    """About ``limit`` lines scattered over the file, and the ``longest`` ones where not all are taken."""
    every = max(1, -(-lines // limit))
    return TokenFile(split=split, path=str(path), lines=lines, every=every, also=longest if every > 1 else [])
