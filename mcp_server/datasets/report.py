"""What ``inspect_dataset`` is asked and what it answers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from mcp_server.datasets.features import FeatureNames
from mcp_server.datasets.findings import Finding
from mcp_server.datasets.hub import HubData
from mcp_server.datasets.tokens import TokenReport


class InspectRequest(HubData, FeatureNames):
    """What to look at."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(
        description="Folder with train.jsonl, valid.jsonl, test.jsonl, one .jsonl file, or a Hub data set", min_length=1
    )
    model: str | None = Field(
        default=None, description="Model folder or Hub id; its tokenizer and chat template measure tokens (no weights)"
    )
    max_seq_length: int = Field(default=2048, ge=8, description="Tokens per row that training will keep")
    batch_size: int = Field(default=4, ge=1, description="Rows per step that training will use")
    mask_prompt: bool = Field(default=False, description="Whether training will learn the last answer only")
    assistant_only_loss: bool = Field(default=False, description="Whether training will learn every answer of a chat")
    near_duplicates: bool = Field(default=True, description="Look for near-duplicates too: about half of the time")
    max_rows: int | None = Field(default=None, ge=1, description="Look at the first rows of each file only")
    max_token_rows: int = Field(
        default=20_000,
        ge=100,
        description="About how many rows of a file have their tokens counted; the longest always have",
    )
    max_findings: int = Field(default=12, ge=1, le=200, description="Findings to list, worst first")


class SplitSummary(BaseModel):
    """One file."""

    path: str
    lines: int
    formats: dict[str, int] = Field(description="Rows by format")
    megabytes: float
    roles: dict[str, int] = Field(description="Messages by role")
    turns: tuple[int, int, int] | None = Field(default=None, description="Messages a row: least, median, most")
    characters: tuple[int, int, int] = Field(description="Characters a row: median, 99th percentile, most")


class Duplicates(BaseModel):
    """Rows that repeat an earlier one."""

    exact: int = Field(description="Rows of a file that an earlier row of it equals")
    near: int | None = Field(default=None, description="Rows of a file at least 80 % alike to an earlier row of it")
    leaked_exact: dict[str, int] = Field(
        description='Rows by "split > split", e.g. "train > test": the same row in both'
    )
    leaked_near: dict[str, int] | None = Field(default=None, description="The same for near-duplicates")


class InspectReport(BaseModel):
    """What the data set is and what is wrong with it."""

    summary: str
    ok: bool = Field(description="Nothing was found that mlx-lm fails on or trains garbage from")
    data: str
    splits: dict[str, SplitSummary]
    duplicates: Duplicates
    languages: dict[str, float] = Field(description="Hint from a sample: share of rows by language, or script")
    findings: list[Finding]
    showing: str
    tokens: TokenReport | None = None
    next_step: str
    seconds: float
