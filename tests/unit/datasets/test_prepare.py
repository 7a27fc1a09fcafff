"""prepare_dataset: from every layout to mlx-lm's, split without leaks, whole or not at all, never in place."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mcp_server.datasets.duplicates import SIMILAR, shingles, similarity
from mcp_server.datasets.preparation import PrepareReport, PrepareRequest
from mcp_server.datasets.prepare import prepare_dataset
from mcp_server.datasets.rows import CHAT, format_of
from mcp_server.datasets.split import assign
from mcp_server.datasets.staging import Staging
from mcp_server.datasets.text import training_text
from mcp_server.datasets.watch import Cancelled, Watch
from mcp_server.errors import DataError, PathError, explain
from tests.unit.datasets.conftest import Inspect, chat, good_rows
from tests.unit.datasets.test_duplicates import alike, variants

Prepare = Callable[..., PrepareReport]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Prepare ``source`` (a path in the test's folder) into ``out``."""

    def run(source: str = "source", **options: Any) -> PrepareReport:
        output = options.pop("output", "out")
        request = PrepareRequest(source=str(tmp_path / source), output=str(tmp_path / output), **options)
        return prepare_dataset(request, Watch())

    return run


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def result(folder: Path) -> list[dict[str, Any]]:
    """All rows written, in no order."""
    return [
        json.loads(line)
        for name in ("train", "valid", "test")
        if (folder / f"{name}.jsonl").exists()
        for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]


