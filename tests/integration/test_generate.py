"""Trying a model or an adapter on a prompt, through the same line for the machine as every job."""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mcp.client import Client
from tokenizers import Tokenizer

from tests.helpers import call, refusal, training
from tests.integration.test_convert import failure
from tests.random_adapters import make_adapter
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
PROMPT = "How much is the lamp?"


def stock(model: Path, adapter: Path | None = None, *, chat: bool = True) -> str:
    """What stock mlx-lm answers greedily."""
    from mlx_lm import generate, load

    net, tokenizer, *_ = load(str(model), adapter_path=str(adapter) if adapter else None)
    messages = [{"role": "user", "content": PROMPT}]
    template = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return generate(net, tokenizer, prompt=template if chat else PROMPT, max_tokens=16)


async def test_answers_are_stock_mlx_lms_with_and_without_the_template(client: Client, project: Path):
    adapter = make_adapter(project / "adapter", project / "model")
    both = await call(client, "generate_text", adapter_path="adapter", prompt=PROMPT, compare=True, max_tokens=16)
    assert both["result"]["base"]["text"] == stock(project / "model")
    assert both["result"]["adapter"]["text"] == stock(project / "model", adapter)
    raw = await call(client, "generate_text", model="model", prompt=PROMPT, raw=True, max_tokens=16)
    assert raw["result"]["base"]["text"] == stock(project / "model", chat=False)
    assert "adapter" not in raw["result"]
    chat = await call(
        client, "generate_text", model="model", messages=[{"role": "user", "content": PROMPT}], max_tokens=3
    )
    assert chat["result"]["base"]["finish_reason"] == "length"
    assert both["result"]["base"]["text"].startswith(chat["result"]["base"]["text"])


async def test_same_seed_samples_the_same_and_another_seed_does_not(client: Client, project: Path):
    make_tiny_model(project / "random")
    texts = []
    for seed in (1, 1, 2):
        answer = await call(
            client, "generate_text", model="random", prompt=PROMPT, temperature=1.5, top_p=0.9, seed=seed, max_tokens=16
        )
        texts.append(answer["result"]["base"]["text"])
    assert texts[0] == texts[1] != texts[2]


async def test_it_never_starts_beside_a_training(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(iters=4000, val_batches=0))
    text = await refusal(client, "generate_text", model="model", prompt=PROMPT)
    assert started["job_id"] in text
    assert "if_busy='queue'" in text
    waiting = await call(client, "generate_text", model="model", prompt=PROMPT, if_busy="queue", wait_seconds=0)
    assert waiting["status"] == "queued"
    assert started["job_id"] in waiting["why"]
    assert waiting["job_id"] in waiting["next_step"]
    await call(client, "stop_job", job_id=waiting["job_id"])
    await call(client, "stop_job", job_id=started["job_id"], action="kill")


async def test_bad_requests_are_named(client: Client, project: Path):
    assert "either prompt or messages" in await refusal(client, "generate_text", model="model")
    assert "give a model" in await refusal(client, "generate_text", prompt=PROMPT)
    assert "adapter_path" in await refusal(client, "generate_text", model="model", prompt=PROMPT, compare=True)
    assert "role and content" in await refusal(client, "generate_text", model="model", messages=[{"text": "x"}])
    assert "no place for system" in await refusal(
        client, "generate_text", model="model", prompt=PROMPT, raw=True, system="Be brief."
    )
    make_tiny_model(project / "plain", chat_template=None)
    answer = await call(client, "generate_text", model="plain", prompt=PROMPT, max_tokens=2)
    assert "no chat template" in answer["result"]["notes"][0]
    text = await failure(client, "generate_text", model="plain", prompt=PROMPT, system="Be brief.")
    assert "raw=true" in text
    prompt = "lamp " * 40
    full = len(Tokenizer.from_file(str(project / "model/tokenizer.json")).encode(prompt).ids)
    narrow = shutil.copytree(project / "model", project / "narrow")
    config = json.loads((narrow / "config.json").read_text())
    (narrow / "config.json").write_text(json.dumps(config | {"max_position_embeddings": full}))
    text = await failure(client, "generate_text", model="narrow", prompt=prompt, raw=True)
    assert f"has {full} tokens and the model's context {full}" in text, "there is no room for an answer"


async def test_adapter_of_another_model_and_a_diverged_one_are_named(client: Client, project: Path):
    other = make_tiny_model(project / "other", hidden=64)
    make_adapter(project / "adapter", other)
    text = await failure(client, "generate_text", model="model", adapter_path="adapter", prompt=PROMPT)
    assert "does not fit this model" in text
    make_adapter(project / "twin-adapter", make_tiny_model(project / "twin", hidden=128))
    answer = await call(client, "generate_text", model="model", adapter_path="twin-adapter", prompt=PROMPT)
    assert f"trained on {project / 'twin'}" in answer["result"]["notes"][0], "it fits by its shapes alone"
    make_adapter(project / "nan", project / "model", value=float("nan"))
    assert "holds NaN" in await failure(client, "generate_text", adapter_path="nan", prompt=PROMPT)
    shutil.copy(project / "adapter/adapters.safetensors", project / "nan/adapters.safetensors")
    config = json.loads((project / "nan/adapter_config.json").read_text())
    (project / "nan/adapter_config.json").write_text(json.dumps(config | {"lora_parameters": None}))
    assert "has no lora_parameters" in await refusal(client, "generate_text", adapter_path="nan", prompt=PROMPT)
