"""Data on the Hub, for what reads folders: ``workers/hub.py`` reads them as a training would and writes them as .jsonl."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator

from mcp_server import settings
from mcp_server.datasets import process
from mcp_server.datasets.secrets import redact_value
from mcp_server.datasets.watch import Watch
from mcp_server.errors import DataError, UserError

WORKER = "mcp_server.workers.hub"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")  # 96 characters each, as the Hub has it
_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")


class HubData(BaseModel):
    """mlx-lm's way to name data that are not a folder of its own form."""

    hf_dataset: dict[str, Any] | list[dict[str, Any]] | None = Field(
        default=None,
        description="mlx-lm's hf_dataset, in place of data: {path, train_split, valid_split, test_split, config, *_feature}",
    )

    @field_validator("hf_dataset")
    @classmethod
    def _names_data(
        cls, value: dict[str, Any] | list[dict[str, Any]] | None
    ) -> dict[str, Any] | list[dict[str, Any]] | None:
        if value is not None and not value:
            raise ValueError("must not be empty; give {path: ...} or leave it out")
        for one in entries(value):
            if not isinstance(one.get("path"), str) or not one["path"].strip():
                raise ValueError("needs a path: a data set's Hub id or folder")
            config = one.get("config", {})
            if not isinstance(config, dict):
                raise ValueError("config holds arguments of datasets.load_dataset, such as {name: ...}")
            if config.get("trust_remote_code"):
                raise ValueError("code of a data set is never run; take trust_remote_code out of config")
            if redact_value(one) != one:
                raise ValueError(
                    "holds an access token, which would be written into the job's files; leave it out, and log in with "
                    "`hf auth login` or set HF_TOKEN"
                )
        return value


class HubRequest(HubData):
    """What the process is asked."""

    data: str
    folder: str = Field(description="Where the .jsonl files are to be")


class HubAnswer(BaseModel):
    """What it wrote."""

    rows: dict[str, int] = Field(description="By split")
    left_out: dict[str, int] = Field(description="Rows of splits that mlx-lm does not read")


def entries(hf_dataset: dict[str, Any] | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The data sets that ``hf_dataset`` names."""
    return [hf_dataset] if isinstance(hf_dataset, dict) else hf_dataset or []


def located(hf_dataset: dict[str, Any] | list[dict[str, Any]] | None) -> Any:
    """``hf_dataset`` with the absolute path of what is on this machine: who loads it works in another folder."""
    found = [
        one | {"path": str(settings.resolve(one["path"]))} if settings.resolve(one["path"]).exists() else one
        for one in entries(hf_dataset)
    ]
    return found[0] if isinstance(hf_dataset, dict) else found or None


def is_hub_data(data: str, hf_dataset: Any = None) -> bool:
    """Whether training would ask the ``datasets`` library for it."""
    if hf_dataset is not None:
        return True
    # The form first: a text that is too long for a file's name can't be looked up.
    if not _HUB_ID.fullmatch(data) or data.lower().endswith(_FILES) or settings.resolve(data).exists():
        return False
    # "data/mine" has the form of a Hub id; a folder of that first name in the project says that it was meant as a path.
    return not (settings.project() / data.split("/")[0]).is_dir()


def name_of(data: str, hf_dataset: Any = None) -> str:
    """What messages call the data."""
    return " + ".join(one["path"] for one in entries(hf_dataset)) or data


class Source:
    """Data in a folder, wherever they came from."""

    def __init__(self, path: Path, name: str | None = None, left_out: dict[str, int] | None = None) -> None:
        self.path = path
        self.name = name  # of data from the Hub
        self.left_out = left_out or {}

    def said(self, value: Any) -> Any:
        """Plain data with the data set's name in place of a folder that will be gone when it is read."""
        if self.name is None:
            return value
        if isinstance(value, str):
            return value.replace(str(self.path), self.name)
        if isinstance(value, list):
            items: list[Any] = value
            return [self.said(item) for item in items]
        if isinstance(value, dict):
            entries: dict[str, Any] = value
            return {name: self.said(item) for name, item in entries.items()}
        return value

    def warnings(self) -> list[str]:
        """What of the data set no training sees."""
        if not self.left_out:
            return []
        splits = ", ".join(f"{name} ({rows:,} rows)" for name, rows in self.left_out.items())
        one = next(iter(self.left_out))
        text = (
            f"mlx-lm reads the splits train, valid and test of a Hub data set; {self.name} also has {splits}, not read: "
            f"name it with hf_dataset, e.g. {{'path': {self.name!r}, 'train_split': 'train', 'valid_split': {one!r}}}"
        )
        return [text]


@contextmanager
def local(data: str, hf_dataset: Any, watch: Watch) -> Generator[Source]:
    """``data`` as a file or folder on this machine; what is on the Hub as a folder for as long as the body runs.

    Raises DataError when the data set does not exist, can't be reached or read, PlatformError without mlx-lm, Cancelled.
    """
    if not is_hub_data(data, hf_dataset):
        yield Source(settings.resolve(data))
        return
    name = name_of(data, hf_dataset)
    with tempfile.TemporaryDirectory(prefix="mlx-training-") as made:
        folder = Path(made).resolve()
        request = HubRequest(data=data, hf_dataset=located(hf_dataset), folder=str(folder))
        died = DataError(f"the data set {name} could not be read")
        found = HubAnswer.model_validate(process.ask(WORKER, request, watch, died=died, cwd=folder))
        source = Source(folder, name, found.left_out)
        try:
            yield source
        except UserError as error:
            raise type(error)(source.said(str(error))) from error
