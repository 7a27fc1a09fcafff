"""Plans, probes and the memory check with real workers on tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from mcp_server.jobs import store
from mcp_server.planning import calibration
from mcp_server.platform import interpreter
from tests.helpers import call, end_of, refusal, training
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def wide(project: Path) -> Path:
    """A model whose activations outweigh everything else, and rows of different lengths."""
    make_tiny_model(project / "wide", hidden=256, layers=4)
    data = project / "rows"
    data.mkdir()
    for name, count in (("train", 24), ("valid", 4)):
        rows: list[dict[str, Any]] = []
        for number in range(count):
            question = {"role": "user", "content": "How much is the lamp? " * (1 + number % 8)}
            rows.append({"messages": [question, {"role": "assistant", "content": "The lamp costs 42."}]})
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return project


def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({"system": "Linux", "machine": "x86_64", "container": False, "cuda": False} | facts))
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(path))


async def test_plan_with_a_probe_is_started_as_it_is_and_meets_the_run(client: Client, wide: Path):
    plan = await call(client, "plan_training", model="wide", data="rows", goal="fast", probe=True)
    probe = plan["probe"]
    assert plan["fits"]
    assert plan["memory"]["corrected_by"] == "a probe of this very training"
    assert plan["data"]["counted_by"] == "the model's tokenizer"
    arguments = plan["arguments"] | {"iters": 24, "steps_per_eval": 12}
    started = await call(client, "start_lora_training", **arguments)
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    memory = [
        event
        for event in map(json.loads, (store.get(started["job_id"]).metrics).read_text().splitlines())
        if event["type"] == "memory"
    ]
    assert probe["peak_bytes"] == pytest.approx(memory[-1]["peak_bytes"], rel=0.03)
    # The estimate alone, without the probe, is for larger models; even here it is in sight.
    first = store.get(plan["probe_job"]).path / calibration.ESTIMATE
    expected = json.loads(first.read_text())
    assert expected["resident"] + expected["above"] == pytest.approx(probe["peak_bytes"], rel=0.2)


async def test_what_a_probe_measured_corrects_the_next_estimate(client: Client, wide: Path):
    before = await call(client, "plan_training", model="wide", data="rows")
    assert before["memory"]["corrected_by"] == "not calibrated on this machine"
    probed = await call(client, "plan_training", model="wide", data="rows", probe=True)
    after = await call(client, "plan_training", model="wide", data="rows")
    assert after["memory"]["corrected_by"] == "probes on this machine"
    measured = probed["probe"]["peak_bytes"] / 1e9
    assert abs(after["memory"]["peak_gb"] - measured) <= abs(before["memory"]["peak_gb"] - measured)
    assert after["memory"]["peak_gb"] == pytest.approx(measured, abs=0.001)


async def test_the_rest_of_a_training_teaches_nothing_of_rows_that_it_need_not_have_met(client: Client, wide: Path):
    arguments = training(model="wide", data="rows", iters=12, val_batches=0)
    whole = await call(client, "start_lora_training", **arguments)
    await end_of(client, whole["job_id"])
    rest = await call(client, "start_lora_training", resume=whole["job_id"], iters=13, adapter_path="adapters/rest")
    await end_of(client, rest["job_id"])
    exact = [
        json.loads((store.get(one["job_id"]).path / calibration.ESTIMATE).read_text())["exact"] for one in (whole, rest)
    ]
    assert exact == [True, False]


async def test_training_that_cannot_fit_is_refused_with_the_plan_that_would(
    client: Client, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arguments = training(model="wide", data="rows", batch_size=4, num_layers=4, max_seq_length=512)
    plan = await call(client, "plan_training", model="wide", data="rows")
    assert plan["fits"]
    # Room for the weights and little more; a Linux machine keeps half of so small a memory.
    told(tmp_path, monkeypatch, memory_bytes=50_000_000, available_bytes=50_000_000)
    text = await refusal(client, "start_lora_training", **arguments)
    assert "may be used here" in text
    assert "grad_checkpoint=true" in text
    assert "batch_size=" in text
    assert not (wide / "adapters").exists()
    assert not list(store.all_folders())
    smaller = {
        name: json.loads(value)
        for name, value in (
            part.strip().split("=") for part in text.partition("with ")[2].partition(" it needs")[0].split(",")
        )
    }
    started = await call(client, "start_lora_training", **(arguments | smaller))
    assert (await end_of(client, started["job_id"]))["status"] == "completed"


async def test_a_plan_whose_probe_needs_more_than_there_is_is_cut_further(
    client: Client, wide: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told(tmp_path, monkeypatch, memory_bytes=510_000_000, available_bytes=510_000_000)  # half of it may be used
    first = await call(client, "plan_training", model="wide", data="rows", goal="best", probe=True)
    peak = first["probe"]["peak_bytes"]
    # As if the formula took this training for much smaller than it is.
    record = json.loads((home / "calibration.json").read_text())
    for entry in record["entries"]:
        entry["ratio"] /= 2
    (home / "calibration.json").write_text(json.dumps(record))
    told(tmp_path, monkeypatch, memory_bytes=int(1.8 * peak), available_bytes=int(1.8 * peak))
    plan = await call(client, "plan_training", model="wide", data="rows", goal="best", probe=True)
    assert plan["fits"] and plan["cut_to_fit"], (peak, first["memory"], plan)
    assert "was cut further" in plan["warnings"][0]
    assert plan["probe_job"] and plan.get("probe") is None


async def test_nothing_starts_while_other_programs_hold_the_memory(
    client: Client, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told(tmp_path, monkeypatch, memory_bytes=64 * 2**30, available_bytes=10**7)
    text = await refusal(client, "start_lora_training", **training(model="wide", data="rows"))
    assert "other programs hold the rest" in text
    assert not list(store.all_folders())
    plan = await call(client, "plan_training", model="wide", data="rows")
    assert plan["fits"]
    assert "close other programs" in plan["next_step"]


async def test_tight_training_starts_with_a_warning(
    client: Client, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arguments = training(model="wide", data="rows", num_layers=4)
    peak = json.loads((await _expected(client, arguments)).read_text())
    need = peak["resident"] + peak["above"]
    told(tmp_path, monkeypatch, memory_bytes=64 * 2**30, available_bytes=int(need * 1.05))
    started = await call(client, "start_lora_training", **arguments | {"adapter_path": "adapters/tight"})
    assert any("memory is tight" in warning for warning in started["warnings"])
    await end_of(client, started["job_id"])


async def _expected(client: Client, arguments: dict[str, Any]) -> Path:
    started = await call(client, "start_lora_training", **arguments)
    await end_of(client, started["job_id"])
    return store.get(started["job_id"]).path / calibration.ESTIMATE


async def test_missing_environment_is_named_by_every_tool_that_needs_it(
    client: Client, project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: None)
    for tool, arguments in (
        ("start_lora_training", training()),
        ("convert_model", {"model": "model", "mlx_path": "out"}),
        ("run_benchmark", {"model": "model", "data": "data"}),
        ("plan_training", {"model": "model", "data": "data", "probe": True}),
    ):
        assert "prepare_environment" in await refusal(client, tool, **arguments)
    plan = await call(client, "plan_training", model="model", data="data")
    assert plan["fits"], "a plan needs no mlx"
    assert plan["data"]["counted_by"] == "characters"


async def test_model_that_is_not_here_says_how_to_get_it(
    client: Client, project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    text = await refusal(client, "plan_training", model="mlx-community/Nowhere-1B-4bit", data="data")
    assert "download it first" in text


async def test_memory_of_a_running_job_has_a_trend_and_headroom(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(iters=40, steps_per_report=1, steps_per_eval=40))
    await end_of(client, started["job_id"])
    report = await call(client, "get_metal_memory", job_id=started["job_id"])
    assert report["job"]["peak"] > 0
    assert report["headroom_gb"] == pytest.approx(report["limit_gb"] - report["job"]["peak"], abs=0.02)
    assert report["trend"]["direction"] == "steady"
    assert report["trend"]["steps"] > 20
    alone = await call(client, "get_metal_memory")
    assert "no job is running" in alone["summary"]
    assert "job" not in alone


async def test_job_whose_turn_comes_beside_a_full_memory_ends_in_words(
    client: Client, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLX_TRAINING_MEMORY_SECONDS", "1")
    told(tmp_path, monkeypatch, memory_bytes=64 * 2**30, available_bytes=40 * 10**9)
    first = await call(client, "start_lora_training", **training(model="wide", data="rows", iters=2000, num_layers=4))
    waiting = await call(
        client, "start_lora_training", **training(model="wide", data="rows", adapter_path="adapters/second")
    )
    assert waiting["status"] == "queued"
    # Somebody else takes the memory while it waits in line.
    told(tmp_path, monkeypatch, memory_bytes=64 * 2**30, available_bytes=10**6)
    await call(client, "stop_job", job_id=first["job_id"])
    news = await end_of(client, waiting["job_id"])
    assert news["status"] == "failed"
    assert "other programs hold the rest" in news["why"]
    assert not (wide / "adapters" / "second").exists()
