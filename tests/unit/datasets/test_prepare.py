"""prepare_dataset writes a folder whole or not at all, never in place."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mcp_server.datasets.preparation import PrepareRequest
from mcp_server.datasets.prepare import prepare_dataset
from mcp_server.datasets.staging import Staging
from mcp_server.datasets.watch import Cancelled, Watch
from mcp_server.errors import PathError, explain
from tests.unit.datasets.conftest import Prepare, chat, good_rows, jsonl, put, tree


def test_the_source_is_never_touched(tmp_path: Path, prepare: Prepare):
    source = tmp_path / "source"
    put(source / "train.jsonl", jsonl(good_rows(20)) + "\n")
    put(source / "deep" / "b.csv", "question,answer\nWhy?,So.\n")
    before = tree(source), sorted(source.rglob("*"))
    prepare()
    assert (tree(source), sorted(source.rglob("*"))) == before


@pytest.mark.parametrize("taken", ["folder", "file", "link"])
def test_an_output_that_exists_is_refused(tmp_path: Path, prepare: Prepare, taken: str):
    put(tmp_path / "s.jsonl", jsonl(good_rows(5)))
    out = tmp_path / "out"
    if taken == "folder":
        out.mkdir()
    elif taken == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PathError, match="nothing is overwritten; choose a new folder such as out-2"):
        prepare("s.jsonl")
    assert out.is_symlink() or out.exists()


def test_an_output_inside_the_source_is_refused(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "source" / "s.jsonl", jsonl(good_rows(5)))
    with pytest.raises(PathError, match="inside the source"):
        prepare(output="source/out")


def test_an_output_that_appears_meanwhile_is_not_overwritten(tmp_path: Path):
    out = tmp_path / "out"

    def somebody_else_is_quicker() -> None:
        with Staging(out) as staging:
            (staging.folder / "train.jsonl").write_text("{}\n")
            put(out / "mine", "precious")
            staging.publish()

    with pytest.raises(PathError, match="already there"):
        somebody_else_is_quicker()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert tree(out).keys() == {"mine"}


def test_a_full_disk_leaves_nothing(tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path / "s.jsonl", jsonl(good_rows(5)))

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mcp_server.datasets.prepare.write_json", full)
    with pytest.raises(PathError, match="No space left on device; nothing was left"):
        prepare("s.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


def test_a_cancelled_call_leaves_nothing(tmp_path: Path):
    put(tmp_path / "s.jsonl", jsonl(good_rows(2000)))
    watch = Watch()
    watch.cancel()
    with pytest.raises(Cancelled):
        prepare_dataset(PrepareRequest(source=str(tmp_path / "s.jsonl"), output=str(tmp_path / "out")), watch)
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


def test_what_a_killed_call_left_is_gone_after_the_next_and_a_living_one_is_spared(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "s.jsonl", jsonl(good_rows(50)))
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom mcp_server.datasets.staging import Staging\n"
        "with Staging(Path(sys.argv[1])) as staging:\n"
        "    (staging.folder / 'spool.jsonl').write_text('half')\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        (left,) = tmp_path.glob(".out.*.preparing")
        prepare("s.jsonl", output="first")
        assert left.exists()
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        assert left.exists()
        assert not (tmp_path / "out").exists()
        prepare("s.jsonl", output="second")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "s.jsonl", "second"]
    finally:
        process.kill()
        process.wait()


def test_a_folder_without_a_lock_is_removed_once_it_is_old(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "s.jsonl", jsonl(good_rows(5)))
    for name, age in ((".young.1.preparing", 0), (".old.1.preparing", 3600)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    prepare("s.jsonl")
    assert {path.name for path in tmp_path.glob(".*")} == {".young.1.preparing"}


def test_the_result_says_how_it_was_made(tmp_path: Path, prepare: Prepare):
    source = put(tmp_path / "s.jsonl", jsonl(good_rows(30)))
    prepare("s.jsonl", seed=3)
    record = json.loads((tmp_path / "out" / "preparation.json").read_text())
    assert record["prepare_dataset"]["seed"] == 3
    assert record["files"] == {"s.jsonl": {"rows": 30, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}}
    assert record["rows"] == {"train": 24, "valid": 3, "test": 3}


def test_secrets_are_warned_of_by_kind_and_place(tmp_path: Path, prepare: Prepare):
    secret = "ghp" + "_" + "Ab1" * 12
    put(tmp_path / "s.jsonl", jsonl([*good_rows(5), chat("token?", f"It is {secret}")]))
    report = prepare("s.jsonl")
    assert any("GitHub token (s.jsonl:6)" in warning for warning in report.warnings)
    assert secret not in report.model_dump_json()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": {"answer": "x"}}, "mapping names answer; it takes messages"),
        ({"mapping": {"prompt": "x"}}, "both prompt and completion"),
        ({"valid": 0.6, "test": 0.5}, "leave nothing for training"),
        ({"max_tokens": 100}, "max_tokens needs model"),
        ({"min_characters": 9, "max_characters": 3}, "below min_characters"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValidationError) as caught:
        PrepareRequest(source="a", output="b", **options)
    assert message in str(explain(caught.value, PrepareRequest))
