"""What a source keeps for validation and test stays there: nothing of it is trained on, and nothing like it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_server.datasets.duplicates import SIMILAR, shingles, similarity
from mcp_server.datasets.preparation import PrepareRequest
from mcp_server.datasets.prepare import prepare_dataset
from mcp_server.datasets.split import split_named
from mcp_server.datasets.watch import Watch
from mcp_server.errors import DataError
from tests.unit.datasets.conftest import Prepare, chat, good_rows, jsonl, put, tree
from tests.unit.datasets.test_duplicates import variants

Rows = list[dict[str, Any]]
TRAIN, VALID, TEST = good_rows(40), good_rows(5, 100), good_rows(10, 200)
LONG = " ".join(f"word{n}" for n in range(40))


def written(folder: Path, name: str) -> Rows:
    rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    return sorted(rows, key=json.dumps)


def ordered(rows: Rows) -> Rows:
    return sorted(rows, key=json.dumps)


@pytest.mark.parametrize(
    "names",
    [
        ("train.jsonl", "valid.jsonl", "test.jsonl"),
        ("train.jsonl", "validation.jsonl", "Test.jsonl"),
        ("train-00000-of-00001.jsonl", "validation-00000-of-00001-0a1b.jsonl", "test-00000-of-00001.jsonl"),
        ("sums_train.jsonl", "sums_dev.jsonl", "sums_test.jsonl"),
        ("train/a.jsonl", "val/a.jsonl", "test/a.jsonl"),
        ("train-v2.0.jsonl", "dev-v2.0.jsonl", "test-v2.0.jsonl"),
        ("train_data.jsonl", "validation_set.jsonl", "testset.jsonl"),
    ],
)
def test_rows_of_named_files_keep_their_split(tmp_path: Path, prepare: Prepare, names: tuple[str, str, str]):
    for name, rows in zip(names, (TRAIN, VALID, TEST), strict=True):
        put(tmp_path / "source" / name, jsonl(rows))
    report = prepare()
    assert report.kept == ["valid", "test"]
    assert report.rows == {"train": 40, "valid": 5, "test": 10}
    for name, rows in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        assert written(tmp_path / "out", name) == ordered(rows)
    assert "(valid and test as in the source)" in report.summary
    assert json.loads((tmp_path / "out" / "preparation.json").read_text())["kept"] == ["valid", "test"]


def test_what_is_missing_is_drawn_from_train_alone(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "source" / "data.jsonl", jsonl(TRAIN))
    put(tmp_path / "source" / "test.jsonl", jsonl(TEST))
    report = prepare()
    assert report.rows == {"train": 36, "valid": 4, "test": 10}
    assert written(tmp_path / "out", "test") == ordered(TEST)
    assert "(test as in the source, valid drawn from train)" in report.summary
    assert report.warnings == []


def test_train_loses_what_is_in_the_test_exactly_or_nearly(tmp_path: Path, prepare: Prepare):
    test = [*TEST, chat("Say it", LONG)]
    put(tmp_path / "source" / "a-train.jsonl", jsonl([*TRAIN, TEST[3], chat("Say it", LONG.replace("word7 ", ""))]))
    put(tmp_path / "source" / "test.jsonl", jsonl(test))
    report = prepare(valid=0)
    assert written(tmp_path / "out", "test") == ordered(test)
    assert written(tmp_path / "out", "train") == ordered(TRAIN)
    left_out = {dropped.reason: dropped.examples for dropped in report.dropped}
    assert left_out["leak"] == ["a-train.jsonl:41 is the same as test.jsonl:4, which stays in test"]
    assert left_out["near-leak"][0].startswith("a-train.jsonl:42 is ")
    assert left_out["near-leak"][0].endswith("alike to test.jsonl:11, which stays in test")


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    originals=st.integers(6, 40),
    near=st.sampled_from(["together", "drop"]),
)
def test_nothing_like_a_row_of_a_kept_split_is_trained_on(
    tmp_path_factory: pytest.TempPathFactory, seed: int, originals: int, near: str
):
    folder = tmp_path_factory.mktemp("kept")
    texts = variants(seed, originals, (8, 50))
    for at, (name, own) in enumerate((("train", "a row that is like no other"), ("valid", LONG), ("test", texts[0]))):
        put(folder / "source" / f"{name}.jsonl", jsonl([{"text": text} for text in [*texts[at::3], own]]))
    asked: dict[str, Any] = {"source": str(folder / "source"), "output": str(folder / "out"), "near_duplicates": near}
    report = prepare_dataset(PrepareRequest(**asked, seed=seed), Watch())
    splits = [[shingles(row["text"]) for row in written(folder / "out", name)] for name in report.rows]
    assert len(splits) == 3
    for at, one in enumerate(splits):
        for other in splits[at + 1 :]:
            assert not any(similarity(a, b) >= SIMILAR for a in one for b in other)


def test_all_is_drawn_anew_when_asked(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "source" / "train.jsonl", jsonl(TRAIN))
    put(tmp_path / "source" / "test.jsonl", jsonl(TEST))
    put(tmp_path / "joined" / "all.jsonl", jsonl([*TEST, *TRAIN]))
    report = prepare(resplit=True)
    assert report.kept == []
    assert report.rows == {"train": 40, "valid": 5, "test": 5}
    prepare("joined", output="same")
    drawn = [{name: kind for name, kind in tree(tmp_path / out).items() if name != "preparation.json"}
             for out in ("out", "same")]  # fmt: skip
    assert drawn[0] == drawn[1]


def test_a_source_without_rows_for_train_says_so(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "source" / "test.jsonl", jsonl(TEST))
    with pytest.raises(
        DataError, match=r"can be used for train \(valid and test keep their rows; resplit=true draws all anew\)"
    ):
        prepare()
    put(tmp_path / "source" / "train.jsonl", jsonl(TEST[:2]))
    with pytest.raises(DataError, match=r"train\.jsonl:1 is the same as test\.jsonl:1, which stays in test"):
        prepare()
    assert prepare("source/test.jsonl").rows == {"train": 8, "valid": 1, "test": 1}


def test_names_about_something_else_keep_nothing(tmp_path: Path, prepare: Prepare):
    for name, start in (("speed-test.jsonl", 0), ("web-dev.jsonl", 100), ("dev/install.jsonl", 200)):
        put(tmp_path / "source" / name, jsonl(good_rows(10, start)))
    assert prepare().kept == []
    for n, name in enumerate(("install.md", "test.md", "dev/build.md")):
        put(tmp_path / "notes" / name, f"Note {n}: {LONG.replace('word', f'note{n}x')}")
    assert prepare("notes", output="texts", test=0, valid=0).rows == {"train": 3}
    assert [split_named(name) for name in ("latest", "contest", "test_questions", "development")] == [None] * 4


def test_a_kept_split_of_few_rows_is_warned_of(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "source" / "train.jsonl", jsonl(TRAIN))
    put(tmp_path / "source" / "test.jsonl", jsonl(TEST[:2]))
    (warning,) = prepare().warnings
    assert warning.startswith("test.jsonl has 2 rows") and warning.endswith("draw it anew with resplit=true")
