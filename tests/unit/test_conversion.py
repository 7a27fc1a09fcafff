"""What is known of conversions and fusions without running one."""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from mcp_server.conversion.gguf import check_gguf
from mcp_server.conversion.options import ConvertOptions
from mcp_server.conversion.report import summarize_fusion
from mcp_server.conversion.source import AWQ_TYPES, check_convertible, converted_bytes, fused_bytes
from mcp_server.conversion.text import GENERAL_TEXT, find_text
from mcp_server.errors import DataError, ModelError, PathError
from mcp_server.jobs import service, store
from mcp_server.jobs.events import read_since
from mcp_server.jobs.store import JobSpec
from mcp_server.models import folder as models
from mcp_server.workers.convert import convert_model
from mcp_server.workers.fuse import fuse_adapter
from mcp_server.workers.job import WorkerJob
from mcp_server.workers.publish import publish
from tests.tiny import make_tiny_model

LEARN: dict[str, Any] = {"model": "m", "calibration_data": "data"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"q_bits": 7}, "q_bits=7"),
        ({"q_group_size": 48}, "q_group_size=48"),
        ({"q_mode": "mxfp4", "q_bits": 4}, "fixes bits"),
        ({"dequantize": True}, "quantize=false"),
        ({"method": "awq"}, "give calibration_data"),
        ({"calibration_data": "data"}, "name one"),
        ({"method": "gptq", "q_bits": 3, "calibration_data": "d"}, "2, 4, 8"),
        ({"method": "dwq", "q_mode": "mxfp4", "calibration_data": "d"}, "affine"),
        ({"method": "dynamic", "q_bits": 6, "calibration_data": "d"}, "high_bits=5 must be above q_bits=6"),
    ],
)
def test_options_that_do_not_go_together_are_named(given: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        ConvertOptions(model="m", **given)


def test_default_folder_says_what_was_done():
    names = {
        ConvertOptions(model="m").suffix(): "4bit",
        ConvertOptions(model="m", q_mode="mxfp8").suffix(): "mxfp8",
        ConvertOptions(model="m", quant_predicate="mixed_3_6").suffix(): "mixed_3_6",
        ConvertOptions(model="m", quantize=False, dtype="float16").suffix(): "float16",
        ConvertOptions(**LEARN, method="awq", q_bits=3).suffix(): "3bit-awq",
    }
    assert list(names) == list(names.values())


def test_architectures_of_awq_are_mlx_lms_own():
    from mlx_lm.quant.awq import AWQ_MODEL_CONFIGS

    assert set(AWQ_TYPES) == set(AWQ_MODEL_CONFIGS)


def test_awq_is_refused_where_it_would_fail(tmp_path: Path):
    awq = ConvertOptions(**LEARN, method="awq")
    with pytest.raises(ModelError, match=r"does not know mixtral .* choose method='dwq'"):
        check_convertible(make_tiny_model(tmp_path / "mixtral", model_type="mixtral"), awq)
    with pytest.raises(ModelError, match="multiple of the group size 64"):
        check_convertible(make_tiny_model(tmp_path / "odd", hidden=96), awq)
    check_convertible(make_tiny_model(tmp_path / "llama", model_type="llama"), awq)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"q_bits": 2},
        {"q_bits": 8, "q_group_size": 32},
        {"quantize": False},
        {"quantize": False, "dtype": "float16"},
    ],
)
def test_size_is_foretold_from_above_and_not_by_much(given: dict[str, Any], tmp_path: Path):
    from mlx_lm.convert import convert

    source = make_tiny_model(tmp_path / "source", hidden=128)
    options = ConvertOptions(model="m", **given)
    convert(
        str(source),
        str(tmp_path / "out"),
        quantize=options.quantize,
        q_bits=options.q_bits,
        q_group_size=options.q_group_size,
        dtype=options.dtype,
    )
    actual = models.size_bytes(tmp_path / "out")
    header = 20_000  # names and shapes, which a tiny model has as many of as a larger one
    assert actual - header <= converted_bytes(source, options) <= 1.35 * actual


def test_model_and_gguf_need_room_side_by_side(tmp_path: Path):
    model = make_tiny_model(tmp_path / "m")
    weights = models.size_bytes(model)
    alone = fused_bytes(model, dequantize=False, gguf=False)
    assert weights * 0.9 < alone < weights * 1.1
    assert fused_bytes(model, dequantize=False, gguf=True) == 2 * alone


def test_size_of_a_dequantized_model_is_that_of_its_floats(tmp_path: Path):
    source = make_tiny_model(tmp_path / "q4", quantize_bits=4, hidden=128)
    whole = make_tiny_model(tmp_path / "whole", hidden=128)
    expected = converted_bytes(source, ConvertOptions(model="m", quantize=False, dequantize=True))
    assert expected == pytest.approx(models.size_bytes(whole), rel=0.05)


