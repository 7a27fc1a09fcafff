"""The token part, through real tokenizers and mlx-lm's own data sets: templates of several kinds, windows, masks, batches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp.client import Client

pytest.importorskip("mlx_lm")

import mlx.core as mx
from mlx_lm.tuner.datasets import CacheDataset, ChatDataset, CompletionsDataset, TextDataset
from mlx_lm.tuner.trainer import iterate_batches
from mlx_lm.utils import load_tokenizer

from mcp_server.datasets.findings import Finding
from mcp_server.datasets.inspect import inspect_dataset
from mcp_server.datasets.preparation import PrepareRequest
from mcp_server.datasets.prepare import prepare_dataset
from mcp_server.datasets.report import InspectReport, InspectRequest
from mcp_server.datasets.tokens import TokenFile, TokenReport
from mcp_server.datasets.watch import Cancelled, Watch
from mcp_server.demo import BASE
from mcp_server.errors import ModelError
from tests.tiny import tiny_config, write_tokenizer

pytestmark = pytest.mark.integration

LLAMA3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim "
    "+ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA3_PROMPT = (
    "<|start_header_id|>user<|end_header_id|>\n\nHow much is the lamp?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
MISTRAL = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + '<|im_end|>' }}"
    "{% endif %}{% endfor %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' "
    "+ m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# As reasoning models do: the prompt ends in an open thought, the stored answer has none.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
# Shows the user and the assistant and nobody else.
DEAF = (
    "{% for m in messages %}{% if m['role'] in ('user', 'assistant') %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
    "'<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

USER = {"role": "user", "content": "How much is the lamp?"}
ASSISTANT = {"role": "assistant", "content": "It costs 7 euros."}
ROW: dict[str, Any] = {"messages": [USER, ASSISTANT]}


def model_with(folder: Path, chat_template: str | None) -> Path:
    folder.mkdir()
    write_tokenizer(folder, chat_template)
    (folder / "config.json").write_text(json.dumps(tiny_config()))
    return folder


def write(folder: Path, rows: list[Any], name: str = "train.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def inspect(data: Path, model: Path = BASE, **options: Any) -> InspectReport:
    return inspect_dataset(InspectRequest(data=str(data), model=str(model), **options), Watch())


def tokens_of(report: InspectReport) -> TokenReport:
    assert report.tokens is not None
    return report.tokens


def found(report: InspectReport, code: str) -> Finding:
    codes = {finding.code: finding for finding in report.findings}
    assert code in codes, sorted(codes)
    return codes[code]


def total(array: Any) -> int:
    return int(array.sum().item())


def rows_of_many_lengths(count: int) -> list[dict[str, Any]]:
    return [
        {"messages": [USER, {"role": "assistant", "content": f"Row {n}: " + "seven " * (n * 37 % 90)}]}
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("template", "not_trained", "trained"),
    [
        (
            "base",
            "<|im_start|>user\nHow much is the lamp?<|im_end|>\n<|im_start|>assistant\n",
            "It costs 7 euros.<|im_end|>\n",
        ),
        (
            LLAMA3,
            LLAMA3_PROMPT,
            "It costs 7 euros.<|eot_id|>",
        ),
        (MISTRAL, "[INST] How much is the lamp? [/INST]", " It costs 7 euros.<|im_end|>"),
        (
            GEMMA,
            "<start_of_turn>user\nHow much is the lamp?<end_of_turn>\n<start_of_turn>model\n",
            "It costs 7 euros.<end_of_turn>\n",
        ),
    ],
    ids=["chatml", "llama3", "mistral", "gemma"],
)
@pytest.mark.parametrize(
    "row", [ROW, {"prompt": USER["content"], "completion": ASSISTANT["content"]}], ids=["chat", "completions"]
)
def test_the_example_is_what_the_model_sees_with_the_trained_part_apart(
    tmp_path: Path, template: str, not_trained: str, trained: str, row: dict[str, Any]
):
    model = model_with(tmp_path / "model", template)
    report = inspect(write(tmp_path / "data", [row] * 4), model, mask_prompt=True)
    example = tokens_of(report).example
    assert example is not None
    assert (example.not_trained, example.trained, example.cut) == (not_trained, trained, None)
    assert example.line == 1
    assert not {"template-not-prefix", "template-refuses"} & {finding.code for finding in report.findings}


@pytest.mark.parametrize("window", [2048, 24])
def test_a_row_with_a_secret_is_never_the_example(tmp_path: Path, window: int):
    """Cut at tokens, the pieces of a secret look like none: the first token of a text is shown apart."""
    secret = "hf" + "_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3x"
    rows = [{"text": secret}, {"text": f"my key {secret} and the rest of the row"}, {"text": "The lamp costs 7 euros."}]
    report = inspect(write(tmp_path / "data", rows), max_seq_length=window)
    example = tokens_of(report).example
    assert example is not None and example.line == 3
    shown = report.model_dump_json()
    assert not any(secret[at : at + 10] in shown for at in range(len(secret) - 9))


def test_of_the_first_rows_alone_tokens_are_counted_too(tmp_path: Path):
    report = inspect(write(tmp_path / "data", rows_of_many_lengths(40)), max_rows=10)
    split = tokens_of(report).splits["train"]
    assert (split.rows, split.rows_measured) == (10, 10)


def test_fields_of_other_names_are_read_as_training_reads_them(tmp_path: Path):
    """With prompt_feature a field named prompt is not the prompt; near-duplicates are read again under the same names."""
    long = " ".join(f"word{number}" for number in range(40)) + " "
    rows = [
        {"question": long + word, "answer": "It costs 7 euros.", "prompt": "not meant"}
        for word in ("Thanks", "Goodbye")
    ]
    data = write(tmp_path / "data", [*rows, {"question": "And the chair?", "answer": "It costs 9 euros."}] * 2)
    names: dict[str, Any] = {"prompt_feature": "question", "completion_feature": "answer"}
    report = inspect(data, mask_prompt=True, **names)
    assert report.ok, report.findings
    assert report.splits["train"].formats == {"completions": 6}
    assert report.duplicates.exact == 3
    assert report.duplicates.near == 1
    example = tokens_of(report).example
    assert example is not None
    assert "word7 word8" in str(example.not_trained)
    assert example.trained == "It costs 7 euros.<|im_end|>\n"
    assert found(inspect(data), "unknown-format").count == 6
    assert inspect(data, prompt_feature="prompt", completion_feature="answer").splits["train"].formats == {
        "completions": 4
    }


@pytest.mark.parametrize("kind", ["chat", "completions", "text"])
@pytest.mark.parametrize("mask_prompt", [False, True])
def test_lengths_padding_and_trained_tokens_are_those_of_stock_batches(tmp_path: Path, kind: str, mask_prompt: bool):
    if kind == "text" and mask_prompt:
        return  # mlx-lm refuses it; the unit tests show that it is named
    rows = rows_of_many_lengths(48)
    if kind == "completions":
        rows = [{"prompt": row["messages"][0]["content"], "completion": row["messages"][1]["content"]} for row in rows]
    elif kind == "text":
        rows = [{"text": row["messages"][1]["content"]} for row in rows]
    for row in rows[::3]:
        row["id"] = 1  # another number of keys, by which stock sorts
    batch_size, window = 4, 80
    report = inspect(
        write(tmp_path / "data", rows), max_seq_length=window, batch_size=batch_size, mask_prompt=mask_prompt
    )
    tokenizer: Any = load_tokenizer(str(BASE))
    data: Any = {
        "chat": lambda: ChatDataset(rows, tokenizer, mask_prompt=mask_prompt),
        "completions": lambda: CompletionsDataset(rows, tokenizer, "prompt", "completion", mask_prompt),
        "text": lambda: TextDataset(rows, tokenizer),
    }[kind]()
    processed = [data.process(row) for row in rows]
    split = tokens_of(report).splits["train"]
    lengths = sorted(len(tokens) for tokens, _ in processed)
    assert (split.tokens, split.max, split.p50) == (sum(lengths), lengths[-1], lengths[23])
    assert split.rows_cut == round(sum(length > window for length in lengths) / 48, 4)
    assert split.rows_cut > 0
    places = kept = counted = 0
    for batch, bounds in iterate_batches(CacheDataset(data), batch_size, window):
        places += batch.size
        offset, length = bounds[:, 0:1], bounds[:, 1:]
        kept += total(length)
        steps = mx.arange(1, batch.shape[1])  # mlx-lm's default_loss
        mask = mx.logical_and(steps >= offset, steps <= length)
        # Its mask lets in one padding token after each row that is not cut.
        counted += total(mask) - total(length < batch.shape[1])
    assert split.padding_stock == pytest.approx(1 - kept / places, abs=1e-4)
    assert split.tokens_trained == pytest.approx(counted / kept, abs=1e-4)
    assert split.padding_bucketed < split.padding_stock


def test_stock_trains_on_one_padding_token_and_the_example_says_so(tmp_path: Path):
    example = tokens_of(inspect(write(tmp_path / "data", [ROW] * 4))).example
    assert example is not None and example.then is not None
    assert "padding token" in example.then
    tokenizer: Any = load_tokenizer(str(BASE))
    batch, bounds = next(iterate_batches(CacheDataset(ChatDataset([ROW], tokenizer)), 1, 2048))
    steps = mx.arange(1, batch.shape[1])
    mask = mx.logical_and(steps >= bounds[:, 0:1], steps <= bounds[:, 1:])
    assert total(mask) == example.trained_tokens + 1


def test_a_prompt_that_fills_the_window_is_an_error_with_its_line(tmp_path: Path):
    long = {"messages": [{"role": "user", "content": "why " * 300}, ASSISTANT]}
    data = write(tmp_path / "data", [ROW] * 5 + [long] + [ROW] * 2)
    finding = found(inspect(data, mask_prompt=True, max_seq_length=64), "prompt-too-long")
    assert (finding.severity, finding.line, finding.count) == ("error", 6, 1)
    assert finding.file == str(data / "train.jsonl")
    assert "NaN" in finding.message and "max_seq_length=64" in finding.message
    unmasked = inspect(data, max_seq_length=64)
    assert "prompt-too-long" not in {finding.code for finding in unmasked.findings}
    assert (found(unmasked, "too-long").severity, found(unmasked, "too-long").line) == ("warning", 6)


def test_what_the_window_cuts_is_shown_in_the_example(tmp_path: Path):
    row = {"messages": [USER, {"role": "assistant", "content": "one two three four five six seven eight nine ten"}]}
    example = tokens_of(inspect(write(tmp_path / "data", [row] * 4), max_seq_length=24, mask_prompt=True)).example
    assert example is not None and example.cut is not None
    whole = f"{example.not_trained}{example.trained}{example.cut}"
    assert whole.endswith("nine ten<|im_end|>\n")
    assert example.trained and example.then is None


@pytest.mark.parametrize(
    ("template", "bad", "reason"),
    [
        (MISTRAL, [{"role": "system", "content": "Be brief"}, USER, ASSISTANT], "roles must alternate"),
        (GEMMA, [{"role": "system", "content": "Be brief"}, USER, ASSISTANT], "System role not supported"),
    ],
    ids=["mistral", "gemma"],
)
def test_a_row_that_the_template_refuses_is_named(tmp_path: Path, template: str, bad: list[Any], reason: str):
    model = model_with(tmp_path / "model", template)
    report = inspect(write(tmp_path / "data", [ROW, ROW, {"messages": bad}, ROW]), model)
    finding = found(report, "template-refuses")
    assert (finding.severity, finding.line) == ("error", 3)
    assert reason in finding.message
    assert tokens_of(report).splits["train"].rows_measured == 3


def test_a_template_that_is_not_a_prefix_of_itself_is_noticed(tmp_path: Path):
    model = model_with(tmp_path / "model", THINKING)
    report = inspect(write(tmp_path / "data", [ROW] * 4), model, mask_prompt=True)
    finding = found(report, "template-not-prefix")
    assert (finding.line, finding.count, finding.severity) == (1, 4, "warning")
    assert "template-not-prefix" not in {f.code for f in inspect(tmp_path / "data", model).findings}


def test_every_answer_is_marked_where_all_are_trained(tmp_path: Path):
    row = {
        "messages": [USER, ASSISTANT, {"role": "user", "content": "Thanks"}, {"role": "assistant", "content": "Bye!"}]
    }
    report = tokens_of(inspect(write(tmp_path / "data", [row] * 4), assistant_only_loss=True))
    example = report.example
    assert example is not None and example.parts is not None
    assert [part.text for part in example.parts if part.trained] == [
        ASSISTANT["content"] + "<|im_end|>",
        "Bye!<|im_end|>",
    ]
    assert (example.not_trained, example.trained, example.then) == (None, None, None)
    whole = "".join(part.text for part in example.parts)
    tokenizer: Any = load_tokenizer(str(BASE))
    tokens = tokenizer.apply_chat_template(row["messages"], return_dict=False)
    assert whole == tokenizer.decode(tokens)
    assert example.tokens == len(tokens)
    assert report.splits["train"].tokens_trained == round(example.trained_tokens / len(tokens), 4)


def test_answers_that_can_not_be_told_from_the_rest_are_named(tmp_path: Path):
    last_two = "{% for m in messages[-2:] %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    model = model_with(tmp_path / "model", last_two)
    row = {
        "messages": [USER, ASSISTANT, {"role": "user", "content": "Thanks"}, {"role": "assistant", "content": "Bye!"}]
    }
    report = inspect(write(tmp_path / "data", [ROW, row]), model, batch_size=1, assistant_only_loss=True)
    assert (found(report, "answers-not-found").line, found(report, "answers-not-found").count) == (2, 1)


def test_a_message_that_the_template_leaves_out_is_named(tmp_path: Path):
    model = model_with(tmp_path / "model", DEAF)
    tool = {"messages": [USER, ASSISTANT, {"role": "tool", "content": "42 lumens"}, ASSISTANT]}
    finding = found(inspect(write(tmp_path / "data", [ROW, tool]), model, batch_size=1), "template-drops")
    assert finding.line == 2
    assert "message 3 (tool)" in finding.message


def test_a_template_without_the_end_token_is_noticed(tmp_path: Path):
    # The base's end token is <|im_end|>: with Gemma's marks the model would never learn to say it.
    gemma = model_with(tmp_path / "gemma", GEMMA)
    data = write(tmp_path / "data", [ROW] * 4)
    assert found(inspect(data, gemma), "no-end-token").count == 4
    assert "no-end-token" not in {finding.code for finding in inspect(data).findings}


def test_chat_without_a_template_is_an_error_and_text_is_not(tmp_path: Path):
    model = model_with(tmp_path / "model", None)
    report = inspect(write(tmp_path / "data", [ROW] * 4), model)
    assert (found(report, "no-chat-template").severity, found(report, "no-chat-template").line) == ("error", 1)
    assert tokens_of(report).splits == {}
    text = inspect(write(tmp_path / "text", [{"text": f"row {n} of some words"} for n in range(4)]), model)
    assert text.ok and tokens_of(text).splits["train"].rows_measured == 4


def test_a_sample_says_that_it_is_one_and_still_finds_the_longest_row(tmp_path: Path):
    rows = rows_of_many_lengths(6000)
    assert not TokenFile(split="train", path="", lines=6000, every=60).takes(3001)
    rows[3000] = {"messages": [USER, {"role": "assistant", "content": "far " * 500}]}
    report = inspect(write(tmp_path / "data", rows), max_seq_length=400, max_token_rows=100, near_duplicates=False)
    split = tokens_of(report).splits["train"]
    assert 70 < split.rows_measured < 130
    assert split.rows == 6000
    assert split.rows_cut == 0
    assert f"most {split.max}; 0.0% of {split.rows_measured} measured rows are cut" in report.summary
    whole = inspect(tmp_path / "data", max_seq_length=400, near_duplicates=False)
    assert split.max == tokens_of(whole).splits["train"].max > 400
    assert "% of rows are cut" in whole.summary
    assert split.mean == pytest.approx(tokens_of(whole).splits["train"].mean, rel=0.15)
    assert (found(report, "too-long").line, found(report, "too-long").count) == (3001, 1)
    assert "one in 60 of 6,000" in found(report, "sampled").message


def test_bad_rows_do_not_stop_the_counting(tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    lines = [
        json.dumps(ROW),
        "",
        "{bad",
        json.dumps({"messages": [{"role": "alien", "content": "hm"}, ASSISTANT]}),
        json.dumps(ROW),
    ]
    (data / "train.jsonl").write_text("\n".join(lines) + "\n")
    report = inspect(data, batch_size=1)
    assert {"blank-line", "bad-json", "unknown-role"} <= {finding.code for finding in report.findings}
    assert tokens_of(report).splits["train"].rows_measured == 3


def test_a_folder_without_a_tokenizer_is_a_model_error(tmp_path: Path):
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match=r"tokenizer of .* could not be loaded"):
        inspect(write(tmp_path / "data", [ROW] * 4), tmp_path / "model")
    with pytest.raises(ModelError, match="does not exist"):
        inspect(tmp_path / "data", Path("./no/such/model"))


def test_a_cancelled_count_ends_its_process(tmp_path: Path):
    def cancel(done: float, total: float | None, what: str) -> None:
        if "tokenizer" in what or "tokens" in what:
            watch.cancel()

    watch = Watch(cancel)
    data = write(tmp_path / "data", rows_of_many_lengths(300))
    with pytest.raises(Cancelled):
        inspect_dataset(InspectRequest(data=str(data), model=str(BASE), near_duplicates=False), watch)
    children = psutil.Process().children()
    assert not [child for child in children if "mcp_server.workers.inspect" in child.cmdline()]


def test_prepare_drops_rows_by_the_models_own_count(tmp_path: Path):
    rows = rows_of_many_lengths(40)
    write(tmp_path / "s", rows, "s.jsonl")
    request = PrepareRequest(
        source=str(tmp_path / "s"), output=str(tmp_path / "out"), model=str(BASE), max_tokens=64, valid=0, test=0
    )
    report = prepare_dataset(request, Watch())
    tokenizer: Any = load_tokenizer(str(BASE))
    dataset = ChatDataset(rows, tokenizer)
    short = [row for row in rows if len(dataset.process(row)[0]) <= 64]
    assert 0 < len(short) < 40
    written = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert sorted(map(str, written)) == sorted(map(str, short))
    assert [(dropped.reason, dropped.rows) for dropped in report.dropped] == [("too-many-tokens", 40 - len(short))]
    assert report.dropped[0].examples[0].startswith("s.jsonl:")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["preparation.json", "train.jsonl"]


def test_prepare_drops_rows_that_the_template_refuses(tmp_path: Path):
    model = model_with(tmp_path / "model", GEMMA)
    rows = [ROW, {"messages": [{"role": "system", "content": "Be brief"}, USER, ASSISTANT]}]
    write(tmp_path / "s", rows, "s.jsonl")
    request = PrepareRequest(
        source=str(tmp_path / "s"), output=str(tmp_path / "out"), model=str(model), valid=0, test=0
    )
    report = prepare_dataset(request, Watch())
    assert report.rows == {"train": 1}
    assert report.dropped[0].reason == "template-refuses"
    assert report.dropped[0].examples[0].startswith("s.jsonl:2 ")


@pytest.mark.anyio
async def test_the_tools_work_together_over_mcp_with_progress(client: Client, project: Path):
    write(
        project / "raw", [{"instruction": f"Add {n} and {n * 3}", "output": str(n * 4)} for n in range(100)], "a.jsonl"
    )
    prepared = await client.call_tool("prepare_dataset", {"source": "raw", "output": "clean"})
    assert prepared.structured_content is not None
    assert prepared.structured_content["rows"] == {"train": 80, "valid": 10, "test": 10}
    told: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    inspected = await client.call_tool(
        "inspect_dataset", {"data": "clean", "model": "model", "mask_prompt": True}, progress_callback=on_progress
    )
    assert inspected.structured_content is not None
    assert inspected.structured_content["ok"] is True
    assert inspected.structured_content["tokens"]["splits"]["train"]["rows_measured"] == 80
    assert told
    assert len(json.dumps(inspected.structured_content)) < 10_000  # about 2,500 tokens
    refused = await client.call_tool("prepare_dataset", {"source": "raw", "output": "clean"})
    assert refused.is_error


def test_the_commands_print_json_and_exit_by_the_verdict(project: Path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mcp_server.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)

    good = run("inspect", "--data", "data", "--model", "model", "--json")
    assert good.returncode == 0, good.stderr
    assert InspectReport.model_validate_json(good.stdout).ok
    with (project / "data" / "train.jsonl").open("a") as file:
        file.write("\n")
    bad = run("inspect", "--data", "data")
    assert bad.returncode == 1
    assert f"{project}/data/train.jsonl:201 is blank" in bad.stdout.replace("\n", "")
    prepared = run("prepare", "--source", "data", "--output", "clean", "--json")
    assert prepared.returncode == 0, prepared.stderr
    assert json.loads(prepared.stdout)["read"]["train.jsonl"] == 200
    again = run("prepare", "--source", "data", "--output", "clean")
    assert again.returncode == 1
    assert again.stderr.startswith("error: output ")
