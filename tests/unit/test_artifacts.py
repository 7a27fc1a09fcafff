"""The folder of an adapter: taken by one start alone."""

from __future__ import annotations

import os
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


def test_two_adapters_of_one_second_are_both_kept_and_the_same_one_once(tmp_path: Path):
    folder = tmp_path / "a"
    folder.mkdir()
    weights = folder / "adapters.safetensors"
    for content in (b"first", b"second", b"second"):
        weights.unlink(missing_ok=True)  # a new file, as a rename over it makes one
        weights.write_bytes(content)
        os.utime(weights, (1_700_000_000, 1_700_000_000))
        artifacts.keep_aside(folder)
    kept = {path.read_bytes() for path in folder.glob("previous/*/adapters.safetensors")}
    assert kept == {b"first", b"second"} and len(list((folder / "previous").iterdir())) == 2
