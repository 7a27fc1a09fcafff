"""``run_benchmark`` as a job: reports, rankings, and one clear error for what can't be measured."""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

pytest.importorskip("mlx_lm")

from mcp_server.evaluation.adapters import candidates
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.report import BenchmarkReport
from tests.adapters import copy_adapter, train_adapter
from tests.helpers import call, end_of, folder, refusal, training
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

QUICK = {"model": "model", "data": "data", "num_prompts": 0, "speed_trials": 0}
MOST_CHARACTERS = 4500  # about 1,500 tokens of JSON


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_adapter(tmp_path_factory.mktemp("trained") / "good", iters=40)


@pytest.fixture
def good(trained: Path, project: Path) -> Path:
    return shutil.copytree(trained, project / "adapters/good")


async def measured(client: Client, **arguments: Any) -> dict[str, Any]:
    """The report of a benchmark that completes."""
    answer = await call(client, "run_benchmark", **arguments)
    assert answer["status"] == "completed", answer
    BenchmarkReport.model_validate(answer["report"])
    return answer["report"]


async def failure(client: Client, **arguments: Any) -> str:
    """Why a benchmark that starts can't be done: one sentence, no traceback."""
    answer = await call(client, "run_benchmark", **QUICK | arguments)
    assert answer["status"] == "failed", answer
    assert "report" not in answer
    log = folder(answer["job_id"]).log.read_text(encoding="utf-8")
    assert "Traceback" not in log + answer["why"], log
    return answer["why"]


async def test_default_report_is_small_and_says_everything(client: Client, project: Path, good: Path):
    report = await measured(client, model="model", adapter_path="adapters/good", data="data", max_tokens=32)
    assert len(json.dumps(report)) < MOST_CHARACTERS
    base, adapter, found = report["base"], report["adapter"], report["comparison"]
    assert found["verdict"] == "better"
    assert report["summary"].startswith("The adapter is better than the base: loss ")
    assert base["exact_match"] <= 0.1
    assert adapter["exact_match"] >= 0.8
    assert {"exact_match", "contains", "token_f1", "valid_json"} <= found["scores"].keys()
    assert found["scores"]["valid_json"]["interval_95"][0] > 0
    assert adapter["speed"]["trials"] == base["speed"]["trials"] == 3
    assert [sample["adapter"] == sample["reference"] for sample in report["samples"]] == [True] * 3
    assert "<|im_start|>" not in json.dumps(report["samples"])
    lines = [json.loads(line) for line in Path(report["examples"]).read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == list(range(1, 41))
    assert sum(line["loss"]["base"] * line["tokens"] for line in lines) / report["tokens"] == pytest.approx(
        base["loss"], abs=1e-4
    )
    assert sum(line["scores"]["base"]["exact_match"] for line in lines) / 40 == base["exact_match"]
    missing = importlib.util.find_spec("rouge_score") is None
    assert ("rouge_l" in base) != missing
    assert any("rouge-score" in note for note in report["notes"]) == missing


async def test_model_data_and_mask_come_from_the_adapter(client: Client, project: Path, good: Path):
    config = good / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"data": str(project / "data")}))
    report = await measured(client, adapter_path="adapters/good", num_prompts=0, speed_trials=0)
    assert report["tokens"] < 1000, "only the answers count"
    assert Path(report["data"]) == project / "data"
    assert report["samples"] == []


async def test_rows_are_read_with_the_names_of_the_adapters_training(client: Client, project: Path, good: Path):
    own = project / "own"
    own.mkdir()
    rows = (project / "data/test.jsonl").read_text(encoding="utf-8")
    (own / "test.jsonl").write_text(rows.replace('"messages"', '"talk"'), encoding="utf-8")
    config = good / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"data": str(own), "chat_feature": "talk"}))
    asked = {"model": "model", "adapter_path": "adapters/good", "num_prompts": 4, "speed_trials": 0, "max_tokens": 32}
    named = await measured(client, **asked)
    plain = await measured(client, **asked, data="data", chat_feature="messages")
    same = ("rows", "tokens", "base", "adapter", "samples")
    assert [named[name] for name in same] == [plain[name] for name in same]
    assert named["adapter"]["exact_match"] > 0.5
    text = await refusal(client, "run_benchmark", **asked, chat_feature="messages")
    assert "has the keys talk; expected 'messages'" in text and "chat_feature" in text


