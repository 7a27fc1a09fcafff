"""Conversions: everything mlx_lm.convert does, what it costs as a number, and nothing half made whatever happens."""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
import pytest
from mcp.client import Client

from mcp_server.jobs import service
from tests.helpers import call, end_of, folder, in_short, refusal, status, wait_until
from tests.tiny import ALWAYS_TIED, make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

# What is asked, and what the configuration of the result says of its quantization.
FORMATS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "4 bits": ({}, {"bits": 4, "group_size": 64, "mode": "affine"}),
    "3 bits in groups of 32": ({"q_bits": 3, "q_group_size": 32}, {"bits": 3, "group_size": 32, "mode": "affine"}),
    "8 bits in groups of 128": ({"q_bits": 8, "q_group_size": 128}, {"bits": 8, "group_size": 128, "mode": "affine"}),
    "mxfp4": ({"q_mode": "mxfp4"}, {"bits": 4, "group_size": 32, "mode": "mxfp4"}),
    "nvfp4": ({"q_mode": "nvfp4"}, {"bits": 4, "group_size": 16, "mode": "nvfp4"}),
    "mxfp8": ({"q_mode": "mxfp8"}, {"bits": 8, "group_size": 32, "mode": "mxfp8"}),
    "mixed": ({"quant_predicate": "mixed_3_6"}, {"bits": 4, "group_size": 64, "mode": "affine"}),
}
CALIBRATION = {"calibration_data": "data", "method_options": {"max_seq_length": 32, "num_samples": 24, "n_grid": 4}}
METHODS = ("dwq", "awq", "gptq", "dynamic")


def greedy(model: Path, tokens: int = 12) -> str:
    """What stock mlx-lm generates."""
    from mlx_lm import generate, load

    loaded = load(str(model))
    return generate(loaded[0], loaded[1], prompt="How much is the lamp?", max_tokens=tokens)


def config_of(model: Path) -> dict[str, Any]:
    return json.loads((model / "config.json").read_text())


def left_overs(parent: Path) -> list[str]:
    """Hidden folders beside the results: what a job has not cleared away."""
    return [path.name for path in parent.iterdir() if path.name.endswith(".partial")]


async def converted(client: Client, **arguments: Any) -> dict[str, Any]:
    answer = await call(client, "convert_model", **arguments)
    assert answer["status"] == "completed", answer
    return answer["result"]


async def failure(client: Client, tool: str, **arguments: Any) -> str:
    """Why a job that was started failed: words, no traceback."""
    answer = await call(client, tool, **arguments)
    assert answer["status"] == "failed", answer
    assert "Traceback" not in answer["why"]
    return answer["why"]


@pytest.mark.parametrize("name", in_short(FORMATS, "4 bits", "mxfp4"))
async def test_every_format_loads_in_stock_mlx_lm_and_says_its_bits(name: str, client: Client, project: Path):
    asked, said = FORMATS[name]
    make_tiny_model(project / "base", model_type="llama", hidden=128)
    result = await converted(client, model="base", mlx_path="out", **asked)
    quantization = config_of(project / "out")["quantization"]
    assert {key: quantization[key] for key in said} == said
    assert result["bits_per_weight"] < result["source_bits_per_weight"] == 32
    assert result["bytes"] < result["source_bytes"]
    assert "bits per weight" in result["summary"]
    assert f"{result['perplexity_change_percent']:+.2f} %" in result["summary"]
    assert greedy(project / "out") is not None
    assert not left_overs(project)


async def test_weights_equal_stock_mlx_lm_convert(client: Client, project: Path, tmp_path: Path):
    from mlx_lm.convert import convert

    await converted(client, model="model", mlx_path="ours", q_bits=4, dtype="bfloat16")
    convert(str(project / "model"), str(tmp_path / "stock"), quantize=True, q_bits=4, dtype="bfloat16")
    ours, stock = (path / "model.safetensors" for path in (project / "ours", tmp_path / "stock"))
    assert ours.read_bytes() == stock.read_bytes()


