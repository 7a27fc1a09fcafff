"""Token lengths of a data set with a model's own tokenizer and chat template, measured in a short-lived process of its own:
the server never imports transformers."""

from __future__ import annotations

import zlib
from pathlib import Path

from pydantic import BaseModel, Field

from mcp_server.datasets import process
from mcp_server.datasets.findings import Finding
from mcp_server.datasets.watch import Watch
from mcp_server.errors import ModelError

WORKER = "mcp_server.workers.inspect"


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
    max: int = Field(description="Of the measured rows and of the file's longest")
    rows_cut: float = Field(description="Share of the measured rows longer than max_seq_length")
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
    """Ask the process. Raises ModelError when the tokenizer can't be loaded, PlatformError without mlx-lm, Cancelled."""
    died = ModelError(f"the tokenizer of {request.model} could not be tried")
    return TokenAnswer.model_validate(process.ask(WORKER, request, watch, died=died))


def lines_to_measure(path: Path, split: str, lines: int, limit: int, longest: list[int]) -> TokenFile:
    """About ``limit`` lines scattered over the file, and the ``longest`` ones where not all are taken."""
    every = max(1, -(-lines // limit))
    return TokenFile(split=split, path=str(path), lines=lines, every=every, also=longest if every > 1 else [])