@pytest.mark.parametrize(
    ("recorded", "source"),
    [
        ({"data": "someone/some-data"}, "source='someone/some-data', output="),
        ({"data": "rows", "hf_dataset": {"path": "someone/other"}}, "hf_dataset=<that of its training>, output="),
    ],
)
async def test_data_on_the_hub_are_named_with_what_makes_a_folder_of_them(
    client: Client, project: Path, good: Path, recorded: dict[str, Any], source: str
):
    config = good / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | recorded))
    text = await refusal(client, "run_benchmark", model="model", adapter_path="adapters/good")
    assert "someone/" in text and "are on the Hub" in text
    assert "prepare_dataset(" in text and source in text
    report = await measured(client, **QUICK, adapter_path="adapters/good")
    assert report["rows"] == 40, "another folder is taken as ever"


async def test_several_adapters_are_ranked_and_bad_ones_found_out(client: Client, project: Path, good: Path):
    adapters = project / "adapters"
    copy_adapter(good, adapters / "copy")
    copy_adapter(good, adapters / "damaged", noise=0.5)
    copy_adapter(good, adapters / "nan", poison=True)
    train_adapter(adapters / "dora", kind="dora", rank=4, iters=3)
    names = ["good", "copy", "damaged", "nan", "dora"]
    report = await measured(client, **QUICK, adapters=[f"adapters/{name}" for name in names])
    ranking = {line["name"]: line for line in report["ranking"]}
    assert list(ranking) == ["good", "copy", "dora", "base", "damaged"]
    assert [ranking[name].get("verdict") for name in ranking] == ["better", "better", "better", None, "worse"]
    assert ranking["good"]["loss"] == ranking["copy"]["loss"]
    keep = report["keep"]
    assert (keep["name"], keep["second"], keep["verdict"]) == ("good", "copy", "no evidence")
    assert "no evidence that it differs" in report["summary"]
    assert report["adapter_path"] == str(good)
    assert any("nan" in note and "NaN or infinity" in note for note in report["notes"])
    assert any("chosen on these rows" in note for note in report["notes"])


async def test_damaged_adapter_is_worse(client: Client, project: Path, good: Path):
    copy_adapter(good, project / "adapters/damaged", noise=0.5)
    report = await measured(client, **QUICK, adapter_path="adapters/damaged")
    assert report["comparison"]["verdict"] == "worse"
    assert report["comparison"]["interval_95"][0] > 0
    assert report["summary"].startswith("The adapter is worse than the base")


async def test_untrained_adapter_gives_no_evidence(client: Client, project: Path):
    train_adapter(project / "adapters/none", iters=0)
    report = await measured(client, **QUICK, adapter_path="adapters/none")
    assert report["comparison"] == {
        "loss_difference": 0.0,
        "interval_95": [0.0, 0.0],
        "win_rate": 0.0,
        "verdict": "no evidence",
        "scores": {},
    }


@pytest.mark.parametrize(
    ("how", "alone"), [({"assistant_only_loss": True}, True), ({"mask_prompt": True}, True), ({}, False)]
)
async def test_prompts_are_not_measured_where_training_left_them_out(
    how: dict[str, Any], alone: bool, client: Client, project: Path
):
    started = await call(client, "start_lora_training", **training(iters=4, save_every=2, **how))
    await end_of(client, started["job_id"])
    every = candidates(BenchmarkOptions(job_id=started["job_id"]))
    assert any(path.name.startswith("best-") for path in folder(started["job_id"]).checkpoints.iterdir())
    assert every.mask_prompt is alone
    for path in [*folder(started["job_id"]).checkpoints.iterdir(), project / "adapters/test"]:
        assert candidates(BenchmarkOptions(adapter_path=str(path))).mask_prompt is alone, path


async def test_all_checkpoints_of_a_training_are_ranked(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(iters=8, save_every=3, mask_prompt=True))
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    report = await measured(client, job_id=started["job_id"], num_prompts=0, speed_trials=0, split="valid")
    names = [line["name"] for line in report["ranking"]]
    assert {"base", "test", "0000003", "0000006"} <= set(names)
    weights = [
        Path(line["adapter_path"]) / "adapters.safetensors" for line in report["ranking"] if line["name"] != "base"
    ]
    assert len({file.read_bytes() for file in weights}) == len(weights), "no weights are measured twice"
    assert report["split"] == "valid"
    assert report["keep"]["name"] == names[0]
    jobs = await call(client, "list_jobs")
    assert jobs["jobs"][0]["adapter_path"] == str(project / "adapters/test")


