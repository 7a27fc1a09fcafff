"""The folder of an adapter: taken by one start alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcp_server.jobs.files import read_json
from mcp_server.jobs.store import JobSpec
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


FILES = ("adapter_config.json", artifacts.PROVENANCE, "adapters.safetensors")


def adapter(folder: Path, content: str) -> Path:
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(content)
    return folder


def test_adapter_takes_the_place_of_another_whole(tmp_path: Path):
    folder = adapter(tmp_path / "a", "old")
    artifacts.keep_aside(folder)
    artifacts.put_in_place(adapter(folder / ".new-x", "new"), folder)
    assert {(folder / name).read_text() for name in FILES} == {"new"}
    (kept,) = (folder / "previous").iterdir()
    assert {(kept / name).read_text() for name in FILES} == {"old"}


@pytest.mark.parametrize("theirs", [("adapter_config.json", "adapter_model.safetensors"), (artifacts.PROVENANCE,)])
def test_settings_of_what_is_no_adapter_of_ours_are_kept_too(tmp_path: Path, theirs: tuple[str, ...]):
    """An adapter of PEFT, and a model that was converted."""
    folder = tmp_path / "a"
    folder.mkdir()
    for name in theirs:
        (folder / name).write_text("theirs")
    artifacts.keep_aside(folder)
    artifacts.put_in_place(adapter(folder / ".new-x", "new"), folder)
    (kept,) = (folder / "previous").iterdir()
    assert (kept / theirs[0]).read_text() == "theirs"
    assert (folder / theirs[-1]).read_text() == ("new" if theirs[-1] in FILES else "theirs")


def test_reservation_of_a_new_adapter_is_nothing_to_keep(tmp_path: Path):
    artifacts.reserve(tmp_path / "a", "train-x")
    assert artifacts.keep_aside(tmp_path / "a") is None
    assert not (tmp_path / "a/previous").exists()


def test_half_a_copy_that_a_killed_job_left_is_not_taken_for_the_adapter(tmp_path: Path):
    folder = adapter(tmp_path / "a", "old")
    os.utime(folder / "adapters.safetensors", (0, 0))
    aside = artifacts.keep_aside(folder)
    assert aside is not None
    aside.rename(aside.with_name(f".{aside.name}"))
    (aside.with_name(f".{aside.name}") / "adapters.safetensors").unlink()
    (aside.with_name(f".{aside.name}") / "adapters.safetensors").write_text("ol")
    assert artifacts.keep_aside(folder) == aside
    assert (aside / "adapters.safetensors").read_text() == "old"


@pytest.mark.parametrize("last", FILES)
def test_new_settings_never_lie_beside_old_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str):
    """The disk fails at any of the files: what is left does not load, and what was there is in previous/."""
    folder = adapter(tmp_path / "a", "old")
    new = adapter(folder / ".new-x", "new")
    artifacts.keep_aside(folder)
    replace = Path.replace

    def failing(path: Path, target: Path) -> Path:
        if path.name == last:
            raise OSError("input/output error")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="input/output"):
        artifacts.put_in_place(new, folder)
    assert not (folder / "adapters.safetensors").exists()
    (kept,) = (folder / "previous").iterdir()
    assert {(kept / name).read_text() for name in FILES} == {"old"}


def test_provenance_repeats_the_run_for_a_new_adapter_and_takes_results_later(tmp_path: Path):
    options = {"model": "m", "data": str(tmp_path), "adapter_path": "/p/adapters/a", "iters": 7}
    spec = JobSpec(job_id="train-x", kind="train", created=0, project="/", python="p", options=options)
    data = {"files": {"train.jsonl": "sha256:as it was"}, "rows": {"train": 1}}
    (tmp_path / "train.jsonl").write_text("edited meanwhile")
    artifacts.write_provenance(tmp_path, spec, data, steps=7)
    artifacts.add_results(tmp_path, {"test_loss": 1.5})
    record = read_json(tmp_path / artifacts.PROVENANCE) or {}
    assert record["command"] == f"mlx-training train --model m --data {tmp_path} --iters 7"
    assert record["data"]["files"] == {"train.jsonl": "sha256:as it was"}
    assert record["results"] == {"steps": 7, "test_loss": 1.5}
