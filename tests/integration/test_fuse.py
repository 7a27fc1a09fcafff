"""Fusions: one model that does what base and adapter did, or words and numbers that say it does not."""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp.client import Client

from tests.gguf_model import as_mlx_weights, known_tensor, read_gguf
from tests.helpers import call, end_of, in_short, refusal, status
from tests.integration.test_convert import (
    failure,
    kill_in_mid_write,
    left_overs,
    scratch_of,
    small_files,
)
from tests.random_adapters import make_adapter
from tests.sentencepiece import write_sentencepiece
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
WORDS = ["the", "lamp", "costs", "euros", "where", "is", "harbour", "bread"]


async def fused(client: Client, **arguments: Any) -> dict[str, Any]:
    answer = await call(client, "fuse_adapter", **{"adapter_path": "adapter", "save_path": "fused", **arguments})
    assert answer["status"] == "completed", answer
    return answer["result"]


def greedy(model: Path, adapter: Path | None = None, prompt: str = "How much is the lamp?") -> str:
    from mlx_lm import generate, load

    loaded = load(str(model), adapter_path=str(adapter) if adapter else None)
    return generate(loaded[0], loaded[1], prompt=prompt, max_tokens=12)


def share_kept(base: Path, adapter: Path, fused: Path, text: str) -> float:
    """<fused - base, adapted - base> over the square of the latter, in plain numpy, from models loaded anew."""
    import mlx.core as mx
    import numpy as np
    from mlx_lm import load

    def logits(model: Path, adapter: Path | None = None) -> np.ndarray:
        network, tokenizer = load(str(model), adapter_path=str(adapter) if adapter else None)[:2]
        network.eval()
        tokens: Any = tokenizer.encode(text)
        assert len(tokens) <= 256, "more than one piece"
        return np.array(network(mx.array([tokens])).astype(mx.float32), np.float64)

    zero = logits(base)
    wanted, found = logits(base, adapter) - zero, logits(fused) - zero
    return float((found * wanted).sum() / (wanted * wanted).sum())


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
async def test_fused_model_is_base_and_adapter_in_one(kind: str, client: Client, project: Path):
    adapter = make_adapter(project / "adapter", project / "model", fine_tune_type=kind)
    result = await fused(client)
    assert result["fine_tune_type"] == kind
    assert result["effect_kept"] == pytest.approx(1, abs=1e-3)
    assert result["relative_error"] < 1e-3
    assert result["same_greedy_text"]
    assert result["summary"].startswith("The fused model is what base + adapter is")
    assert result["adapted_vs_base"]["mean_difference"] > 100 * result["fused_vs_adapted"]["mean_difference"]
    assert result["perplexity"]["fused"] == pytest.approx(result["perplexity"]["adapted"], rel=1e-3)
    assert greedy(project / "fused") == greedy(project / "model", adapter)
    assert not left_overs(project)