def tree(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with its hash."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


QUESTION, ANSWER = "What is the capital of Peru?", "Lima, since 1535."
EXPECTED = chat(QUESTION, ANSWER)
SYSTEM = {"role": "system", "content": "Be brief"}
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "openai": ({"messages": EXPECTED["messages"]}, EXPECTED),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
        EXPECTED,
    ),
    "sharegpt with system": (
        {
            "system": "Be brief",
            "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}],
        },
        {"messages": [SYSTEM, *EXPECTED["messages"]]},
    ),
    "conversations with roles": ({"conversations": EXPECTED["messages"]}, EXPECTED),
    "alpaca": ({"instruction": QUESTION, "input": "", "output": ANSWER}, EXPECTED),
    "alpaca with input": (
        {"instruction": "Answer.", "input": QUESTION, "output": ANSWER},
        chat(f"Answer.\n\n{QUESTION}", ANSWER),
    ),
    "prompt and completion": ({"prompt": QUESTION, "completion": ANSWER}, EXPECTED),
    "prompt and response": ({"prompt": QUESTION, "response": ANSWER}, EXPECTED),
    "question and answer": ({"id": 7, "Question": QUESTION, "Answer": ANSWER}, EXPECTED),
    "system prompt": (
        {"system_prompt": "Be brief", "question": QUESTION, "response": ANSWER},
        {"messages": [SYSTEM, *EXPECTED["messages"]]},
    ),
    "text": ({"text": ANSWER}, {"text": ANSWER}),
    "content": ({"content": ANSWER, "url": "https://example.org"}, {"text": ANSWER}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_a_row_of_mlx_lm(tmp_path: Path, prepare: Prepare, layout: str):
    given_row, expected = LAYOUTS[layout]
    write(tmp_path / "source.jsonl", jsonl([given_row]))
    report = prepare("source.jsonl", valid=0, test=0)
    assert result(tmp_path / "out") == [expected]
    assert report.rows == {"train": 1}
    assert report.format == format_of(expected)


def test_tools_and_calls_survive(tmp_path: Path, prepare: Prepare):
    call = {"type": "function", "function": {"name": "clock", "arguments": {"city": "Lima"}}}
    tools = [{"type": "function", "function": {"name": "clock"}}]
    turns = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "noon", "name": "clock"},
        {"role": "assistant", "content": "It is noon."},
    ]
    write(tmp_path / "source.jsonl", jsonl([{"messages": turns, "tools": json.dumps(tools)}]))
    prepare("source.jsonl", valid=0, test=0)
    (row,) = result(tmp_path / "out")
    assert row["tools"] == tools
    assert row["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert row["messages"][2] == turns[2]


def test_a_mapping_names_other_columns(tmp_path: Path, prepare: Prepare):
    write(tmp_path / "s.jsonl", jsonl([{"Frage": QUESTION, "Antwort": ANSWER, "Rolle": "Be brief"}]))
    prepare("s.jsonl", mapping={"prompt": "Frage", "completion": "Antwort", "system": "Rolle"}, valid=0, test=0)
    assert result(tmp_path / "out") == [{"messages": [SYSTEM, *EXPECTED["messages"]]}]
    with pytest.raises(DataError, match=r"s\.jsonl:1 has no column 'question'.*Frage"):
        prepare("s.jsonl", output="other", mapping={"text": "question"})


def test_formats_can_be_chosen(tmp_path: Path, prepare: Prepare):
    write(tmp_path / "s.jsonl", jsonl([EXPECTED, {"messages": [SYSTEM, *EXPECTED["messages"]]}]))
    report = prepare("s.jsonl", format="completions", valid=0, test=0)
    assert result(tmp_path / "out") == [{"prompt": QUESTION, "completion": ANSWER}]
    assert report.dropped[0].examples[0].startswith("s.jsonl:2 ")
    prepare("s.jsonl", output="with-system", system="Be kind", valid=0, test=0)
    systems = [row["messages"][0]["content"] for row in result(tmp_path / "with-system")]
    assert sorted(systems) == ["Be brief", "Be kind"]


CSV = 'question,answer\n"What is the capital of Peru?","Lima, since 1535."\n'
FILES: dict[str, str | bytes] = {
    "s.jsonl": jsonl([{"prompt": QUESTION, "completion": ANSWER}]),
    "bom.jsonl": b"\xef\xbb\xbf" + jsonl([{"prompt": QUESTION, "completion": ANSWER}]).encode() + b"\n\n",
    "array.json": json.dumps([{"prompt": QUESTION, "completion": ANSWER}], indent=2),
    "wrapped.json": json.dumps({"version": 1, "data": [{"prompt": QUESTION, "completion": ANSWER}]}),
    "single.json": json.dumps({"prompt": QUESTION, "completion": ANSWER}, indent=2),
    "one-conversation.json": json.dumps(
        {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]}
    ),
    "lines.json": jsonl([{"prompt": QUESTION, "completion": ANSWER}, {"prompt": QUESTION, "completion": ANSWER}]),
    "s.csv": CSV,
    "bom.csv": b"\xef\xbb\xbf" + CSV.encode(),
    "semicolon.csv": f'question;answer\n"{QUESTION}";"{ANSWER}"\n',
    "s.tsv": f"question\tanswer\n{QUESTION}\t{ANSWER}\n",
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read(tmp_path: Path, prepare: Prepare, name: str):
    write(tmp_path / name, FILES[name])
    prepare(name, valid=0, test=0)
    assert result(tmp_path / "out") == [EXPECTED]


def test_parquet_is_read_when_pyarrow_is_there(tmp_path: Path, prepare: Prepare):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet  # pyright: ignore

    parquet.write_table(pyarrow.table({"prompt": [QUESTION], "response": [ANSWER]}), tmp_path / "s.parquet")
    prepare("s.parquet", valid=0, test=0)
    assert result(tmp_path / "out") == [EXPECTED]
    write(tmp_path / "bad.parquet", b"PAR1 but not really")
    with pytest.raises(DataError, match=r"bad\.parquet can't be read: it is not a Parquet file"):
        prepare("bad.parquet", output="other")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
):
    # A package that fails to import as a missing one does stands before any that is installed.
    write(tmp_path / "path" / "pyarrow" / "__init__.py", "raise ModuleNotFoundError('pyarrow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    write(tmp_path / "s.parquet", b"PAR1")
    with pytest.raises(DataError, match=r"s\.parquet .*uv sync --extra parquet"):
        prepare("s.parquet")
    assert not (tmp_path / "out").exists()


def test_a_long_json_array_is_read_item_by_item_with_lines(tmp_path: Path, prepare: Prepare):
    rows = [*good_rows(3000), {"messages": "none"}, *good_rows(10, 5000)]
    write(tmp_path / "s.json", "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    assert (tmp_path / "s.json").stat().st_size > 200_000
    report = prepare("s.json")
    assert sum(report.rows.values()) == 3010
    assert report.dropped[0].examples[0].startswith("s.json:3002 ")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.json", '[{"text": "a"}, {"text": ', r"s\.json:1 is not valid JSON"),
        ("s.json", "hello", "neither a JSON array nor an object"),
        ("s.jsonl", '{"text": \n', r"no row of .* can be used: s\.jsonl:1 is not valid JSON"),
        ("s.jsonl", "", "it is empty"),
        ("s.csv", 'a,b\n"open', "not CSV that can be read"),
        ("s.csv", b"question,answer\ncaf\xe9,x\n", "not UTF-8"),
        ("s.csv", "colour,shape\nred,round\n", r"s\.csv:2 has the columns colour, shape; .*mapping"),
        ("s.xlsx", "", r"\.xlsx"),
    ],
)
def test_a_source_that_can_not_be_used_says_why_and_leaves_nothing(
    tmp_path: Path, prepare: Prepare, name: str, text: str | bytes, message: str
):
    write(tmp_path / name, text)
    before = tree(tmp_path)
    with pytest.raises(DataError, match=message):
        prepare(name, output="new/deep/out")
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_rows_left_out_are_counted_by_reason_with_file_and_line(tmp_path: Path, prepare: Prepare):
    rows = [
        *good_rows(6),
        good_rows(1)[0],
        {"prompt": "a", "completion": ""},
        {"prompt": "b", "completion": None},
        {"conversations": [{"from": "alien", "value": "zz"}]},
        {"text": "plain text among chats"},
        {"messages": [{"role": "user", "content": "and the answer?"}]},
        {"colour": "red"},
    ]
    write(tmp_path / "s.jsonl", jsonl(rows) + "{bad\n")
    report = prepare("s.jsonl")
    reasons = {dropped.reason: dropped for dropped in report.dropped}
    assert {reason: dropped.examples[0].split(" ")[0] for reason, dropped in reasons.items()} == {
        "duplicate": "s.jsonl:7",
        "empty": "s.jsonl:8",
        "unknown-role": "s.jsonl:10",
        "mixed-formats": "s.jsonl:11",
        "no-assistant": "s.jsonl:12",
        "unknown-layout": "s.jsonl:13",
        "bad-json": "s.jsonl:14",
    }
    assert reasons["empty"].rows == 2
    assert report.dropped_rows == 8
    assert report.read == {"s.jsonl": 14}
    assert sum(report.rows.values()) == 6


