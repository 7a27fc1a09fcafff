"""Every layout and kind of file becomes rows of mlx-lm's; what can't is named with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_server.datasets.rows import CHAT, format_of
from mcp_server.datasets.text import training_text
from mcp_server.errors import DataError
from tests.unit.datasets.conftest import Prepare, chat, good_rows, jsonl, put, result, tree

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
    "alpaca with history": (
        {"instruction": "And of Chile?", "output": "Santiago.", "history": [[QUESTION, ANSWER]], "system": "Be brief"},
        {"messages": [SYSTEM, *EXPECTED["messages"], *chat("And of Chile?", "Santiago.")["messages"]]},
    ),
    "history in a table": (
        {"question": "And of Chile?", "answer": "Santiago.", "history": json.dumps([[QUESTION, ANSWER]])},
        {"messages": [*EXPECTED["messages"], *chat("And of Chile?", "Santiago.")["messages"]]},
    ),
    "kto": ({"prompt": QUESTION, "completion": ANSWER, "label": True, "rejected": None}, EXPECTED),
    "prompt with tools": (
        {"prompt": QUESTION, "response": ANSWER, "tools": [{"type": "function"}]},
        {**EXPECTED, "tools": [{"type": "function"}]},
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
    put(tmp_path / "source.jsonl", jsonl([given_row]))
    report = prepare("source.jsonl", valid=0, test=0)
    assert result(tmp_path / "out") == [expected]
    assert report.rows == {"train": 1}
    assert report.format == format_of(expected)
    unused = [name for name in given_row if name in ("id", "url")]
    assert report.warnings == [
        f"columns not used: {name} (1 rows); name with mapping what belongs into the rows" for name in unused
    ]


def test_tools_and_calls_survive(tmp_path: Path, prepare: Prepare):
    call = {"type": "function", "function": {"name": "clock", "arguments": {"city": "Lima"}}}
    tools = [{"type": "function", "function": {"name": "clock"}}]
    turns = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "noon", "name": "clock"},
        {"role": "assistant", "content": "It is noon."},
    ]
    put(tmp_path / "source.jsonl", jsonl([{"messages": turns, "tools": json.dumps(tools)}]))
    prepare("source.jsonl", valid=0, test=0)
    (row,) = result(tmp_path / "out")
    assert row["tools"] == tools
    assert row["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert row["messages"][2] == turns[2]


def test_a_mapping_names_other_columns(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "s.jsonl", jsonl([{"Frage": QUESTION, "Antwort": ANSWER, "Rolle": "Be brief"}]))
    prepare("s.jsonl", mapping={"prompt": "Frage", "completion": "Antwort", "system": "Rolle"}, valid=0, test=0)
    assert result(tmp_path / "out") == [{"messages": [SYSTEM, *EXPECTED["messages"]]}]
    with pytest.raises(DataError, match=r"s\.jsonl:1 has no column 'question'.*Frage"):
        prepare("s.jsonl", output="other", mapping={"text": "question"})


def test_columns_that_are_not_used_are_counted_where_they_held_something(tmp_path: Path, prepare: Prepare):
    rows = [
        {
            "prompt": f"{QUESTION} {n}",
            "chosen": f"{ANSWER} {n}",
            "rejected": "Cusco",
            "score": 0,
            "note": "x" * (n // 8),
        }
        for n in range(10)
    ]
    put(tmp_path / "s.jsonl", jsonl(rows))
    (warning,) = prepare("s.jsonl", valid=0, test=0).warnings
    assert warning.startswith("columns not used: rejected (10 rows), score (10 rows), note (2 rows); ")
    mapping = {"prompt": "prompt", "completion": "chosen"}
    (warning,) = prepare("s.jsonl", output="mapped", mapping=mapping, valid=0, test=0).warnings
    assert "rejected (10 rows)" in warning


def test_an_answer_that_is_marked_as_bad_is_left_out(tmp_path: Path, prepare: Prepare):
    rows = [{"prompt": f"{QUESTION} {n}", "completion": ANSWER, "label": n < 3} for n in range(5)]
    put(tmp_path / "s.jsonl", jsonl(rows))
    report = prepare("s.jsonl", valid=0, test=0)
    assert report.rows == {"train": 3}
    assert [(dropped.reason, dropped.rows) for dropped in report.dropped] == [("marked-bad", 2)]
    assert report.dropped[0].examples[0].startswith("s.jsonl:4 has 'label' false")
    mapping = {"prompt": "prompt", "completion": "completion"}
    assert prepare("s.jsonl", output="mapped", mapping=mapping, valid=0, test=0).rows == {"train": 5}
    # A column that is the answer is no verdict on one.
    put(tmp_path / "b.jsonl", jsonl([{"question": f"{n}?", "label": "false"} for n in range(5)]))
    mapping = {"prompt": "question", "completion": "label"}
    assert prepare("b.jsonl", output="answers", mapping=mapping, valid=0, test=0).rows == {"train": 5}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("history", [["only a question"]], "bad-turns"),
        ("history", "Tell me more", "bad-turns"),
        ("input", {"city": "Lima"}, "wrong-type"),
        ("system", ["Be brief"], "wrong-type"),
    ],
)
def test_a_part_that_can_not_be_used_is_not_left_out_of_its_row(
    tmp_path: Path, prepare: Prepare, column: str, value: Any, reason: str
):
    rows = [{"instruction": QUESTION, "output": ANSWER, column: value}, {"instruction": "Why?", "output": "So."}]
    put(tmp_path / "s.jsonl", jsonl(rows))
    report = prepare("s.jsonl", valid=0, test=0)
    assert result(tmp_path / "out") == [chat("Why?", "So.")]
    assert [(dropped.reason, dropped.rows) for dropped in report.dropped] == [(reason, 1)]
    assert repr(column) in report.dropped[0].examples[0]


def test_formats_can_be_chosen(tmp_path: Path, prepare: Prepare):
    put(tmp_path / "s.jsonl", jsonl([EXPECTED, {"messages": [SYSTEM, *EXPECTED["messages"]]}]))
    report = prepare("s.jsonl", format="completions", valid=0, test=0)
    assert result(tmp_path / "out") == [{"prompt": QUESTION, "completion": ANSWER}]
    assert report.dropped[0].examples[0].startswith("s.jsonl:2 ")
    prepare("s.jsonl", output="with-system", system="Be kind", valid=0, test=0)
    systems = [row["messages"][0]["content"] for row in result(tmp_path / "with-system")]
    assert sorted(systems) == ["Be brief", "Be kind"]


def test_completions_have_no_place_for_a_system_message(tmp_path: Path, prepare: Prepare):
    with pytest.raises(ValueError, match="no place for system"):
        prepare("s.jsonl", format="completions", system="Be kind")
    rows = [{"system_prompt": f"Be brief {n}", "question": f"{QUESTION} {n}", "response": ANSWER} for n in range(4)]
    put(tmp_path / "s.jsonl", jsonl(rows))
    with pytest.raises(DataError, match="has a system message; only format='chat' can hold it"):
        prepare("s.jsonl", format="completions", valid=0, test=0)


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
    put(tmp_path / name, FILES[name])
    prepare(name, valid=0, test=0)
    assert result(tmp_path / "out") == [EXPECTED]


def test_parquet_is_read_when_pyarrow_is_there(tmp_path: Path, prepare: Prepare):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet  # pyright: ignore

    parquet.write_table(pyarrow.table({"prompt": [QUESTION], "response": [ANSWER]}), tmp_path / "s.parquet")
    prepare("s.parquet", valid=0, test=0)
    assert result(tmp_path / "out") == [EXPECTED]
    put(tmp_path / "bad.parquet", b"PAR1 but not really")
    with pytest.raises(DataError, match=r"bad\.parquet can't be read: it is not a Parquet file"):
        prepare("bad.parquet", output="other")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
):
    # A package that fails to import as a missing one does stands before any that is installed.
    put(tmp_path / "path" / "pyarrow" / "__init__.py", "raise ModuleNotFoundError('pyarrow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    put(tmp_path / "s.parquet", b"PAR1")
    with pytest.raises(DataError, match=r"s\.parquet .*uv sync --extra parquet"):
        prepare("s.parquet")
    assert not (tmp_path / "out").exists()


def test_a_long_json_array_is_read_item_by_item_with_lines(tmp_path: Path, prepare: Prepare):
    rows = [*good_rows(3000), {"messages": "none"}, *good_rows(10, 5000)]
    put(tmp_path / "s.json", "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    assert (tmp_path / "s.json").stat().st_size > 200_000
    report = prepare("s.json")
    assert sum(report.rows.values()) == 3010
    assert report.dropped[0].examples[0].startswith("s.json:3002 ")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.json", '[{"text": "a"}, {"text": ', r"s\.json:1 is not valid JSON"),
        ("s.json", "hello", "neither a JSON array nor an object"),
        ("s.json", '[{"text": "a"}]\n\n[{"text": "b"}]', r"s\.json:1 goes on with '\[' after its array; put all rows"),
        ("s.json", '[{"text": "a"}]' + " " * (1 << 20) + "{}", r"goes on with '\{' after its array"),
        ("s.jsonl", '{"text": \n', r"no row of .* can be used: s\.jsonl:1 is not valid JSON"),
        ("s.jsonl", "", "it is empty"),
        ("s.csv", 'a,b\n"open', r"s\.csv:2 is not CSV that can be read"),
        ("s.csv", '"a"b,c\n1,2\n', r"s\.csv:1 is not CSV that can be read"),
        ("s.csv", 'question,answer\n"Why\nthis?",So.\nNo,"It is ""open\nto\nthe end\n', r"s\.csv:4 is not CSV"),
        ("s.tsv", 'question\tanswer\nWhy?\tSo.\n"Why" that?\tSo.\nNo\tYes\n', r"s\.tsv:3 is not CSV"),
        ("s.csv", b"question,answer\ncaf\xe9,x\n", "not UTF-8"),
        ("s.csv", "colour,shape\nred,round\n", r"s\.csv:2 has the columns colour, shape; .*mapping"),
        ("s.xlsx", "", r"\.xlsx"),
    ],
)
def test_a_source_that_can_not_be_used_says_why_and_leaves_nothing(
    tmp_path: Path, prepare: Prepare, name: str, text: str | bytes, message: str
):
    put(tmp_path / name, text)
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
    put(tmp_path / "s.jsonl", jsonl(rows) + "{bad\n")
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
    put(tmp_path / "s.jsonl", jsonl([*short, *long]))
    report = prepare("s.jsonl", min_characters=12, valid=0, test=0, output="a")
    assert [(dropped.reason, dropped.rows) for dropped in report.dropped] == [("too-short", 5)]
    assert report.dropped[0].examples[0] == "s.jsonl:1 has 11 characters, fewer than min_characters=12"
    report = prepare("s.jsonl", max_characters=11, valid=0, test=0, output="b")
    assert [(dropped.reason, dropped.rows) for dropped in report.dropped] == [("too-long", 5)]
    assert result(tmp_path / "b") != result(tmp_path / "a")


def test_a_folder_of_tables_is_read_whole_and_its_notes_are_not(tmp_path: Path, prepare: Prepare):
    source = tmp_path / "source"
    put(source / "a.jsonl", jsonl(good_rows(5)))
    put(source / "deep" / "b.csv", CSV)
    put(source / "README.md", "# Notes")
    put(source / ".cache" / "c.jsonl", jsonl(good_rows(5, 50)))
    report = prepare()
    assert report.read == {"a.jsonl": 5, "deep/b.csv": 1}
    assert report.ignored_files == ["README.md"]


def test_every_list_of_a_json_file_is_read_or_said_not_to_be(tmp_path: Path, prepare: Prepare):
    lists = {"train": good_rows(20), "test": good_rows(10, 100), "extra": good_rows(3, 200), "authors": ["one", "two"]}
    put(tmp_path / "s.json", json.dumps(lists))
    report = prepare("s.json", valid=0)
    assert report.rows == {"train": 20, "test": 10}
    assert report.kept == ["test"]
    assert [(dropped.reason, dropped.rows) for dropped in report.dropped] == [("list-not-read", 3)]
    assert "is in the list 'extra'; of the file's lists only train and test" in report.dropped[0].examples[0]
    put(tmp_path / "t.json", json.dumps({"notes": good_rows(3, 200), "data": good_rows(20)}))
    report = prepare("t.json", output="other")
    assert sum(report.rows.values()) == 20 and report.kept == []
    assert [(dropped.reason, dropped.rows) for dropped in report.dropped] == [("list-not-read", 3)]
    assert prepare("s.json", output="anew", resplit=True).rows == {"train": 24, "valid": 3, "test": 3}


def test_texts_are_cut_at_paragraphs_and_keep_every_word(tmp_path: Path, prepare: Prepare):
    paragraphs = [" ".join(f"w{n}x{m}" for m in range(30)) + "." for n in range(40)]
    put(tmp_path / "source" / "book.txt", "\n\n".join(paragraphs))
    report = prepare(chunk_characters=500)
    rows = [row["text"] for row in result(tmp_path / "out")]
    assert report.format == "text"
    assert all(len(row) <= 500 for row in rows)
    assert sorted(word for row in rows for word in row.split()) == sorted(
        word for p in paragraphs for word in p.split()
    )


def test_pieces_of_one_of_many_texts_stay_in_one_split(tmp_path: Path, prepare: Prepare):
    for n in range(25):
        put(tmp_path / "source" / f"{n}.md", "\n\n".join(f"file{n} paragraph{m} " * 8 for m in range(6)))
    report = prepare(chunk_characters=200)
    assert set(report.rows) == {"train", "valid", "test"}
    where: dict[str, set[str]] = {}
    for name in report.rows:
        for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines():
            where.setdefault(json.loads(line)["text"].split()[0], set()).add(name)
    assert len(where) == 25
    assert all(len(splits) == 1 for splits in where.values())


def test_every_row_written_is_one_that_mlx_lm_reads(tmp_path: Path, prepare: Prepare):
    rows = [given_row for given_row, expected in LAYOUTS.values() if "messages" in expected]
    put(tmp_path / "s.jsonl", jsonl(rows))
    prepare("s.jsonl", valid=0, test=0)
    written = result(tmp_path / "out")
    assert {format_of(row) for row in written} == {CHAT}
    assert len({training_text(row, CHAT) for row in written}) == len(written) == 6