async def test_weights_equal_stock_mlx_lm_fuse(client: Client, project: Path, tmp_path: Path):
    base = make_tiny_model(project / "base", model_type="llama", quantize_bits=4)
    adapter = make_adapter(project / "adapter", base)
    await fused(client)
    command = ["fuse", "--model", str(base), "--adapter-path", str(adapter), "--save-path", str(tmp_path / "stock")]
    done = subprocess.run([sys.executable, "-m", "mlx_lm", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, stock = (path / "model.safetensors" for path in (project / "fused", tmp_path / "stock"))
    assert ours.read_bytes() == stock.read_bytes()


@pytest.mark.parametrize("kind", ["lora", "dora"])
async def test_adapter_rounded_away_on_a_4_bit_base_is_said_and_dequantize_keeps_it(
    kind: str, client: Client, project: Path
):
    base = make_tiny_model(project / "base", quantize_bits=4, hidden=128)
    adapter = make_adapter(project / "adapter", base, strength=0.0005, fine_tune_type=kind)
    text = " ".join(WORDS * 8)
    (project / "text.txt").write_text(text)
    lost = await fused(client, save_path="lost", eval_data="text.txt")
    assert lost["effect_kept"] < 0.95
    assert lost["relative_error"] > 0.1
    assert lost["effect_kept"] == pytest.approx(share_kept(base, adapter, project / "lost", text), abs=2e-3)
    assert "dequantize=true" in lost["summary"]
    assert f"{lost['effect_kept']:.1%}" in lost["summary"]
    kept = await fused(client, save_path="kept", eval_data="data", dequantize=True)
    assert kept["effect_kept"] == pytest.approx(1, abs=1e-2)
    assert kept["summary"].startswith("The fused model is what base + adapter is")
    assert kept["bits_per_weight"] == 32
    assert greedy(project / "kept") == greedy(base, adapter)
    assert "quantization" not in json.loads((project / "kept/config.json").read_text())


async def test_experts_are_fused_too(client: Client, project: Path):
    base = make_tiny_model(project / "base", model_type="mixtral")
    adapter = make_adapter(project / "adapter", base)
    result = await fused(client)
    assert result["effect_kept"] == pytest.approx(1, abs=1e-3)
    assert greedy(project / "fused") == greedy(base, adapter)


async def test_untrained_adapter_changes_nothing_and_that_is_said(client: Client, project: Path):
    make_adapter(project / "adapter", project / "model", value=0.0)
    result = await fused(client)
    assert "changes nothing" in result["summary"]
    assert "effect_kept" not in result


async def test_provenance_names_base_adapter_and_job(client: Client, project: Path):
    adapter = make_adapter(project / "adapter", project / "model")
    (adapter / "provenance.json").write_text(json.dumps({"job_id": "train-1"}))
    answer = await call(client, "fuse_adapter", adapter_path="adapter")
    assert Path(answer["result"]["save_path"]) == project / "models/adapter-fused"
    found = json.loads((project / "models/adapter-fused/provenance.json").read_text())
    assert found["job_id"] == answer["job_id"]
    assert found["made_from"]["model"] == str(project / "model")
    assert found["made_from"]["adapter_path"] == str(adapter)
    assert found["made_from"]["adapter_job_id"] == "train-1"
    assert found["made_from"]["adapter_weights"].startswith("sha256:")
    assert found["command"].startswith("mlx-training fuse --adapter-path ")


async def test_existing_path_is_never_touched(client: Client, project: Path):
    make_adapter(project / "adapter", project / "model")
    for name in ("taken", "empty"):
        (project / name).mkdir()
    (project / "taken/precious.txt").write_text("mine")
    for name in ("taken", "empty", "taken/precious.txt"):
        text = await refusal(client, "fuse_adapter", adapter_path="adapter", save_path=name)
        assert "never overwritten" in text
    assert (project / "taken/precious.txt").read_text() == "mine"


async def test_adapters_that_do_not_fit_are_named(client: Client, project: Path):
    other = make_tiny_model(project / "other", hidden=128, layers=4)
    make_adapter(project / "adapter", other)
    text = await failure(client, "fuse_adapter", adapter_path="adapter", model="model", save_path="fused")
    assert "does not fit this model" in text
    assert "use the model it was trained on" in text
    make_adapter(project / "nan", project / "model", value=float("nan"))
    text = await failure(client, "fuse_adapter", adapter_path="nan", save_path="fused")
    assert "holds NaN" in text
    assert "lora_b" in text
    (project / "nan/adapter_config.json").unlink()
    assert "no adapter_config.json" in await refusal(client, "fuse_adapter", adapter_path="nan")
    config = json.loads((project / "adapter/adapter_config.json").read_text())
    (project / "adapter/adapter_config.json").write_text(json.dumps(config | {"model": None}))
    assert "names no model" in await refusal(client, "fuse_adapter", adapter_path="adapter")
    assert "not a folder" in await refusal(client, "fuse_adapter", adapter_path="nowhere")
    assert not (project / "fused").exists()
    assert not left_overs(project)


async def test_base_other_than_the_trained_one_is_noted(client: Client, project: Path):
    adapter = make_adapter(project / "adapter", project / "model")
    shutil.copytree((project / "model").resolve(), project / "twin")
    result = await fused(client, model="twin")
    assert f"trained on {project / 'model'}" in result["notes"][0]
    assert greedy(project / "fused") == greedy(project / "model", adapter)


def gguf_base(folder: Path, kind: str, **arguments: Any) -> Path:
    """A tiny model with a SentencePiece tokenizer that has just its vocabulary."""
    make_tiny_model(folder, model_type=kind, tie=False, chat_template=None, **arguments)
    write_sentencepiece(folder, WORDS, json.loads((folder / "config.json").read_text())["vocab_size"])
    return folder


@pytest.mark.parametrize(
    ("kind", "dtype", "bits"),
    in_short(
        [
            ("llama", "float16", None),
            ("mistral", "bfloat16", None),
            ("mixtral", "float32", None),
            ("llama", "float32", 4),
        ],
        ("llama", "float16", None),
        ("llama", "float32", 4),
    ),
)
async def test_gguf_read_by_its_own_reader_is_the_fused_model(
    kind: str, dtype: str, bits: int | None, client: Client, project: Path
):
    import mlx.core as mx
    from mlx_lm import generate, load

    base = gguf_base(project / "base", kind, dtype=dtype, quantize_bits=bits)
    adapter = make_adapter(project / "adapter", base, strength=0.02)
    result = await fused(client, export_gguf=True, dequantize=bits is not None)
    path = Path(result["gguf_path"])
    assert path.parent == project / "fused"
    fields, tensors = read_gguf(path)
    assert fields["general.architecture"] == "llama"
    assert fields["llama.block_count"] == 2
    assert len(fields["tokenizer.ggml.tokens"]) == tensors["token_embd.weight"].shape[0]
    assert [name for name in tensors if not known_tensor(name)] == []
    model, tokenizer, *_ = load(str(project / "fused"))
    ours = {name: value.shape for name, value in tree(model).items()}
    weights = as_mlx_weights(path)
    assert {name: value.shape for name, value in weights.items()} == ours
    prompt = "where is the lamp"
    wanted = generate(model, tokenizer, prompt=prompt, max_tokens=12)
    model.load_weights([(name, mx.array(value)) for name, value in weights.items()])
    if dtype == "bfloat16":
        model.set_dtype(mx.bfloat16)  # what was made 16-bit float loses nothing on the way back
    assert generate(model, tokenizer, prompt=prompt, max_tokens=12) == wanted
    assert greedy(base, adapter, prompt) == wanted


def tree(model: Any) -> dict[str, Any]:
    from mlx.utils import tree_flatten

    return dict(tree_flatten(model.parameters()))


async def test_gguf_that_mlx_lm_can_not_write_is_refused_before_anything_is(client: Client, project: Path):
    make_adapter(project / "adapter", project / "model")
    base = gguf_base(project / "llama", "llama")
    config = json.loads((base / "config.json").read_text())

    async def refused(model: str = "llama", **changes: Any) -> str:
        (base / "config.json").write_text(json.dumps(config | changes))
        return await refusal(
            client, "fuse_adapter", adapter_path="adapter", model=model, save_path="fused", export_gguf=True
        )

    assert "llama, mistral, mixtral" in await refused("model")
    make_tiny_model(project / "bytes", model_type="llama", tie=False)
    assert "SentencePiece" in await refused("bytes")
    make_tiny_model(project / "q4", model_type="llama", quantize_bits=4)
    assert "dequantize=true" in await refused("q4")
    assert "head_dim=64" in await refused(head_dim=64)
    assert "attention_bias" in await refused(attention_bias=True)
    assert "rope scaling 'llama3'" in await refused(rope_scaling={"rope_type": "llama3"})
    assert "token embeddings" in await refused(vocab_size=config["vocab_size"] + 8)
    text = await refused(mlp_bias=True)
    assert "convert_hf_to_gguf.py" in text
    assert not (project / "fused").exists()
    assert not left_overs(project)


@pytest.mark.parametrize("gguf", [False, True])
async def test_full_disk_in_mid_fusion_leaves_nothing(gguf: bool, client: Client, project: Path):
    base = gguf_base(project / "base", "llama", hidden=64 if gguf else 128, dtype="float16" if gguf else None)
    make_adapter(project / "adapter", base)
    with small_files():
        text = await failure(client, "fuse_adapter", adapter_path="adapter", save_path="models/out", export_gguf=gguf)
    assert "would not take the model" in text
    assert list((project / "models").iterdir()) == []


async def test_killed_fusion_leaves_nothing_after_the_next_start(client: Client, project: Path):
    base = make_tiny_model(project / "large", hidden=512, layers=6)
    make_adapter(project / "adapter", base)
    (project / "short.txt").write_text("How much is the lamp?")
    started = await call(
        client, "fuse_adapter", adapter_path="adapter", save_path="models/out", eval_data="short.txt", wait_seconds=0
    )
    await anyio.to_thread.run_sync(kill_in_mid_write, started["job_id"])
    assert not (project / "models/out").exists()
    second = await call(client, "generate_text", model="model", prompt="hello", max_tokens=1)
    assert not scratch_of(started["job_id"]).exists()
    assert status(started["job_id"]) == "lost"
    assert second["status"] == "completed"
    assert list((project / "models").iterdir()) == []


@pytest.mark.slow
async def test_fusion_waits_in_line(client: Client, project: Path):
    make_adapter(project / "adapter", project / "model")
    first = await call(client, "fuse_adapter", adapter_path="adapter", save_path="one", wait_seconds=0)
    second = await call(client, "fuse_adapter", adapter_path="adapter", save_path="two", wait_seconds=0)
    assert second["status"] == "queued"
    assert first["job_id"] in second["why"]
    for answer in (first, second):
        assert (await end_of(client, answer["job_id"]))["status"] == "completed"