def test_rows_are_filtered_by_length(tmp_path: Path, prepare: Prepare):
    short = [{"text": "x" * 10 + str(n)} for n in range(5)]
    long = [{"text": f"{n} " * 40} for n in range(5)]
    write(tmp_path / "s.jsonl", jsonl([*short, *long]))
    report = prepare("s.jsonl", min_characters=12, valid=0, test=0, output="a")
    assert [(dropped.reason, dropped.rows) for dropped in report.dropped] == [("too-short", 5)]
    assert report.dropped[0].examples[0] == "s.jsonl:1 has 11 characters, fewer than min_characters=12"
    report = prepare("s.jsonl", max_characters=11, valid=0, test=0, output="b")
    assert [(dropped.reason, dropped.rows) for dropped in report.dropped] == [("too-long", 5)]
    assert result(tmp_path / "b") != result(tmp_path / "a")


def test_a_folder_of_tables_is_read_whole_and_its_notes_are_not(tmp_path: Path, prepare: Prepare):
    source = tmp_path / "source"
    write(source / "a.jsonl", jsonl(good_rows(5)))
    write(source / "deep" / "b.csv", CSV)
    write(source / "README.md", "# Notes")
    write(source / ".cache" / "c.jsonl", jsonl(good_rows(5, 50)))
    report = prepare()
    assert report.read == {"a.jsonl": 5, "deep/b.csv": 1}
    assert report.ignored_files == ["README.md"]


