"""What other clients than Claude Code can open and offer: resources of jobs, prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError

from tests.helpers import call, end_of, training

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


async def opened(client: Client, address: str) -> dict[str, Any]:
    [content] = (await client.read_resource(f"mlx-training://jobs{address}")).contents
    assert content.mime_type == "application/json"
    return json.loads(getattr(content, "text", ""))


async def test_a_job_can_be_opened_with_its_settings_log_and_report(client: Client, project: Path) -> None:
    started = await call(client, "start_lora_training", **training(val_batches=0))
    job_id = started["job_id"]
    await end_of(client, job_id)

    assert [job["job_id"] for job in (await opened(client, ""))["jobs"]] == [job_id]
    job = await opened(client, f"/{job_id}")
    assert (job["status"], job["options"]["learning_rate"]) == ("completed", 1e-3)
    assert [step for step, _ in (await opened(client, f"/{job_id}/log"))["train"]] == [2, 4, 6]
    assert (await opened(client, f"/{job_id}/report"))["steps"] == 6


async def test_tokens_in_what_was_asked_for_are_not_shown(client: Client, project: Path) -> None:
    secret = "hf" + "_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3x"
    started = await call(client, "generate_text", model="model", prompt=f"my key is {secret}", max_tokens=2)
    job = await opened(client, f"/{started['job_id']}")
    assert job["options"]["prompt"] == "my key is [Hugging Face token removed]"


async def test_a_resource_that_does_not_exist_says_what_to_do(client: Client, project: Path) -> None:
    for address in ("/train-nowhere", "/train-nowhere/log", "/train-nowhere/report"):
        with pytest.raises(MCPError, match="list_jobs"):
            await opened(client, address)


@pytest.mark.parametrize("address", ["/..", "/%2e%2e%2fjobs", "/..%2f..%2fetc", "/a%2fb/log", "/%00/log"])
async def test_an_address_can_not_leave_the_jobs(client: Client, project: Path, address: str) -> None:
    with pytest.raises(MCPError):
        await opened(client, address)


async def test_resources_and_prompts_are_listed_with_what_they_are_for(client: Client) -> None:
    templates = (await client.list_resource_templates()).resource_templates
    assert [template.uri_template.removeprefix("mlx-training://jobs") for template in templates] == [
        "/{job_id}",
        "/{job_id}/log",
        "/{job_id}/report",
    ]
    assert all(template.title and template.description for template in templates)
    prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
    assert prompts.keys() == {"fine_tune", "status", "report"}
    for prompt in prompts.values():
        assert prompt.title and prompt.description
        assert all(argument.description for argument in prompt.arguments or [])


async def test_a_prompt_names_only_tools_that_exist_and_holds_what_was_given(client: Client) -> None:
    tools = {tool.name for tool in (await client.list_tools()).tools}
    texts: list[str] = []
    for name, arguments in (
        ("fine_tune", {"goal": "politeness", "data": "mails"}),
        ("status", {}),
        ("report", {"job_id": "train-7"}),
    ):
        [message] = (await client.get_prompt(name, arguments)).messages
        texts.append(getattr(message.content, "text", ""))
    assert "politeness" in texts[0] and "mails" in texts[0] and "train-7" in texts[2]
    words = {word.strip(".,;:()") for text in texts for word in text.split() if "_" in word}
    assert {word.split("=")[0] for word in words} - tools == {"adapter_path", "wait_seconds"}
