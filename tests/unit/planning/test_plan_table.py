"""Thirty models, data sets and machines: the plan is taken as it is, or says that nothing fits and what would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import DataError
from mcp_server.jobs import store
from mcp_server.jobs.store import JobFolder, JobSpec
from mcp_server.planning import plan as planning
from mcp_server.planning.check import DoesNotFitError
from mcp_server.planning.plan import Plan, PlanRequest
from mcp_server.planning.recipe import Goal
from mcp_server.training import start
from mcp_server.training.request import TrainingRequest
from tests import shapes

M1_8, M2_16, M4_24, M3PRO_36, M1MAX_64, M4MAX_128, M2ULTRA_192, M3ULTRA_512 = (
    ("Apple M1", 8),
    ("Apple M2", 16),
    ("Apple M4", 24),
    ("Apple M3 Pro", 36),
    ("Apple M1 Max", 64),
    ("Apple M4 Max", 128),
    ("Apple M2 Ultra", 192),
    ("Apple M3 Ultra", 512),
)
Machine = tuple[str, int]
# model, bits, rows, words a row, machine, goal; whether something fits was reckoned by hand from the weights' size.
TABLE: list[tuple[str, int | None, int, int, Machine, Goal, bool]] = [
    ("qwen2.5-0.5b", None, 50, 40, M1_8, "fast", True),
    ("qwen2.5-0.5b", None, 800, 40, M1_8, "good", True),
    ("qwen2.5-0.5b", 4, 5_000, 40, M1_8, "best", True),
    ("qwen2.5-0.5b", None, 50_000, 40, M2_16, "best", True),
    ("qwen2.5-0.5b", None, 1_000_000, 12, M4MAX_128, "good", True),
    ("llama-3.2-1b", 4, 800, 400, M1_8, "good", True),
    ("llama-3.2-1b", None, 800, 40, M1_8, "good", True),
    ("llama-3.2-1b", None, 5_000, 400, M2_16, "good", True),
    ("qwen2.5-3b", 4, 50, 40, M1_8, "good", True),
    ("qwen2.5-3b", None, 50, 40, M1_8, "good", False),
    ("qwen2.5-3b", 4, 5_000, 400, M2_16, "good", True),
    ("qwen2.5-3b", None, 5_000, 400, M4_24, "best", True),
    ("qwen2.5-3b", None, 50_000, 40, M3PRO_36, "good", True),
    ("llama-3.1-8b", 4, 50, 40, M1_8, "fast", True),
    ("llama-3.1-8b", 4, 800, 40, M2_16, "good", True),
    ("llama-3.1-8b", None, 800, 40, M2_16, "good", False),
    ("llama-3.1-8b", 4, 5_000, 400, M4_24, "good", True),
    ("llama-3.1-8b", None, 5_000, 400, M3PRO_36, "good", True),
    ("llama-3.1-8b", None, 50_000, 40, M1MAX_64, "best", True),
    ("llama-3.1-8b", 4, 100_000, 12, M3ULTRA_512, "best", True),
    ("qwen2.5-14b", 4, 800, 40, M2_16, "good", True),
    ("qwen2.5-14b", 4, 800, 400, M4_24, "good", True),
    ("qwen2.5-14b", None, 800, 400, M3PRO_36, "good", False),
    ("qwen3-30b-a3b", 4, 5_000, 40, M3PRO_36, "good", True),
    ("qwen3-30b-a3b", None, 5_000, 400, M4MAX_128, "good", True),
    ("qwen2.5-32b", 4, 5_000, 400, M1MAX_64, "good", True),
    ("qwen2.5-32b", None, 5_000, 400, M1MAX_64, "good", False),
    ("llama-3.1-70b", 4, 800, 40, M3PRO_36, "good", False),
    ("llama-3.1-70b", 4, 5_000, 400, M4MAX_128, "good", True),
    ("llama-3.1-70b", None, 800, 400, M4MAX_128, "good", False),
    ("llama-3.1-70b", None, 5_000, 400, M2ULTRA_192, "good", True),
    ("llama-3.1-70b", None, 5_000, 400, M3ULTRA_512, "best", True),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("table")


def model_folder(folders: Path, name: str, bits: int | None) -> Path:
    path = folders / f"{name}-{bits or 16}"
    return path if path.exists() else shapes.write(path, name, bits)


def data_folder(folders: Path, rows: int, words: int) -> Path:
    """Chat rows of about ``words`` words; one in a hundred is three times as long."""
    path = folders / f"data-{rows}-{words}"
    if path.exists():
        return path
    path.mkdir()

    def line(number: int) -> str:
        text = "price " * (words * (3 if number % 100 == 99 else 1))
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": str(number)}]
        return json.dumps({"messages": messages}) + "\n"

    with (path / "train.jsonl").open("w") as file:
        file.writelines(line(number) for number in range(rows))
    with (path / "valid.jsonl").open("w") as file:
        file.writelines(line(number) for number in range(20))
    return path


def on(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Be such a Mac, with nothing else running on it."""
    chip, gigabytes = machine
    told = {
        "system": "Darwin",
        "machine": "arm64",
        "translated": 0,
        "container": False,
        "macos": "26.1",
        "chip": chip,
        "memory_bytes": gigabytes * 2**30,
        "metal": True,
        "available_bytes": gigabytes * 2**30,
        "swap_used_bytes": 0,
        "pressure": "normal",
    } | changes
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(told))
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(path))


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of a start but its process: these models have no weights."""

    def record(kind: Any, options: Any, *, job_id: str, **_: Any) -> JobFolder:
        spec = JobSpec(
            job_id=job_id, kind=kind, created=0, project="", python="", options=options.model_dump(mode="json")
        )
        return store.create(spec)

    monkeypatch.setattr(start.service, "start", record)


def planned(request: PlanRequest) -> Plan:
    return planning.finish(planning.draft(request))


@pytest.mark.parametrize(
    "case", TABLE, ids=lambda case: f"{case[0]}-{case[1] or 16}bit-{case[2]}x{case[3]}-{case[4][1]}GB-{case[5]}"
)
@pytest.mark.usefixtures("no_process")
def test_plan_is_accepted_as_it_is_or_says_what_would_fit(
    case: tuple[str, int | None, int, int, Machine, Goal, bool],
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    name, bits, rows, words, machine, goal, can = case
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(tmp_path))
    on(machine, tmp_path, monkeypatch)
    model, data = model_folder(folders, name, bits), data_folder(folders, rows, words)
    plan = planned(PlanRequest(model=str(model), data=str(data), goal=goal))
    assert plan.fits == can, plan.summary
    assert len(plan.model_dump_json()) < 10_000
    if not can:
        assert plan.arguments is None
        assert plan.what_would_fit is not None
        assert "4 bits" in plan.what_would_fit
        smallest = TrainingRequest(
            model=str(model), data=str(data), batch_size=1, num_layers=1, max_seq_length=257, grad_checkpoint=True
        )
        with pytest.raises(DoesNotFitError, match="GB"):
            start.start_training(smallest)
        return
    assert plan.arguments is not None
    assert plan.arguments.keys() <= plan.reasons.keys(), "an argument without a reason"
    assert plan.memory.peak_gb * 1e9 < machine[1] * 2**30
    assert plan.data.rows == rows
    assert plan.seconds_per_step is not None
    assert "rough" in plan.time_from
    started = start.start_training(TrainingRequest.model_validate(plan.arguments))
    assert started.iters == plan.arguments["iters"]
    assert started.train_rows == rows


@pytest.mark.usefixtures("no_process")
def test_plan_of_rows_with_names_of_their_own_is_accepted_as_it_is(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(tmp_path))
    on(M2_16, tmp_path, monkeypatch)
    (tmp_path / "data").mkdir()
    for name in ("train", "valid"):
        lines = [json.dumps({"q": f"How much is {number}?", "a": str(number)}) + "\n" for number in range(50)]
        (tmp_path / f"data/{name}.jsonl").write_text("".join(lines))
    asked = {"model": str(model_folder(folders, "qwen2.5-0.5b", None)), "data": "data"}
    with pytest.raises(DataError, match="has the keys a, q"):
        planned(PlanRequest.model_validate(asked))
    names = {"prompt_feature": "q", "completion_feature": "a"}
    plan = planned(PlanRequest.model_validate(asked | names))
    assert plan.arguments is not None
    assert plan.arguments.items() >= (names | {"mask_prompt": True}).items()
    assert plan.arguments.keys() <= plan.reasons.keys(), "an argument without a reason"
    assert start.start_training(TrainingRequest.model_validate(plan.arguments)).train_rows == 50


def test_the_table_covers_the_range():
    assert len(TABLE) >= 30
    assert {case[4][1] for case in TABLE} >= {8, 512}
    assert {case[2] for case in TABLE} >= {50, 1_000_000}
    assert {case[-1] for case in TABLE} == {True, False}