def test_texts_are_cut_at_paragraphs_and_keep_every_word(tmp_path: Path, prepare: Prepare):
    paragraphs = [" ".join(f"w{n}x{m}" for m in range(30)) + "." for n in range(40)]
    write(tmp_path / "source" / "book.txt", "\n\n".join(paragraphs))
    report = prepare(chunk_characters=500)
    rows = [row["text"] for row in result(tmp_path / "out")]
    assert report.format == "text"
    assert all(len(row) <= 500 for row in rows)
    assert sorted(word for row in rows for word in row.split()) == sorted(
        word for p in paragraphs for word in p.split()
    )


def test_pieces_of_one_of_many_texts_stay_in_one_split(tmp_path: Path, prepare: Prepare):
    for n in range(25):
        write(tmp_path / "source" / f"{n}.md", "\n\n".join(f"file{n} paragraph{m} " * 8 for m in range(6)))
    report = prepare(chunk_characters=200)
    assert set(report.rows) == {"train", "valid", "test"}
    where: dict[str, set[str]] = {}
    for name in report.rows:
        for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines():
            where.setdefault(json.loads(line)["text"].split()[0], set()).add(name)
    assert len(where) == 25
    assert all(len(splits) == 1 for splits in where.values())


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
    write(folder / "s.jsonl", jsonl([{"text": text} for text in [*texts, *texts[:3]]]))
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
    write(tmp_path / "s.jsonl", jsonl([*rows, *rows[:5], {"messages": []}]))
    prepare("s.jsonl")
    report = inspect(data=str(tmp_path / "out"))
    assert report.ok
    assert report.duplicates.exact == 0
    assert (report.duplicates.leaked_exact, report.duplicates.leaked_near) == ({}, {})


