"""Every defect of a data set is found and named with file, line and severity, and nothing is found in a good one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mcp_server.datasets.findings import Finding
from mcp_server.datasets.folder import check_for_training
from mcp_server.datasets.inspect import inspect_dataset
from mcp_server.datasets.report import InspectReport, InspectRequest
from mcp_server.datasets.watch import Cancelled, Watch
from mcp_server.errors import DataError
from tests.unit.datasets.conftest import Inspect, Write, chat, good_rows

USER = {"role": "user", "content": "Tell me the time in Rome"}
ASSISTANT = {"role": "assistant", "content": "It is noon there"}


def found(report: InspectReport, code: str) -> Finding:
    codes = {finding.code: finding for finding in report.findings}
    assert code in codes, sorted(codes)
    return codes[code]


def test_a_good_data_set_has_no_findings(write: Write, inspect: Inspect):
    write("train.jsonl", *good_rows(8))
    write("valid.jsonl", *good_rows(4, 100))
    write("test.jsonl", *good_rows(4, 200))
    report = inspect()
    assert report.ok
    assert report.findings == []
    assert report.splits["train"].formats == {"chat": 8}
    assert report.splits["train"].roles == {"user": 8, "assistant": 8}
    assert report.splits["train"].turns == (2, 2, 2)
    assert report.duplicates.exact == 0 and report.duplicates.near == 0


# Every row of the error table about one line (facts/mlx.md, section 1), and what mlx-lm takes silently.
LINES: list[tuple[str, Any, str]] = [
    ("blank-line", "", "error"),
    ("blank-line", "   ", "error"),
    ("bad-json", '{"messages": [', "error"),
    ("not-a-number", '{"text": NaN}', "error"),
    ("not-an-object", '"text"', "error"),
    ("unknown-format", {"question": "a", "answer": "b"}, "error"),
    ("bom", b"\xef\xbb\xbf" + json.dumps(chat("hello", "good day")).encode(), "error"),
    ("mixed-formats", {"text": "a row of plain text"}, "error"),
    ("mixed-formats", {"prompt": "What?", "completion": "That."}, "error"),
    ("unknown-role", {"messages": [{"role": "human", "content": "hi"}, ASSISTANT]}, "error"),
    ("missing-role", {"messages": [{"content": "hi"}, ASSISTANT]}, "error"),
    ("missing-role", {"messages": [{"from": "human", "value": "hi"}, ASSISTANT]}, "error"),
    ("empty", {"messages": [USER, {"role": "assistant", "content": None}]}, "error"),
    ("empty", {"messages": [USER, {"role": "assistant"}]}, "error"),
    ("empty", {"messages": [USER, {"role": "assistant", "content": " \n"}]}, "error"),
    ("empty", {"messages": []}, "error"),
    ("no-assistant", {"messages": [USER]}, "error"),
    ("last-not-assistant", {"messages": [USER, ASSISTANT, USER]}, "error"),
    ("late-system", {"messages": [USER, {"role": "system", "content": "Be brief"}, ASSISTANT]}, "warning"),
    ("repeated-role", {"messages": [USER, USER, ASSISTANT]}, "warning"),
    ("wrong-type", {"messages": "hi"}, "error"),
    ("wrong-type", {"messages": [USER, {"role": "assistant", "content": 7}]}, "error"),
    ("wrong-type", {"messages": [USER, ASSISTANT], "tools": "none"}, "error"),
    ("wrong-type", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ASSISTANT]}, "error"),
    ("ambiguous-format", {"messages": [USER, ASSISTANT], "text": "Rome"}, "warning"),
    ("ignored-key", {"messages": [USER, ASSISTANT], "system": "Be brief"}, "warning"),
    ("encoding", '{"messages": "caf\xe9"}'.encode("latin-1"), "error"),
    ("encoding", chat("lost: \ufffd", "yes"), "warning"),
    ("encoding", '{"messages": [{"role": "user", "content": "\\ud83d"}, {"role": "assistant", "content": "x"}]}', "error"),
    ("encoding", json.dumps(chat("hello", "good day")).encode("utf-16"), "error"),
    ("garbled", chat("Was kostet das CafÃ©?", "Vier Euro"), "warning"),
    ("garbled", chat("It isnâ€™t here", "No"), "warning"),
    ("garbled", chat("null \x00 byte", "No"), "warning"),
    ("odd-length", chat("Why? " * 5000, "So"), "warning"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "line", "severity"), LINES)
def test_a_bad_line_is_named_with_file_and_line(write: Write, inspect: Inspect, code: str, line: Any, severity: str):
    folder = write("train.jsonl", *good_rows(4), line, *good_rows(3, 50))
    finding = found(inspect(), code)
    assert finding.severity == severity
    assert finding.file == str(folder / "train.jsonl")
    assert finding.line == 5
    assert finding.count == 1
    assert finding.text().startswith(f"{folder}/train.jsonl:5 ")


@pytest.mark.parametrize(("code", "line", "severity"), [case for case in LINES if case[2] == "error"])
def test_what_is_an_error_stops_a_training_before_it_starts(write: Write, code: str, line: Any, severity: str):
    folder = write("train.jsonl", *good_rows(4), line)
    with pytest.raises(DataError, match=r"train\.jsonl:5 "):
        check_for_training(folder, batch_size=2, validate=False, test=False)


def test_empty_text_rows_are_named(write: Write, inspect: Inspect):
    write("train.jsonl", {"text": "some words to learn"}, {"text": "  "}, {"text": None})
    report = inspect()
    assert (found(report, "empty").line, found(report, "wrong-type").line) == (2, 3)


def test_a_json_array_saved_as_jsonl_is_called_that(write: Write, inspect: Inspect):
    write("train.jsonl", json.dumps(good_rows(5)))
    assert "prepare_dataset" in found(inspect(), "json-array").message
    write("train.jsonl", *json.dumps(good_rows(2), indent=1).splitlines())
    assert found(inspect(), "json-array").line == 1


def test_findings_of_one_kind_are_counted_and_the_first_lines_kept(write: Write, inspect: Inspect):
    write("train.jsonl", *good_rows(3), *[""] * 40)
    finding = found(inspect(), "blank-line")
    assert (finding.line, finding.count, finding.more_lines) == (4, 40, [5, 6, 7, 8])


@pytest.mark.parametrize("order", [1, -1])
def test_a_warning_never_hides_an_error_of_the_same_code(write: Write, inspect: Inspect, order: int):
    lost, latin = chat("lost: \ufffd", "yes"), '{"messages": "caf\xe9"}'.encode("latin-1")
    write("train.jsonl", *good_rows(4), *(lost, latin)[::order])
    report = inspect()
    assert not report.ok
    encoding = {finding.severity: finding for finding in report.findings if finding.code == "encoding"}
    assert {severity: finding.count for severity, finding in encoding.items()} == {"error": 1, "warning": 1}
    assert "not UTF-8" in encoding["error"].message and "U+FFFD" in encoding["warning"].message


def test_the_report_says_how_many_findings_it_shows(write: Write, inspect: Inspect):
    write("train.jsonl", *good_rows(3), "", "[1]", {"a": 1})
    report = inspect(max_findings=2)
    assert len(report.findings) == 2
    assert re.fullmatch(r"showing 2 of [4-9] findings", report.showing)


@pytest.mark.parametrize(
    ("files", "code", "severity"),
    [
        ({"valid.jsonl": 4}, "no-train", "error"),
        ({"train.jsonl": 4}, "no-valid", "warning"),
        ({"train.jsonl": 4, "valid.jsonl": 4}, "no-test", "info"),
        ({"train.jsonl": 4, "valid.jsonl": 0}, "empty-file", "error"),
        ({"train.jsonl": 4, "valid.jsonl": 4, "test.jsonl": 0}, "empty-file", "error"),
        ({"train.jsonl": 3}, "fewer-than-batch", "warning"),
        ({"train.jsonl": 4, "valid.jsonl": 3}, "fewer-than-batch", "warning"),
        ({"train.jsonl": 4, "test.jsonl": 3}, "fewer-than-batch", "warning"),
    ],
)
def test_what_is_wrong_with_a_whole_split_is_named(
    write: Write, inspect: Inspect, files: dict[str, int], code: str, severity: str
):
    for number, (name, rows) in enumerate(files.items()):
        write(name, *good_rows(rows, 100 * number))
    assert found(inspect(), code).severity == severity


def test_text_with_mask_prompt_is_an_error_here_and_at_the_start(write: Write, inspect: Inspect):
    folder = write("train.jsonl", *({"text": f"the {n}th row of {n * 31} words"} for n in range(4)))
    assert found(inspect(mask_prompt=True), "text-mask-prompt").severity == "error"
    assert inspect().ok
    with pytest.raises(DataError, match="mask_prompt"):
        check_for_training(folder, batch_size=2, validate=False, test=False, mask_prompt=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [("nowhere", "does not exist"), ("empty", "prepare_dataset"), ("rows.csv", "prepare_dataset")],
)
def test_what_can_not_be_inspected_says_what_to_do(tmp_path: Path, data: str, message: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=message):
        inspect_dataset(InspectRequest(data=str(tmp_path / data)), Watch())


def test_a_single_file_can_be_inspected(write: Write, inspect: Inspect):
    folder = write("conversations.jsonl", *good_rows(3), "")
    report = inspect(data=str(folder / "conversations.jsonl"))
    assert found(report, "blank-line").line == 4
    assert report.splits["train"].lines == 4


def test_formats_are_counted_by_line_tools_apart(write: Write, inspect: Inspect):
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]
    write("train.jsonl", *good_rows(3), {**chat("time in Oslo", "nine"), "tools": tools}, {"text": "and plain"})
    write("valid.jsonl", *({"prompt": f"say {n * 13}", "completion": f"{n * 17} said"} for n in range(4)))
    report = inspect()
    assert report.splits["train"].formats == {"chat": 3, "chat with tools": 1, "text": 1}
    assert report.splits["valid"].formats == {"completions": 4}


LONG = (
    "The quick brown fox jumps over the lazy dog while seven wizards quietly box the frozen jackdaws of my big sphinx "
    "near the old stone bridge by the river"
)


def test_duplicates_and_near_duplicates_name_the_earlier_line(write: Write, inspect: Inspect):
    write(
        "train.jsonl",
        chat("Say it", LONG),
        *good_rows(3),
        chat("Say it", LONG),
        chat("Say it!", LONG.replace("old ", "new ")),
    )
    report = inspect()
    assert (report.duplicates.exact, report.duplicates.near) == (1, 1)
    assert found(report, "duplicate").line == 5
    assert "line 1" in found(report, "duplicate").message
    assert found(report, "near-duplicate").line == 6
    assert "line 1" in found(report, "near-duplicate").message


def test_keys_that_mlx_lm_ignores_do_not_hide_a_duplicate(write: Write, inspect: Inspect):
    write("train.jsonl", {"id": 1, **chat("Say it", LONG)}, {"id": 2, **chat("Say it", LONG)})
    assert inspect().duplicates.exact == 1


def test_leaks_between_splits_are_found_exact_and_near(write: Write, inspect: Inspect):
    write("train.jsonl", *good_rows(4), chat("Say it", LONG), chat("And this", LONG[::-1]))
    write("valid.jsonl", *good_rows(4, 100), chat("say it", LONG.replace("brown", "red")))
    folder = write(
        "test.jsonl", *good_rows(4, 200), chat("And this", LONG[::-1]), chat("Say it?", LONG.replace("old ", ""))
    )
    report = inspect()
    assert report.duplicates.leaked_exact == {"train > test": 1}
    assert report.duplicates.leaked_near is not None
    assert report.duplicates.leaked_near["train > valid"] == 1
    assert sum(count for pair, count in report.duplicates.leaked_near.items() if pair.endswith("> test")) == 1
    exact = found(report, "leak")
    assert (exact.severity, exact.file, exact.line) == ("error", str(folder / "test.jsonl"), 5)
    assert "train.jsonl:6" in exact.message
    assert {(f.file.rpartition("/")[2], f.line) for f in report.findings if f.code == "near-leak"} == {
        ("valid.jsonl", 5),
        ("test.jsonl", 6),
    }
    assert inspect(near_duplicates=False).duplicates.leaked_near is None


def test_a_template_of_short_rows_is_not_taken_for_near_duplicates(write: Write, inspect: Inspect):
    colours = ("red", "blue", "green", "black", "white", "pink")
    write("train.jsonl", *(chat(f"Which colour has the {c} thing?", f"The thing is {c}.") for c in colours))
    assert inspect().duplicates.near == 0


def test_languages_are_hinted_at_and_a_mix_is_noted(write: Write, inspect: Inspect):
    german = [
        chat(f"Wie hoch ist der Turm {n} und wo steht er?", f"Der Turm {n * 7} ist hoch und steht nicht hier.")
        for n in range(4)
    ]
    russian = [chat(f"Где стоит башня {n}?", f"Башня стоит на горе {n * 13} за рекой") for n in range(4)]
    write("train.jsonl", *german, *russian)
    report = inspect()
    assert report.languages == {"German": 0.5, "Cyrillic": 0.5}
    assert "German 50%" in found(report, "language-mix").message


def test_only_the_first_rows_are_read_when_asked(write: Write, inspect: Inspect):
    write("train.jsonl", *good_rows(10), "")
    report = inspect(max_rows=10)
    assert report.splits["train"].lines == 10
    assert report.ok
    assert "more than the 10 lines" in found(report, "first-rows").message
    assert {"first-rows", "fewer-than-batch"} & {finding.code for finding in inspect(max_rows=2).findings} == {
        "first-rows"
    }
    assert "first-rows" not in {finding.code for finding in inspect(max_rows=11).findings}


def test_an_inspection_can_be_cancelled(write: Write, tmp_path: Path):
    write("train.jsonl", *good_rows(3000))
    watch = Watch()
    watch.cancel()
    with pytest.raises(Cancelled):
        inspect_dataset(InspectRequest(data=str(tmp_path / "data")), watch)


def test_nothing_is_changed(write: Write, inspect: Inspect):
    folder = write("train.jsonl", *good_rows(4), "")
    before = (folder / "train.jsonl").read_bytes()
    inspect()
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("train.jsonl", before)]


def test_a_result_stays_small_however_bad_the_data(write: Write, inspect: Inspect):
    bad = [line for _, line, _ in LINES[:-1]]
    for name in ("train.jsonl", "valid.jsonl", "test.jsonl"):
        write(name, *(line for _ in range(20) for line in bad))
    assert len(inspect().model_dump_json(exclude_none=True)) < 10_000  # about 2,500 tokens