def test_index_of_merged_files_is_no_missing_download(tmp_path: Path):
    model = make_tiny_model(tmp_path / "model")
    names = models.tensors(model / "model.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}))
    assert models.missing_files(model) == []
    index.write_text(json.dumps({"weight_map": {"other.weight": "model-00002-of-00002.safetensors"}}))
    assert models.missing_files(model) == ["model-00002-of-00002.safetensors"]
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors"):
        models.check(model)


def test_text_is_found_in_folders_and_files_or_named(project: Path):
    order = ("test", "valid", "train")
    assert find_text("data", "eval_data", order) == project / "data/test.jsonl"
    assert find_text("data/train.jsonl", "eval_data", order) == project / "data/train.jsonl"
    (project / "notes.txt").write_text("Some words.")
    assert find_text("notes.txt", "eval_data", order) == project / "notes.txt"
    (project / "blob.txt").write_bytes(b"\xff\xfe\x00")
    (project / "empty.txt").write_text(" ")
    (project / "rows.jsonl").write_text("{}")
    for name, words in (
        ("nowhere", "does not exist"),
        ("model", "none of test.jsonl"),
        ("blob.txt", "not UTF-8"),
        ("empty.txt", "is empty"),
        ("rows.jsonl", "rename it"),
    ):
        with pytest.raises(DataError, match=words):
            find_text(name, "eval_data", order)


def test_general_text_comes_with_the_package():
    assert len(GENERAL_TEXT.read_text(encoding="utf-8").split()) > 1000


def test_gguf_of_an_unknown_tokenizer_is_refused(tmp_path: Path):
    base = make_tiny_model(tmp_path / "llama", model_type="llama")
    (base / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"needs a tokenizer\.json"):
        check_gguf(base, dequantize=False)
    (base / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="can't be read"):
        check_gguf(base, dequantize=False)


def test_effect_that_is_left_is_told_from_noise():
    import mlx.core as mx

    from mcp_server.workers.effect import change, kept

    mx.random.seed(0)
    base, adapter, noise = (mx.random.normal((50, 40)) for _ in range(3))
    adapted = [base + adapter]
    whole = kept([base], adapted, [base + adapter])
    assert whole == {"effect_kept": 1, "relative_error": 0, "norm_ratio": 1}
    none = kept([base], adapted, [base])
    assert none == {"effect_kept": 0, "relative_error": 1, "norm_ratio": 0}
    half = kept([base], adapted, [base + 0.5 * adapter])
    assert half["effect_kept"] == pytest.approx(0.5, abs=1e-3)
    replaced = kept([base], adapted, [base + noise])
    assert abs(replaced["effect_kept"]) < 0.1 < 0.9 < replaced["norm_ratio"]
    assert kept([base], [base], [base + noise]) == {}
    same = change(adapted, adapted)
    assert (same.max_difference, same.mean_difference, same.kl, same.top1_agreement) == (0, 0, 0, 1)
    # Two tokens: KL(p || q) of p = (1/2, 1/2) and q = (1/4, 3/4) is ln 2 - ln 3 / 2.
    other = change([mx.zeros((1, 2))], [mx.log(mx.array([[0.25, 0.75]]))])
    assert other.kl == pytest.approx(0.1438, abs=1e-4)
    assert other.max_difference == pytest.approx(1.386, abs=1e-3)


@pytest.mark.parametrize("there", ["an empty folder", "a folder", "a file"])
def test_what_came_into_being_while_a_model_was_made_is_left_alone(there: str, tmp_path: Path):
    scratch, target = tmp_path / ".model.partial", tmp_path / "model"
    scratch.mkdir()
    (scratch / "model.safetensors").write_bytes(b"ours")
    if there == "a file":
        target.write_bytes(b"theirs")
    else:
        target.mkdir()
    if there == "a folder":
        (target / "theirs").touch()
    with pytest.raises(PathError, match="came into being"):
        publish(scratch, target, "mlx_path")
    assert not (target / "model.safetensors").exists()
    assert (scratch / "model.safetensors").exists()


@pytest.mark.parametrize("kind", ["convert", "fuse"])
def test_job_whose_target_came_into_being_while_it_waited_does_not_begin(
    kind: Literal["convert", "fuse"], tmp_path: Path
):
    target = tmp_path / "model"
    target.mkdir()
    made = {"convert": {"mlx_path": str(target)}, "fuse": {"save_path": str(target), "adapter_path": "a"}}
    options = {"model": "no/model"} | made[kind]
    spec = {"job_id": f"{kind}-x", "kind": kind, "created": 0, "project": "/", "python": "p", "scratch": "/s"}
    worker = WorkerJob(store.create(JobSpec.model_validate(spec | {"options": options})))
    with pytest.raises(PathError, match="came into being"):
        {"convert": convert_model, "fuse": fuse_adapter}[kind](worker)
    assert read_since(worker.folder.metrics, 0).events == []


def test_words_of_a_fusion_name_loss_and_remedy():
    good = summarize_fusion(0.999, 0.01, 1.0, quantized=True, measured_on="a text")
    assert good.startswith("The fused model is what base + adapter is")
    lost = summarize_fusion(0.1, 1.2, 0.8, quantized=True, measured_on="a text")
    assert lost.startswith("Most of the adapter was rounded away")
    assert "10.0%" in lost
    assert "dequantize=true" in lost
    noisy = summarize_fusion(0.99, 0.5, 0.9, quantized=False, measured_on="a text")
    assert "differs" in noisy
    assert "dequantize" not in noisy


def test_one_damaged_job_folder_does_not_keep_others_from_starting(home: Path):
    broken = home / "jobs/convert-broken"
    broken.mkdir(parents=True)
    (broken / "state.json").write_text('{"status": "working"}')
    service.sweep()