async def test_forgetting_schema_and_own_metric_are_reported(client: Client, project: Path, good: Path):
    facts = [
        f"The {item} is on shelf {item[0].upper()}{number % 9}.\n" for number, item in enumerate(["lamp", "sofa"] * 150)
    ]
    (project / "general.txt").write_text("".join(facts))
    (project / "schema.json").write_text('{"type": "object", "required": ["item"]}')
    (project / "own.py").write_text("def brevity(answer, reference):\n    return -len(answer)\n")
    asked = {"forgetting_data": "general.txt", "json_schema": "schema.json", "metric": "own.py:brevity"}
    report = await measured(
        client,
        **QUICK | {"num_prompts": 10},
        **asked,
        adapter_path="adapters/good",
        allow_metric_code=True,
        max_tokens=32,
    )
    assert report["forgetting"]["tokens"] > 1000
    assert report["forgetting"]["interval_95"] is not None
    assert report["forgetting"]["verdict"] in ("better", "worse", "no evidence")
    assert "on general text the perplexity" in report["summary"]
    assert report["base"]["json_schema"] == 0
    assert report["adapter"]["json_schema"] >= 0.8
    assert report["comparison"]["scores"]["own_metric"]["difference"] == pytest.approx(
        report["adapter"]["own_metric"] - report["base"]["own_metric"], abs=1e-3
    )


async def test_base_alone_is_measured_on_plain_text(client: Client, project: Path):
    (project / "data/test.jsonl").write_text('{"text": "The lamp costs 42 euros."}\n' * 8)
    report = await measured(client, model="model", data="data", speed_trials=0)
    assert report["summary"].startswith("base alone on 8 rows of test.jsonl: loss ")
    assert "adapter" not in report
    assert any("no answers were compared" in note for note in report["notes"])


async def test_one_row_is_too_few_to_say(client: Client, project: Path, good: Path):
    file = project / "data/test.jsonl"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    report = await measured(client, **QUICK | {"num_prompts": 5}, adapter_path="adapters/good", max_tokens=32)
    assert report["comparison"]["verdict"] == "no evidence"
    assert "interval_95" not in report["comparison"]
    assert "too few rows: 1 can't give evidence" in report["summary"]


async def test_adapter_for_another_model_is_named(client: Client, project: Path, good: Path):
    make_tiny_model(project / "other", hidden=192, layers=3)
    why = await failure(client, model="other", adapter_path="adapters/good")
    assert "adapters/good does not fit this model" in why
    assert "use the model it was trained on" in why
    make_tiny_model(project / "small", layers=1)
    assert "was trained on 2 layers and this model has 1" in await failure(
        client, model="small", adapter_path="adapters/good"
    )


async def test_nan_weights_are_named(client: Client, project: Path, good: Path):
    copy_adapter(good, project / "adapters/nan", poison=True)
    why = await failure(client, adapter_path="adapters/nan")
    assert "weights hold NaN or infinity" in why
    assert "choose an earlier checkpoint" in why
    copy_adapter(good, project / "adapters/nan2", poison=True)
    assert "none of the adapters can be used" in await failure(client, adapters=["adapters/nan", "adapters/nan2"])


async def test_prompts_longer_than_the_context_are_named(client: Client, project: Path, good: Path):
    file = project / "data/test.jsonl"
    row = {"prompt": "lamp " * 600, "completion": "There."}
    file.write_text(json.dumps({"prompt": "Where?", "completion": "There."}) + "\n" + json.dumps(row) + "\n")
    why = await failure(client, adapter_path="adapters/good")
    assert "test.jsonl:2" in why
    assert "context window of 512 tokens" in why
    assert "remove or shorten" in why


def no_config(project: Path) -> None:
    (project / "adapters/good/adapter_config.json").unlink()


def peft_config(project: Path) -> None:
    (project / "adapters/good/adapter_config.json").write_text('{"r": 8, "lora_alpha": 16}')


def torn_config(project: Path) -> None:
    (project / "adapters/good/adapter_config.json").write_text('{"num_layers": ')


def config_without_rank(project: Path) -> None:
    (project / "adapters/good/adapter_config.json").write_text('{"num_layers": 2, "lora_parameters": {"scale": 2.0}}')


def cut_adapter(project: Path) -> None:
    file = project / "adapters/good/adapters.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def empty_test(project: Path) -> None:
    (project / "data/test.jsonl").write_text("")


def no_test(project: Path) -> None:
    (project / "data/test.jsonl").unlink()


def own_code(project: Path) -> None:
    (project / "own.py").write_text("def score(answer, reference):\n    return 1\n")


def bad_schema(project: Path) -> None:
    (project / "schema.json").write_text('{"type": 3}')


def no_text(project: Path) -> None:
    (project / "texts").mkdir()


def nothing(project: Path) -> None:
    pass


