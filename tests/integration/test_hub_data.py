"""Data sets on the Hub, through the real ``datasets`` library and a Hub on loopback: all tools see what training sees."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from tests import hub
from tests.helpers import call, end_of, folder, refusal, training

pytest.importorskip("datasets", reason="the extra `datasets` is not installed")

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
TOOLS = {
    "inspect_dataset": {"data": "org/tone"},
    "plan_training": {"data": "org/tone", "model": "model"},
    "prepare_dataset": {"source": "org/tone", "output": "out"},
}


@pytest.fixture
def files(project: Path) -> dict[str, bytes]:
    """The demo's rows, with validation under the name it has on the Hub."""
    found = {name: (project / "data" / f"{name}.jsonl").read_bytes() for name in ("train", "valid", "test")}
    return {
        "train.jsonl": found["train"],
        "validation.jsonl": found["valid"],
        "test.jsonl": found["test"],
        "README.md": b"---\nlicense: mit\n---\n",
    }


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of our own, and a temporary folder in which nothing may be left."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


@pytest.fixture
def the_hub(no_hub: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Hub with the data set org/tone."""
    with hub.serve({"org/tone": files}) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield no_hub


def rows_of(*contents: bytes) -> int:
    return sum(len(content.splitlines()) for content in contents)


def rows_trained(job_id: str) -> int:
    """How many rows of train.jsonl the training read."""
    events = [json.loads(line) for line in folder(job_id).metrics.read_text().splitlines()]
    return next(event["rows"]["train"] for event in events if event["type"] == "data")


async def test_inspected_by_name(client: Client, files: dict[str, bytes], the_hub: Path):
    bad = b'{"messages": [{"role": "user", "content": "hm"}, {"role": "asistant", "content": "x"}]}\n'
    files["train.jsonl"] += bad
    report = await call(client, "inspect_dataset", data="org/tone", model="model", max_seq_length=64)
    rows = rows_of(files["train.jsonl"])
    assert report["data"] == "org/tone"
    assert report["splits"]["train"]["lines"] == rows
    assert report["splits"]["train"]["path"] == "org/tone/train.jsonl"
    assert report["tokens"]["splits"]["train"]["rows_measured"] >= rows - 1
    found = {(finding["file"], finding.get("line")): finding["message"] for finding in report["findings"]}
    assert "no assistant message" in found["org/tone/train.jsonl", rows]
    assert "validation" in found["org/tone", None], "mlx-lm reads only a split named valid"
    assert "'valid_split': 'validation'" in found["org/tone", None]
    assert list(the_hub.iterdir()) == []


async def test_planned_and_trained_as_it_is(client: Client, files: dict[str, bytes], the_hub: Path):
    plan = await call(client, "plan_training", model="model", data="org/tone", goal="fast")
    rows = rows_of(files["train.jsonl"])
    assert plan["data"]["rows"] == rows
    assert plan["arguments"]["data"] == "org/tone"
    started = await call(client, "start_lora_training", **plan["arguments"] | {"iters": 2})
    end = await end_of(client, started["job_id"])
    assert end["status"] == "completed", end
    assert rows_trained(started["job_id"]) == rows
    assert list(the_hub.iterdir()) == []


async def test_prepared_into_a_folder(client: Client, project: Path, files: dict[str, bytes], the_hub: Path):
    # Columns that mlx-lm does not know: prepare_dataset is what they are for.
    rows = [{"instruction": f"What is {n}?", "output": f"It is the number {n}."} for n in range(40)]
    files["train.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    for name in ("validation.jsonl", "test.jsonl"):
        del files[name]
    report = await call(client, "prepare_dataset", source="org/tone", output="out", near_duplicates="ignore")
    assert sum(report["rows"].values()) == 40
    assert report["read"] == {"train.jsonl": 40}
    record = json.loads((project / "out" / "preparation.json").read_text())
    assert record["prepare_dataset"]["source"] == "org/tone"
    assert (await call(client, "inspect_dataset", data="out"))["ok"]
    assert list(the_hub.iterdir()) == []


async def test_hf_dataset_means_the_same_to_every_tool(client: Client, project: Path, no_hub: Path):
    """Two data sets of one call, with other field names and splits, one of Parquet; paths below the project."""
    import pyarrow
    import pyarrow.parquet

    one = [{"frage": f"Wie viel ist {n}?", "antwort": f"{n}, denke ich."} for n in range(20)]
    two = [{"prompt": f"Say {n}", "completion": f"{n} it is"} for n in range(10)]
    for name in ("one", "two"):
        (project / "sets" / name).mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(one), project / "sets" / "one" / "train.parquet")
    (project / "sets" / "two" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in two))
    features = {"prompt_feature": "frage", "completion_feature": "antwort"}
    sets: list[dict[str, Any]] = [
        {"path": "sets/one", "train_split": "train[:80%]", "valid_split": "train[80%:]"} | features,
        {"path": "sets/two", "train_split": "train[:9]", "valid_split": "train[9:]"},
    ]
    report = await call(client, "inspect_dataset", data="both", hf_dataset=sets, model="model")
    assert report["ok"], report["findings"]
    assert {name: split["lines"] for name, split in report["splits"].items()} == {"train": 25, "valid": 5}
    assert report["splits"]["train"]["formats"] == {"completions": 25}
    assert report["splits"]["train"]["path"] == "sets/one + sets/two/train.jsonl"
    assert "Wie viel ist 0?" in json.dumps(report["tokens"]["example"])
    plan = await call(client, "plan_training", model="model", data="both", hf_dataset=sets)
    assert plan["data"]["rows"] == 25
    assert plan["arguments"]["hf_dataset"] == sets
    started = await call(client, "start_lora_training", **plan["arguments"] | {"iters": 2})
    end = await end_of(client, started["job_id"])
    assert end["status"] == "completed", end
    assert rows_trained(started["job_id"]) == 25
    prepared = await call(client, "prepare_dataset", source="both", hf_dataset=sets, output="out")
    assert sum(prepared["read"].values()) == 30
    assert list(no_hub.iterdir()) == []


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_name_that_the_hub_does_not_know(tool: str, client: Client, project: Path, the_hub: Path):
    arguments = {key: value.replace("org/tone", "org/nothing") for key, value in TOOLS[tool].items()}
    text = await refusal(client, tool, **arguments)
    assert "org/nothing does not exist on the Hub, or is private" in text
    assert list(the_hub.iterdir()) == []
    assert not (project / "out").exists()


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_hub_that_can_not_be_reached(tool: str, client: Client, project: Path, no_hub: Path):
    text = await refusal(client, tool, **TOOLS[tool])  # HF_HUB_OFFLINE is set for all tests
    assert "org/tone is not on this machine, and the Hub can't be reached" in text
    assert list(no_hub.iterdir()) == []
    assert not (project / "out").exists()


async def test_training_says_so_too(client: Client, project: Path, no_hub: Path):
    started = await call(client, "start_lora_training", **training(data="org/tone"))
    end = await end_of(client, started["job_id"])
    assert end["status"] == "failed"
    assert "the Hub can't be reached" in end["why"]
    assert not (project / "adapters" / "test").exists()


async def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(client: Client, project: Path, the_hub: Path):
    assert "does not exist" in await refusal(client, "inspect_dataset", data="data/none")
    assert "does not exist" in await refusal(client, "prepare_dataset", source="raw/rows.csv", output="out")


def pretend(library: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another library ``datasets`` for the processes that are started."""
    library.mkdir()
    (library / "datasets.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(library))


async def test_a_missing_library_is_named(
    client: Client, project: Path, no_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pretend(tmp_path / "library", "raise ModuleNotFoundError('no', name='datasets')", monkeypatch)
    text = await refusal(client, "inspect_dataset", data="org/tone")
    assert "needs the library 'datasets'" in text and "uv pip install" in text


async def test_a_library_that_would_run_a_data_sets_code_is_not_used(
    client: Client, project: Path, no_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code = f"__version__ = '3.6.0'\ndef load_dataset(*_, **__): open({str(tmp_path / 'ran')!r}, 'w')"
    pretend(tmp_path / "library", code, monkeypatch)
    assert "runs code that comes with data" in await refusal(client, "inspect_dataset", data="org/tone")
    started = await call(client, "start_lora_training", **training(data="org/tone"))
    assert "runs code that comes with data" in (await end_of(client, started["job_id"]))["why"]
    assert not (tmp_path / "ran").exists()


async def test_code_that_comes_with_a_data_set_is_not_run(client: Client, project: Path, no_hub: Path, tmp_path: Path):
    scripted = project / "scripted"
    scripted.mkdir()
    (scripted / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    text = await refusal(client, "inspect_dataset", data="x", hf_dataset={"path": "scripted"})
    assert "scripted can't be used" in text
    started = await call(client, "start_lora_training", **training(hf_dataset={"path": "scripted"}))
    assert (await end_of(client, started["job_id"]))["status"] == "failed"
    trusted = {"path": "scripted", "config": {"trust_remote_code": True}}
    for tool, arguments in (("inspect_dataset", {"data": "x"}), ("start_lora_training", training())):
        text = await refusal(client, tool, **arguments | {"hf_dataset": trusted})
        assert "never run" in text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "must not be empty"),
        ({"path": " "}, "path"),
        ([{"name": "x"}], "path"),
        ({"path": "x", "config": {"token": "hf" + "_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3x"}}, "access token"),
    ],
)
async def test_hf_dataset_that_names_nothing(value: Any, words: str, client: Client, project: Path):
    text = await refusal(client, "inspect_dataset", data="x", hf_dataset=value)
    assert words in text
    assert "aB3dE5fG7" not in text