@pytest.mark.slow
async def test_copies_and_dequantized_models_say_the_same_as_what_they_were_made_from(client: Client, project: Path):
    same = await converted(client, model="model", mlx_path="copy", quantize=False)
    assert same["perplexity_change_percent"] == 0
    assert greedy(project / "copy") == greedy(project / "model")
    await converted(client, model="model", mlx_path="q4")
    back = await converted(client, model="q4", mlx_path="back", quantize=False, dequantize=True)
    assert abs(back["perplexity_change_percent"]) < 0.01
    assert back["bits_per_weight"] == 32
    assert "quantization" not in config_of(project / "back")
    assert greedy(project / "back") == greedy(project / "q4")
    half = await converted(client, model="model", mlx_path="half", quantize=False, dtype="float16")
    assert half["bits_per_weight"] == 16
    assert greedy(project / "half") == greedy(project / "model")


async def test_perplexity_is_stock_mlx_lms_on_the_users_text(client: Client, project: Path):
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.perplexity import eval_ppl

    text = project / "text.txt"
    rows = (project / "data/train.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer = load(str(project / "model"))[1]
    whole = tokenizer.encode("\n".join(json.loads(row)["messages"][-1]["content"] for row in rows))
    # Stock leaves the last piece out when it is not full, so there is none.
    text.write_text(tokenizer.decode(whole[: len(whole) // 256 * 256]), encoding="utf-8")
    result = await converted(client, model="model", mlx_path="q4", eval_data="text.txt")
    assert str(text) in result["measured_on"]
    for model, ours in (("model", result["source_perplexity"]), ("q4", result["perplexity"])):
        loaded = load(str(project / model))
        tokens = loaded[1].encode(text.read_text(encoding="utf-8"))
        stock, _ = eval_ppl(loaded[0], mx.array(tokens).reshape(-1, 256))
        assert ours == pytest.approx(stock, rel=0.01)


async def test_users_rows_are_what_is_measured(client: Client, project: Path):
    result = await converted(client, model="model", mlx_path="q2", q_bits=2, eval_data="data")
    assert "test.jsonl" in result["measured_on"]
    assert result["source_perplexity"] < result["perplexity"] < 5, "rows of a kind that the base knows well"
    ratio = result["perplexity"] / result["source_perplexity"]
    assert result["perplexity_change_percent"] == pytest.approx(100 * (ratio - 1), abs=0.02)
    assert result["perplexity_change_percent"] > 5
    low, high = result["interval_95"]
    assert 0 < low < result["perplexity_change_percent"] < high


async def test_what_was_not_quantized_is_said(client: Client, project: Path):
    make_tiny_model(project / "odd", hidden=96)
    result = await converted(client, model="odd", mlx_path="out")
    assert "layers keep their full precision: lm_head" in result["notes"][0] or "embed_tokens" in result["notes"][0]
    make_tiny_model(project / "narrow", hidden=48)
    text = await failure(client, "convert_model", model="narrow", mlx_path="none")
    assert "group size 64" in text
    assert "smaller q_group_size" in text
    assert not (project / "none").exists()
    assert not left_overs(project)


async def test_second_quantization_is_refused_where_stock_says_nothing(client: Client, project: Path):
    make_tiny_model(project / "q4", quantize_bits=4)
    text = await refusal(client, "convert_model", model="q4", mlx_path="out", q_bits=3)
    assert "already quantized (4 bits in groups of 64)" in text
    assert "dequantize=true" in text
    text = await refusal(client, "convert_model", model="model", mlx_path="out", quantize=False, dequantize=True)
    assert "not quantized" in text


def hub_cache(home: Path, monkeypatch: pytest.MonkeyPatch, model: str, source: Path) -> Path:
    """A Hugging Face cache that holds ``model``, laid out as huggingface_hub does; gives its snapshot."""
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    repository = home / "hub" / f"models--{model.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc123")
    shutil.copytree(source, repository / "snapshots/abc123")
    return repository / "snapshots/abc123"


async def test_hub_id_in_the_cache_converts_offline(
    client: Client, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Stock with an id writes everything, fails at the model card, and leaves the folder."""
    hub_cache(tmp_path, monkeypatch, "org/tiny", make_tiny_model(tmp_path / "tiny"))
    result = await converted(client, model="org/tiny")
    assert Path(result["mlx_path"]) == project / "models/tiny-4bit"


async def test_cut_download_is_named_offline(
    client: Client, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    snapshot = hub_cache(tmp_path, monkeypatch, "org/tiny", make_tiny_model(tmp_path / "tiny"))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
    text = await refusal(client, "convert_model", model="org/tiny")
    assert "model-00002-of-00002.safetensors" in text
    assert "go online" in text
    text = await refusal(client, "convert_model", model="org/other")
    assert "HF_HUB_OFFLINE" in text


async def test_damaged_weights_are_named(client: Client, project: Path):
    import mlx.core as mx

    model = make_tiny_model(project / "nan")
    weights: Any = mx.load(str(model / "model.safetensors"))
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name] * float("nan")
    mx.save_safetensors(str(model / "model.safetensors"), weights, {"format": "pt"})
    text = await failure(client, "convert_model", model="nan", mlx_path="out", quantize=False)
    assert name in text
    assert "NaN" in text
    text = await failure(client, "convert_model", model="nan", mlx_path="out")
    assert "model.layers.1.mlp.up_proj" in text
    assert not (project / "out").exists()
    assert not left_overs(project)


async def test_model_whose_results_overflow_is_named(client: Client, project: Path):
    import mlx.core as mx

    model = make_tiny_model(project / "huge")
    weights: Any = mx.load(str(model / "model.safetensors"))
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = mx.full(weights[name].shape, 3e38)
    mx.save_safetensors(str(model / "model.safetensors"), weights, {"format": "pt"})
    text = await failure(client, "convert_model", model="huge", mlx_path="out", quantize=False)
    assert "not a number" in text and "bfloat16" in text
    assert not (project / "out").exists()
    assert not left_overs(project)


async def test_model_with_code_of_its_own_is_refused(client: Client, project: Path):
    model = make_tiny_model(project / "coded")
    config = config_of(model) | {"model_file": "evil.py"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "evil.py").write_text("raise SystemExit('ran')")
    text = await failure(client, "convert_model", model="coded", mlx_path="out")
    assert "never run" in text


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", in_short(["llama", "qwen2"], "llama"))
async def test_learned_quantization_runs_on_the_users_rows(method: str, kind: str, client: Client, project: Path):
    await learn(client, project, kind, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["mistral", "qwen3", "gemma2", "gemma3_text", "cohere", "phi3", "mixtral"])
async def test_learned_quantization_of_other_architectures(method: str, kind: str, client: Client, project: Path):
    if method == "awq" and kind in ("gemma2", "cohere", "phi3", "mixtral"):
        make_tiny_model(project / "base", model_type=kind, hidden=128)
        text = await refusal(client, "convert_model", model="base", mlx_path="out", method=method, **CALIBRATION)
        assert f"awq does not know {kind} models" in text
        return
    await learn(client, project, kind, method)


async def learn(client: Client, project: Path, kind: str, method: str) -> None:
    make_tiny_model(project / "base", model_type=kind, hidden=128, tie=kind in (*ALWAYS_TIED, "qwen2"))
    result = await converted(client, model="base", mlx_path="out", method=method, **CALIBRATION)
    assert 4 < result["bits_per_weight"] < 6
    assert config_of(project / "out")["quantization"]["bits"] == 4
    assert greedy(project / "out") is not None
    provenance = json.loads((project / "out/provenance.json").read_text())
    assert f"--method {method}" in provenance["command"]


async def test_calibration_on_the_models_own_rows_costs_less_than_rounding(client: Client, project: Path):
    """GPTQ takes the rows' statistics into account, so on such rows it loses less than plain rounding to as many bits."""
    shared = {"model": "model", "q_bits": 2, "eval_data": "data"}
    plain = await converted(client, mlx_path="plain", **shared)
    learned = await converted(
        client,
        mlx_path="gptq",
        method="gptq",
        calibration_data="data",
        method_options={"max_seq_length": 32},
        **shared,
    )
    assert learned["perplexity"] < 0.95 * plain["perplexity"]


async def test_too_little_calibration_is_said(client: Client, project: Path):
    few = project / "few"
    few.mkdir()
    (few / "train.jsonl").write_text((project / "data/train.jsonl").read_text().splitlines()[0] + "\n")
    text = await failure(client, "convert_model", model="model", mlx_path="out", method="gptq", calibration_data="few")
    assert "fewer than one sample of 512" in text
    text = await failure(client, "convert_model", model="model", mlx_path="out", method="dwq", calibration_data="few")
    assert "dwq needs 8" in text
    assert not (project / "out").exists()


async def test_model_that_a_method_can_not_do_is_named(client: Client, project: Path):
    make_tiny_model(project / "odd", hidden=96)
    shared = {"calibration_data": "data", "method_options": {"max_seq_length": 32}}
    text = await failure(client, "convert_model", model="odd", mlx_path="out", method="gptq", **shared)
    assert "mlx-lm's gptq fails on this qwen2 model" in text
    text = await refusal(client, "convert_model", model="odd", mlx_path="out", method="awq", **shared)
    assert "smaller q_group_size" in text
    text = await refusal(client, "convert_model", model="odd", mlx_path="out", revision="main")
    assert "goes with a Hub id" in text
    assert not (project / "out").exists()


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Files of this process, and of the jobs it starts, end at 200 kB, as on a disk that is full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


async def test_full_disk_in_mid_conversion_leaves_nothing(client: Client, project: Path):
    with small_files():
        text = await failure(client, "convert_model", model="model", mlx_path="models/out", quantize=False)
    assert "would not take the model" in text
    assert "free space" in text
    assert list((project / "models").iterdir()) == []


def scratch_of(job_id: str) -> Path:
    scratch = folder(job_id).spec().scratch
    assert scratch is not None
    return Path(scratch)


def kill_in_mid_write(job_id: str) -> None:
    """SIGKILL runner and worker once the scratch folder holds something."""
    wait_until(lambda: list(scratch_of(job_id).glob("*")), "the scratch folder to fill")
    state = folder(job_id).state()
    assert state.runner is not None
    assert state.worker is not None
    both = (state.runner, state.worker)
    for process in both:
        psutil.Process(process.pid).kill()
    wait_until(lambda: not any(process.alive() for process in both), "both to be dead")


async def test_killed_conversion_leaves_nothing_after_the_next_start(client: Client, project: Path):
    make_tiny_model(project / "large", hidden=512, layers=6)
    started = await call(client, "convert_model", model="large", mlx_path="models/out", wait_seconds=0)
    await anyio.to_thread.run_sync(kill_in_mid_write, started["job_id"])
    assert not (project / "models/out").exists()
    assert left_overs(project / "models"), "it was killed in the middle"
    second = await call(client, "convert_model", model="model", mlx_path="models/second", wait_seconds=0)
    assert not scratch_of(started["job_id"]).exists(), "the next start of any job clears away"
    assert status(started["job_id"]) == "lost"
    await end_of(client, second["job_id"])
    assert [path.name for path in (project / "models").iterdir()] == ["second"]


async def test_stopped_conversion_leaves_nothing(client: Client, project: Path):
    started = await call(
        client,
        "convert_model",
        model="model",
        mlx_path="out",
        method="dwq",
        calibration_data="data",
        method_options={"batch_size": 1, "learning_rate": 1e-9},
        wait_seconds=0,
    )
    job = folder(started["job_id"])
    await anyio.to_thread.run_sync(lambda: wait_until(lambda: service.view(job).step, "steps"))
    view = await call(client, "stop_job", job_id=job.job_id)
    assert view["status"] == "cancelled"
    assert not (project / "out").exists()
    assert not left_overs(project)


async def test_provenance_repeats_the_conversion(client: Client, project: Path):
    result = await converted(client, model="model", mlx_path="out", q_bits=3)
    provenance = json.loads((project / "out/provenance.json").read_text())
    assert provenance["made_from"]["model"] == str(project / "model")
    assert provenance["results"]["perplexity"] == result["perplexity"]
    assert provenance["command"].startswith("mlx-training convert --model ")
    assert "--q-bits 3" in provenance["command"]
    assert os.path.isabs(provenance["options"]["mlx_path"])