def test_near_duplicates_can_be_dropped_or_left_alone(tmp_path: Path, prepare: Prepare, inspect: Inspect):
    texts = variants(4, 50, (30, 60))
    expected = len({later for _, later in alike(texts)})
    assert expected > 20
    write(tmp_path / "s.jsonl", jsonl([{"text": text} for text in texts]))
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
    write(tmp_path / "s.jsonl", jsonl(good_rows(1000)))
    assert prepare("s.jsonl", valid=0.05, test=0.2).rows == {"train": 750, "valid": 50, "test": 200}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path, prepare: Prepare):
    write(tmp_path / "s.jsonl", jsonl([{"text": text} for text in variants(5, 60, (8, 40))]))
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        prepare("s.jsonl", output=name, seed=seed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert tree(tmp_path / "a")["test.jsonl"] != tree(tmp_path / "c")["test.jsonl"]


def test_the_source_is_never_touched(tmp_path: Path, prepare: Prepare):
    source = tmp_path / "source"
    write(source / "train.jsonl", jsonl(good_rows(20)) + "\n")
    write(source / "deep" / "b.csv", CSV)
    before = tree(source), sorted(source.rglob("*"))
    prepare()
    assert (tree(source), sorted(source.rglob("*"))) == before


@pytest.mark.parametrize("taken", ["folder", "file", "link"])
def test_an_output_that_exists_is_refused(tmp_path: Path, prepare: Prepare, taken: str):
    write(tmp_path / "s.jsonl", jsonl(good_rows(5)))
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
    write(tmp_path / "source" / "s.jsonl", jsonl(good_rows(5)))
    with pytest.raises(PathError, match="inside the source"):
        prepare(output="source/out")


def test_an_output_that_appears_meanwhile_is_not_overwritten(tmp_path: Path):
    out = tmp_path / "out"

    def somebody_else_is_quicker() -> None:
        with Staging(out) as staging:
            (staging.folder / "train.jsonl").write_text("{}\n")
            write(out / "mine", "precious")
            staging.publish()

    with pytest.raises(PathError, match="already there"):
        somebody_else_is_quicker()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert tree(out).keys() == {"mine"}


def test_a_full_disk_leaves_nothing(tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "s.jsonl", jsonl(good_rows(5)))

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mcp_server.datasets.prepare.write_json", full)
    with pytest.raises(PathError, match="No space left on device; nothing was left"):
        prepare("s.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


def test_a_cancelled_call_leaves_nothing(tmp_path: Path):
    write(tmp_path / "s.jsonl", jsonl(good_rows(2000)))
    watch = Watch()
    watch.cancel()
    with pytest.raises(Cancelled):
        prepare_dataset(PrepareRequest(source=str(tmp_path / "s.jsonl"), output=str(tmp_path / "out")), watch)
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


def test_what_a_killed_call_left_is_gone_after_the_next_and_a_living_one_is_spared(tmp_path: Path, prepare: Prepare):
    write(tmp_path / "s.jsonl", jsonl(good_rows(50)))
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
    write(tmp_path / "s.jsonl", jsonl(good_rows(5)))
    for name, age in ((".young.1.preparing", 0), (".old.1.preparing", 3600)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    prepare("s.jsonl")
    assert {path.name for path in tmp_path.glob(".*")} == {".young.1.preparing"}


def test_the_result_says_how_it_was_made(tmp_path: Path, prepare: Prepare):
    source = write(tmp_path / "s.jsonl", jsonl(good_rows(30)))
    prepare("s.jsonl", seed=3)
    record = json.loads((tmp_path / "out" / "preparation.json").read_text())
    assert record["prepare_dataset"]["seed"] == 3
    assert record["files"] == {"s.jsonl": {"rows": 30, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}}
    assert record["rows"] == {"train": 24, "valid": 3, "test": 3}


def test_secrets_are_warned_of_by_kind_and_place(tmp_path: Path, prepare: Prepare):
    secret = "ghp" + "_" + "Ab1" * 12
    write(tmp_path / "s.jsonl", jsonl([*good_rows(5), chat("token?", f"It is {secret}")]))
    report = prepare("s.jsonl")
    assert any("GitHub token (s.jsonl:6)" in warning for warning in report.warnings)
    assert secret not in report.model_dump_json()


def test_a_system_prompt_in_every_row_does_not_bind_them_together(tmp_path: Path, prepare: Prepare):
    system = {"role": "system", "content": "You are the help desk of a shop and answer kindly, briefly and truly. " * 5}
    write(tmp_path / "s.jsonl", jsonl([{"messages": [system, *row["messages"]]} for row in good_rows(40)]))
    report = prepare("s.jsonl")
    assert report.near_groups == 0
    assert report.rows == {"train": 32, "valid": 4, "test": 4}


def test_too_few_groups_for_the_splits_are_said(tmp_path: Path, prepare: Prepare):
    text = " ".join(f"word{n}" for n in range(50))
    write(tmp_path / "s.jsonl", jsonl([{"text": f"{text} {n}"} for n in range(20)]))
    report = prepare("s.jsonl")
    assert report.rows == {"train": 20}
    assert sum("could not be made" in warning for warning in report.warnings) == 2
    assert any("20 of 20 rows are in one group" in warning for warning in report.warnings)


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


def test_every_row_written_is_one_that_mlx_lm_reads(tmp_path: Path, prepare: Prepare):
    rows = [given_row for given_row, expected in LAYOUTS.values() if "messages" in expected]
    write(tmp_path / "s.jsonl", jsonl(rows))
    prepare("s.jsonl", valid=0, test=0)
    written = result(tmp_path / "out")
    assert {format_of(row) for row in written} == {CHAT}
    assert len({training_text(row, CHAT) for row in written}) == len(written) == 3
