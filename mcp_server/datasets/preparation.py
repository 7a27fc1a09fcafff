"""What ``prepare_dataset`` is asked and what it answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mcp_server.datasets.hub import HubData

OutputFormat = Literal["auto", "chat", "completions", "text"]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
COLUMNS = ("messages", "prompt", "completion", "system", "input", "text", "tools", "history")


class PrepareRequest(HubData):
    """From where, to where, how."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="File, folder of files, or Hub data set to read; never changed", min_length=1)
    output: str = Field(description="New folder for train.jsonl, valid.jsonl, test.jsonl", min_length=1)
    mapping: dict[str, str] = Field(
        default_factory=dict,
        description='Columns with other names: {"prompt": "Frage", "completion": "Antwort"}; also messages, system, input, '
        "text, tools, history",
    )
    format: OutputFormat = Field(default="auto", description="auto: chat, or text where the source is plain text")
    system: str | None = Field(default=None, description="System message for rows without one")
    valid: Share = Field(default=0.1, description="Share of rows for valid.jsonl, where the source has no such split")
    test: Share = Field(default=0.1, description="Share of rows for test.jsonl, where the source has no such split")
    resplit: bool = Field(default=False, description="Draw all splits anew, whatever the source's files are named")
    seed: int = Field(default=0, ge=0, description="Seed of split and order; same source and seed, same files")
    near_duplicates: Literal["together", "drop", "ignore"] = Field(
        default="together",
        description="Near-duplicates: keep in one split, keep only the first, or do not look for them",
    )
    min_characters: int = Field(default=0, ge=0, description="Drop rows with less text")
    max_characters: int | None = Field(default=None, ge=1, description="Drop rows with more text")
    model: str | None = Field(default=None, description="Model whose tokenizer counts; needed for max_tokens")
    max_tokens: int | None = Field(default=None, ge=8, description="Drop rows with more tokens, template included")
    chunk_characters: int = Field(default=4000, ge=100, description="Longest row made of a .txt or .md file")

    @model_validator(mode="after")
    def _fits_together(self) -> PrepareRequest:
        unknown = self.mapping.keys() - set(COLUMNS)
        if unknown:
            raise ValueError(f"mapping names {', '.join(sorted(unknown))}; it takes {', '.join(COLUMNS)}")
        if ("prompt" in self.mapping) != ("completion" in self.mapping):
            raise ValueError("mapping needs both prompt and completion")
        if self.valid + self.test >= 1:
            raise ValueError(f"valid={self.valid} and test={self.test} leave nothing for training; lower them")
        if self.max_tokens is not None and self.model is None:
            raise ValueError("max_tokens needs model, whose tokenizer counts")
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError("max_characters is below min_characters")
        if self.format == "completions" and self.system is not None:
            raise ValueError("format='completions' has no place for system; use format='chat', or leave system out")
        return self


class Dropped(BaseModel):
    """Rows left out for one reason."""

    reason: str
    rows: int
    examples: list[str] = Field(description="file:line and what is wrong, the first three")


class PrepareReport(BaseModel):
    """What was read, written and left out."""

    summary: str
    output: str
    format: str
    rows: dict[str, int] = Field(description="Rows by file written")
    kept: list[str] = Field(description="Splits as the source has them; the others were drawn")
    read: dict[str, int] = Field(description="Rows by file read, the first 20")
    files_read: int
    ignored_files: list[str] = Field(description="Files of the source folder that were not read, the first 10")
    shapes: dict[str, int] = Field(description="Rows by the layout they were recognized as")
    dropped: list[Dropped]
    dropped_rows: int
    near_groups: int | None = Field(default=None, description="Groups of near-duplicates, each kept in one split")
    warnings: list[str]
    next_step: str
    seconds: float
