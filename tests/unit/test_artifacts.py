"""The folder of an adapter: taken by one start alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_server.jobs.files import read_json
from mcp_server.training import artifacts


def test_folder_of_an_adapter_is_given_to_one_of_two_starts(tmp_path: Path):
    """Both have seen that the name is free; the second is told, and the first's reservation stands."""
    folder = tmp_path / "adapters/tone"
    artifacts.reserve(folder, "train-first")
    with pytest.raises(FileExistsError):
        artifacts.reserve(folder, "train-second")
    assert read_json(folder / artifacts.PROVENANCE) == {"job_id": "train-first"}
