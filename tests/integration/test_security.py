"""What SECURITY.md promises: access tokens stay out of everything that is written or answered, and strangers' code is not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mcp.client import Client

from mcp_server.errors import ModelError
from tests.helpers import call, end_of, refusal, training
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
# Shaped like the real ones and made up, in parts, so that no scanner takes this file for a leak.
TOKENS = {
    "HF_TOKEN": "hf_" + "q7Tz" * 9,
    "WANDB_API_KEY": "wandb_v1_" + "k3Rb" * 11,
    "OPENAI_API_KEY": "sk-" + "proj4" * 8,
    "AWS_SECRET_ACCESS_KEY": "aB3/" * 10,
}


def files_with_tokens(*roots: Path) -> list[str]:
    found: list[str] = []
    for root in roots:
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                found += [f"{path}: {name}" for name, token in TOKENS.items() if token.encode() in data]
    return found


async def test_tokens_of_the_environment_are_in_no_file_and_no_answer(
    client: Client, project: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, token in TOKENS.items():
        monkeypatch.setenv(name, token)
    answers = [await call(client, "check_platform")]
    started = await call(client, "start_lora_training", **training())
    answers += [started, await end_of(client, started["job_id"])]
    measured = await call(
        client, "run_benchmark", model="model", adapter_path="adapters/test", data="data", wait_seconds=120
    )
    answers += [measured, await call(client, "list_jobs"), await call(client, "get_metal_memory")]
    text = json.dumps(answers)
    assert [name for name, token in TOKENS.items() if token in text] == []
    assert (home / "jobs" / started["job_id"] / "metrics.jsonl").stat().st_size > 0
    assert files_with_tokens(home, project / "adapters") == []


async def test_a_token_in_an_argument_is_not_repeated(client: Client, project: Path, home: Path):
    token = TOKENS["HF_TOKEN"]
    text = await refusal(client, "start_lora_training", **training(model=f"./models/{token}"))
    assert token not in text
    assert "[Hugging Face token removed]" in text
    assert token not in await refusal(client, "start_lora_training", **training(), **{token: 1})
    assert files_with_tokens(home) == []


async def test_a_token_in_another_librarys_words_is_taken_out_of_log_and_verdict(
    client: Client, project: Path, home: Path
):
    """A chat template may raise whatever it likes, and the worker quotes it."""
    model = make_tiny_model(project / "hostile")
    template = "{{ raise_exception('no: " + TOKENS["HF_TOKEN"] + "') }}"
    (model / "chat_template.jinja").write_text(template)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    started = await call(client, "start_lora_training", **training(model="hostile"))
    end = await end_of(client, started["job_id"])
    assert end["status"] == "failed"
    assert "[Hugging Face token removed]" in json.dumps(end)
    assert TOKENS["HF_TOKEN"] not in json.dumps(end)
    assert files_with_tokens(home) == []


async def test_code_that_comes_with_a_model_is_not_run(client: Client, project: Path, tmp_path: Path):
    """mlx-lm imports ``model_file`` of a config only when remote code is trusted, and nothing of ours ever trusts it."""
    model = make_tiny_model(project / "stranger")
    (model / "evil.py").write_text(f"open({str(tmp_path / 'was-here')!r}, 'w')\n")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_file": "evil.py"}))
    started = await call(client, "start_lora_training", **training(model="stranger"))
    end = await end_of(client, started["job_id"])
    assert end["status"] == "failed", end
    assert not (tmp_path / "was-here").exists()


async def test_pickled_weights_are_refused(client: Client, project: Path):
    model = make_tiny_model(project / "pickled")
    for file in model.glob("*.safetensors"):
        file.rename(model / "pytorch_model.bin")
    assert "safetensors" in await refusal(client, "start_lora_training", **training(model="pickled"))
    adapter = project / "adapters" / "pickled"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"num_layers": 1}')
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04N.")
    text = await refusal(client, "run_benchmark", model="model", adapter_path="adapters/pickled", data="data")
    assert "adapters.safetensors" in text


def test_an_error_never_shows_a_token():
    assert TOKENS["HF_TOKEN"] not in str(ModelError(f"https://user:{TOKENS['HF_TOKEN']}@huggingface.co is gone"))
