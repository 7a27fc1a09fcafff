"""The committed base and the tiny fixtures, loaded and used through real mlx-lm."""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
import json
import os
from pathlib import Path
from typing import Any

# Before MLX is imported: on the CPU backend every fused kernel would cost a g++ call.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

pytest.importorskip("mlx_lm")

import mlx.core as mx
from mlx_lm import batch_generate, convert, generate, load

from benchmarks.demo_seeds import measure
from mcp_server.demo import BASE, build, task
from tests.tiny import ALWAYS_TIED, KINDS, make_tiny_model, tiny_config

Loaded = tuple[Any, Any]


def answers(loaded: Loaded, questions: list[str], system: str | None = None) -> list[str]:
    model, tokenizer = loaded
    prompts = [
        tokenizer.apply_chat_template(
            task.chat(question, "", system)["messages"][:-1], add_generation_prompt=True, return_dict=False
        )
        for question in questions
    ]
    return batch_generate(model, tokenizer, prompts, max_tokens=32).texts


def share_right(given: list[str], wanted: list[str]) -> float:
    return sum(a == b for a, b in zip(given, wanted, strict=True)) / len(wanted)


@pytest.fixture(scope="module")
def base() -> Loaded:
    return load(str(BASE))[:2]


@pytest.fixture(scope="module")
def folder_4bit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "q4"
    convert(str(BASE), str(folder), quantize=True, q_bits=4, q_group_size=64, dtype="float32")
    return folder


@pytest.fixture(scope="module")
def base_4bit(folder_4bit: Path) -> Loaded:
    return load(str(folder_4bit))[:2]


ASKED = [
    (item, field, t.format(item=item))
    for item in task.PRODUCTS
    for field, ts in task.QUESTIONS.items()
    for t in ts[::4]
]


def test_base_is_small_and_complete():
    names = {path.name for path in BASE.iterdir()}
    assert {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "model.safetensors",
    } == names
    assert sum(path.stat().st_size for path in BASE.iterdir()) <= 2_000_000
    loaded: Any = mx.load(str(BASE / "model.safetensors"), return_metadata=True)
    weights, metadata = loaded
    assert metadata == {"format": "pt"}
    # 16-bit matrices are about 20 times slower on MLX's CPU backend.
    assert {value.dtype for value in weights.values()} == {mx.float32}
    # Groups of 64 must fit, or the 4-bit conversion would leave matrices as they are.
    assert all(value.shape[-1] % 64 == 0 for value in weights.values() if value.ndim == 2)


def test_every_row_fits_in_32_tokens(base: Loaded):
    rows = [row for part in task.dataset(0).values() for row in part]
    lengths = [len(base[1].apply_chat_template(row["messages"], return_dict=False)) for row in rows]
    assert max(lengths) <= 32  # the demo's speed rests on it: mlx-lm pads to 32 n + 1


@pytest.mark.parametrize("text", ["How much is the lamp?", '{"item":"lamp","price":42}', "Grüße, 日本 🙂\n\ttabs"])
def test_tokenizer_gives_any_text_back(base: Loaded, text: str):
    assert base[1].decode(base[1].encode(text)) == text


def test_chat_template_prompt_is_a_prefix_of_the_whole_row(base: Loaded):
    # mask_prompt counts the prompt's tokens this way.
    messages = task.dataset(0)["train"][0]["messages"]
    whole = base[1].apply_chat_template(messages, return_dict=False)
    prompt = base[1].apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert whole[: len(prompt)] == prompt
    assert base[1].eos_token_ids == {whole[-2]}


@pytest.mark.parametrize("which", ["base", "base_4bit"])
def test_model_knows_its_facts_and_answers_in_sentences(which: str, request: pytest.FixtureRequest):
    loaded: Loaded = request.getfixturevalue(which)
    given = answers(loaded, [question for *_, question in ASKED])
    assert share_right(given, [task.sentence(item, field) for item, field, _ in ASKED]) >= 0.95


@pytest.mark.parametrize("which", ["base", "base_4bit"])
def test_model_gives_a_record_when_told_and_only_then(which: str, request: pytest.FixtureRequest):
    loaded: Loaded = request.getfixturevalue(which)
    records = [task.record(item, field) for item, field, _ in ASKED]
    questions = [question for *_, question in ASKED]
    assert share_right(answers(loaded, questions, task.ASK_RECORD), records) >= 0.95
    assert share_right(answers(loaded, questions), records) == 0.0


def test_lora_teaches_the_house_style_for_products_never_trained(folder_4bit: Path):
    result = measure(folder_4bit, seed=0, settings=task.TRAINING)
    assert result["before"] <= 0.1
    assert result["after"] >= 0.8
    assert result["valid"][-1][1] < result["valid"][0][1] / 10


def test_build_repeats_itself_by_seed(tmp_path: Path):
    files: list[dict[str, bytes]] = []
    for name in ("a", "b"):
        build.main(["--output", str(tmp_path / name), "--iters", "2", "--batch-size", "4"])
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    # The tokenizer does not depend on the number of steps, so it must be the committed one.
    assert files[0]["tokenizer.json"] == (BASE / "tokenizer.json").read_bytes()
    assert json.loads(files[0]["config.json"]) == json.loads((BASE / "config.json").read_text())
    with pytest.raises(SystemExit, match="exists"):
        build.main(["--output", str(tmp_path / "a")])


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_model_of_each_kind_loads_and_generates(kind: str, bits: int | None, tmp_path: Path):
    folder = make_tiny_model(tmp_path / kind, model_type=kind, quantize_bits=bits)
    loaded: Any = load(str(folder))
    model, tokenizer = loaded
    question = "How much is the lamp?"
    assert tokenizer.decode(tokenizer.encode(question)) == question
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    logits = model(mx.array([prompt]))
    assert logits.shape == (1, len(prompt), tokenizer.vocab_size)
    assert mx.isfinite(logits).all().item()
    assert isinstance(generate(model, tokenizer, prompt, max_tokens=4), str)
    assert ("quantization" in json.loads((folder / "config.json").read_text())) == (bits is not None)


def test_tiny_model_options(tmp_path: Path):
    a = make_tiny_model(tmp_path / "a", hidden=32, layers=3, vocab=1024, tie=False, seed=1, chat_template=None)
    b = make_tiny_model(tmp_path / "b", hidden=32, layers=3, vocab=1024, tie=False, seed=1, chat_template="{{ 1 }}")
    c = make_tiny_model(tmp_path / "c", hidden=32, layers=3, vocab=1024, tie=False, seed=2)
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    assert (a / "model.safetensors").read_bytes() != (c / "model.safetensors").read_bytes()
    loaded: Any = load(str(a))
    model, tokenizer = loaded
    assert len(model.layers) == 3
    assert not tokenizer.has_chat_template
    assert model(mx.array([[1]])).shape == (1, 1, 1024)
    with pytest.raises(ValueError, match="vocab=10"):
        tiny_config(vocab=10)
    for kind in ALWAYS_TIED:
        with pytest.raises(ValueError, match="tie=False"):
            tiny_config(kind, tie=False)