# What is wrong, the call, and words that the answer must hold.
CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any], tuple[str, ...]]] = {
    "missing config": (no_config, {}, ("has no adapter_config.json", "choose another folder")),
    "PEFT's config": (peft_config, {}, ("no num_layers", "PEFT adapters must be converted")),
    "damaged config": (torn_config, {}, ("is damaged", "train again or restore it")),
    "config without rank": (config_without_rank, {}, ("no lora_parameters.dropout", "restore it")),
    "adapter cut short": (cut_adapter, {}, ("cut short",)),
    "empty test set": (empty_test, {}, ("test.jsonl is empty", "put examples there")),
    "no test set": (no_test, {}, ("no test.jsonl",)),
    "no adapter": (nothing, {"adapter_path": "adapters/none"}, ("is not a folder", "list_jobs")),
    "adapters named twice over": (
        nothing,
        {"adapters": ["adapters/good"]},
        ("adapter_path and adapters each name the adapters", "give one of them"),
    ),
    "one adapter twice": (
        nothing,
        {"adapter_path": None, "adapters": ["adapters/good", "adapters/good"]},
        ("twice",),
    ),
    "no adapters": (nothing, {"adapter_path": None, "adapters": []}, ("names none",)),
    "unknown job": (nothing, {"adapter_path": None, "job_id": "train-1"}, ("'train-1'", "list_jobs")),
    "no model": (nothing, {"adapter_path": None, "model": None}, ("model is missing",)),
    "no data": (nothing, {"adapter_path": None, "data": None}, ("data is missing",)),
    "code without the flag": (own_code, {"metric": "own.py:score"}, ("runs Python code", "allow_metric_code=true")),
    "metric of no file": (
        nothing,
        {"metric": "own.py:score", "allow_metric_code": True},
        ("own.py does not exist", "file.py:function"),
    ),
    "no schema": (nothing, {"json_schema": "schema.json"}, ("schema.json can't be read",)),
    "bad schema": (bad_schema, {"json_schema": "schema.json"}, ("is not a JSON Schema",)),
    "no general text": (nothing, {"forgetting_data": "texts"}, ("texts does not exist",)),
    "empty general text": (no_text, {"forgetting_data": "texts"}, ("holds no .txt, .md, .jsonl file",)),
    "negative prompts": (nothing, {"num_prompts": -1}, ("num_prompts=-1",)),
}


@pytest.mark.parametrize("name", CASES)
async def test_bad_input_is_refused_and_leaves_nothing(
    name: str, client: Client, project: Path, good: Path, home: Path
):
    damage, changes, said = CASES[name]
    damage(project)
    arguments = QUICK | {"adapter_path": "adapters/good"} | changes
    given = {key: value for key, value in arguments.items() if value is not None}
    text = await refusal(client, "run_benchmark", **given)
    for words in said:
        assert words in text, text
    assert not list(home.glob("jobs/*"))


async def test_job_that_is_no_training_is_named(client: Client, project: Path, good: Path):
    answer = await call(client, "run_benchmark", **QUICK)
    text = await refusal(client, "run_benchmark", job_id=answer["job_id"])
    assert "is a benchmark job; give the id of a training" in text


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
async def test_tasks_without_their_library_are_refused_with_the_command(client: Client, project: Path, good: Path):
    text = await refusal(client, "run_benchmark", **QUICK, adapter_path="adapters/good", tasks=["arc_easy"])
    assert "uv pip install --python" in text
    assert "lm-eval" in text


TASK = """
task: shop_shelves
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs the extra lm-eval")
async def test_tasks_of_lm_evaluation_harness_run_offline_on_base_and_adapter(
    client: Client, project: Path, good: Path
):
    from mcp_server.demo import task

    rows: list[dict[str, Any]] = []
    for item in task.PRODUCTS[:30]:
        # The base answers in sentences, the adapter with records.
        choices = [task.sentence(item, "shelf"), task.record(item, "shelf")]
        rows.append({"question": f"Where is the {item}?", "choices": choices, "answer": 1})
    (project / "shelves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (project / "shelves.yaml").write_text(TASK.format(data=project / "shelves.jsonl"))
    asked = {**QUICK, "adapter_path": "adapters/good", "tasks": ["shelves.yaml"]}
    assert "allow_metric_code=true" in await refusal(client, "run_benchmark", **asked)
    report = await measured(client, **asked, allow_metric_code=True)
    (line,) = report["tasks"]
    assert (line["task"], line["metric"], line["examples"]) == ("shop_shelves", "acc", 30)
    assert line["base"] <= 0.1
    assert line["adapter"] >= 0.9
    assert line["verdict"] == "better"
    why = await failure(client, adapter_path="adapters/good", tasks=["no_such_task"])
    assert "lm-eval has no task 'no_such_task'" in why
    (project / "shelves.jsonl").unlink()
    report = await measured(client, **asked, allow_metric_code=True)
    assert "tasks" not in report or report["tasks"] == []
    assert any("shop_shelves could not be run" in note for note in report["notes"])
