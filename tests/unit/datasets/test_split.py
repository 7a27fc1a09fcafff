"""No row like a training row is in another split, whatever the data and the seed."""

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
from mcp_server.datasets.split import assign
from mcp_server.datasets.watch import Watch
from tests.unit.datasets.conftest import Inspect, Prepare, chat, good_rows, jsonl, put, tree
from tests.unit.datasets.test_duplicates import alike, variants


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    originals=st.integers(2, 40),
    valid=st.sampled_from([0.0, 0.1, 0.3]),
    test=st.sampled_from([0.1, 0.25]),
)
def test_nothing_like_a_training_row_is_in_another_split(
    tmp_path_factory: pytest.TempPathFactory, seed: int, originals: int, valid: float, test: float
):
    folder = tmp_path_factory.mktemp("leak")
    texts = variants(seed, originals, (8, 50))
    put(folder / "s.jsonl", jsonl([{"text": text} for text in [*texts, *texts[:3]]]))
    request = PrepareRequest(
        source=str(folder / "s.jsonl"), output=str(folder / "out"), valid=valid, test=test, seed=seed
    )
    report = prepare_dataset(request, Watch())
    splits = {
        name: [
            shingles(json.loads(line)["text"]) for line in (folder / "out" / f"{name}.jsonl").read_text().splitlines()
        ]
        for name in report.rows
    }
    assert sum(len(rows) for rows in splits.values()) == len(set(texts))
    names = list(splits)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            assert not any(similarity(a, b) >= SIMILAR for a in splits[one] for b in splits[other])


def test_what_was_prepared_passes_the_inspection(tmp_path: Path, prepare: Prepare, inspect: Inspect):
    texts = variants(3, 60, (10, 40))
    rows: list[Any] = [chat(f"Say {text[:12]}", text) for text in texts]
    put(tmp_path / "s.jsonl", jsonl([*rows, *rows[:5], {"messages": []}]))
    prepare("s.jsonl")
    report = inspect(data=str(tmp_path / "out"))
    assert report.ok
    assert report.duplicates.exact == 0
    assert (report.duplicates.leaked_exact, report.duplicates.leaked_near) == ({}, {})


def test_near_duplicates_can_be_dropped_or_left_alone(tmp_path: Path, prepare: Prepare, inspect: Inspect):
    texts = variants(4, 50, (30, 60))
    expected = len({later for _, later in alike(texts)})
    assert expected > 20
    put(tmp_path / "s.jsonl", jsonl([{"text": text} for text in texts]))
    dropped = prepare("s.jsonl", near_duplicates="drop", output="dropped")
    assert inspect(data=str(tmp_path / "dropped")).duplicates.near == 0
    assert [(found.reason, found.rows) for found in dropped.dropped] == [("near-duplicate", expected)]
    ignored = prepare("s.jsonl", near_duplicates="ignore", output="ignored")
    assert sum(ignored.rows.values()) == 100 and ignored.near_groups is None


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    valid=st.floats(0, 0.4),
    test=st.floats(0, 0.4),
    seed=st.integers(0, 99),
)
def test_a_split_keeps_its_promises(sizes: list[int], valid: float, test: float, seed: int):
    groups = dict(enumerate(sizes))
    assigned = assign(groups, valid=valid, test=test, seed=seed)
    assert assigned.keys() == groups.keys()
    assert "train" in assigned.values()
    rows = {name: sum(groups[g] for g, n in assigned.items() if n == name) for name in ("valid", "test")}
    for name, share in (("valid", valid), ("test", test)):
        if share == 0:
            assert rows[name] == 0
        elif len(groups) >= 3:
            assert rows[name] > 0
        if sum(n == name for n in assigned.values()) > 1:
            assert rows[name] <= max(1, round(share * sum(sizes)))
    assert assign(groups, valid=valid, test=test, seed=seed) == assigned


def test_shares_are_met_when_rows_are_unlike(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "s.jsonl", jsonl(good_rows(1000)))
    assert prepare("s.jsonl", valid=0.05, test=0.2).rows == {"train": 750, "valid": 50, "test": 200}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "s.jsonl", jsonl([{"text": text} for text in variants(5, 60, (8, 40))]))
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        prepare("s.jsonl", output=name, seed=seed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert tree(tmp_path / "a")["test.jsonl"] != tree(tmp_path / "c")["test.jsonl"]


def test_a_system_prompt_in_every_row_does_not_bind_them_together(tmp_path: Path, prepare: Prepare):
    system = {"role": "system", "content": "You are the help desk of a shop and answer kindly, briefly and truly. " * 5}
    put(tmp_path / "s.jsonl", jsonl([{"messages": [system, *row["messages"]]} for row in good_rows(40)]))
    report = prepare("s.jsonl")
    assert report.near_groups == 0
    assert report.rows == {"train": 32, "valid": 4, "test": 4}


def test_too_few_groups_for_the_splits_are_said(tmp_path: Path, prepare: Prepare):
    text = " ".join(f"word{n}" for n in range(50))
    put(tmp_path / "s.jsonl", jsonl([{"text": f"{text} {n}"} for n in range(20)]))
    report = prepare("s.jsonl")
    assert report.rows == {"train": 20}
    assert sum("could not be made" in warning for warning in report.warnings) == 2
    assert any("20 of 20 rows are in one group" in warning for warning in report.warnings)
