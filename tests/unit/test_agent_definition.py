"""The specialist's definition agrees with the server and with what Claude Code heeds in a plugin's agent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from mcp_server.server import build_server

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "mcp__plugin_mlx-training_mlx__"
BUILT_IN = {"Read", "Write", "Edit", "Bash", "Grep", "Glob", "WebFetch"}
# Claude Code ignores `hooks`, `mcpServers` and `permissionMode` in a plugin's agent, without a word from its validator.
HEEDED = {"name", "description", "tools", "model", "color", "skills"}


@pytest.fixture(scope="module")
def schemas() -> dict[str, dict[str, Any]]:
    """The input schema of each of the server's tools."""
    return {tool.name: tool.input_schema for tool in anyio.run(build_server().list_tools)}


@pytest.fixture(scope="module")
def definition() -> tuple[dict[str, Any], str]:
    _, frontmatter, body = (ROOT / "agents" / "mlx-training-specialist.md").read_text().split("---\n", 2)
    return yaml.safe_load(frontmatter), body


def test_its_frontmatter_holds_only_what_claude_code_heeds(definition: tuple[dict[str, Any], str]) -> None:
    frontmatter, _ = definition
    assert frontmatter.keys() <= HEEDED
    assert (frontmatter["model"], frontmatter["color"]) == ("sonnet", "green")


def test_it_is_given_the_whole_server_in_one_name(definition: tuple[dict[str, Any], str]) -> None:
    """Every name in this line is paid for in every session; tests/e2e/test_main_job shows that the tools are there."""
    listed = [name.strip() for name in definition[0]["tools"].split(",")]
    # An unknown name would be dropped without a word, and context7's are somebody else's.
    rest = {name for name in listed if not name.startswith("mcp__context7__")}
    assert rest == BUILT_IN | {PREFIX.removesuffix("__")}
    assert len(listed) == len(set(listed))


def test_its_description_has_the_words_that_people_use_and_says_what_is_not_its_work(
    definition: tuple[dict[str, Any], str],
) -> None:
    mine, _, others = definition[0]["description"].partition("Not for ")
    for words in (
        "PROACTIVELY",
        "fine-tune",
        "train",
        "LoRA",
        "convert",
        "adapters",
        "benchmark",
        "runs out of memory",
    ):
        assert words in mine
    assert "PyTorch" in others and "CUDA" in others


def test_it_names_the_four_skills_and_they_exist(definition: tuple[dict[str, Any], str]) -> None:
    named = [name.strip() for name in definition[0]["skills"].split(",")]
    assert named == ["machine-learning", "performance", "python-scripting", "shell-scripting"]
    assert [name for name in named if not (ROOT / "skills" / name / "SKILL.md").is_file()] == []


def test_the_tools_and_arguments_in_its_text_exist(
    definition: tuple[dict[str, Any], str], schemas: dict[str, dict[str, Any]]
) -> None:
    _, body = definition
    arguments = {name for schema in schemas.values() for name in schema.get("properties", {})}
    # What looks like a name of ours in backticks: words joined by underscores; mlx_lm is the one that isn't.
    mentioned = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", body)) - {"mlx_lm"}
    starting_values = set(re.findall(r"^\| ([a-z_]+)", body, re.MULTILINE)) & {"iters", "batch_size", "learning_rate"}
    assert len(starting_values) == 3
    assert (mentioned | starting_values) - schemas.keys() - arguments == set()
    calls = re.findall(r"`([a-z_]+)\(([^)`]*)\)`", body)
    assert calls
    for tool, given in calls:
        names = {part.split("=")[0].strip() for part in given.split(",")}
        assert names <= schemas[tool]["properties"].keys()


def test_it_stays_short_since_its_reader_pays_per_token(definition: tuple[dict[str, Any], str]) -> None:
    frontmatter, body = definition
    # The description is in the context of every session, the body in that of each specialist: about 3.5 characters a token.
    assert len(frontmatter["description"]) <= 600
    assert len(body) <= 4800
