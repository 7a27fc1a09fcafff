"""What the agent, the skills and the documentation tell people and models to type exists: commands, flags, names, files."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from mcp_server import cli
from mcp_server.server import build_server

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("README.md", "agents/*.md", "docs/**/*.md", "skills/**/*.md")
    for path in ROOT.glob(pattern)
)
SKILLS = sorted(path.parent.name for path in ROOT.glob("skills/*/SKILL.md"))
COMMANDS = {"fine-tune", "report", "status"}
_PLACEHOLDER = re.compile(r"^<.*>$|^…$|^\.\.\.$")


def commands(text: str) -> Iterator[str]:
    """Every `mlx_lm` and `mlx-training` command of a document: lines of its shell blocks, and code in its sentences."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    found = [line.split(" # ")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found += [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", prose)]
    for line in found:
        line = re.split(r"\s(?:\||>|&&|;)\s", line.replace('"$@"', ""))[0]
        match = re.search(r"(?:^|\s)(mlx_lm|mlx-training)[ .](?=[a-z])(?!local)", line)
        if match and not re.match(r"(pip|uv) ", line):
            yield f"{match[1]} {line[match.end() :]}"


class Understood(Exception):
    """A parser took the whole command line."""


@pytest.fixture
def parsers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program stops once its own parser has read the command line."""
    original = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *given: Any, **more: Any) -> None:
        original(self, *given, **more)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)


def understood(command: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the real program's real parser takes this command line."""
    program, *arguments = shlex.split(command.replace("[", "").replace("]", ""))
    try:
        if program == "mlx-training":
            cli.main(arguments)
        else:
            from mlx_lm import cli as stock

            monkeypatch.setattr(sys, "argv", ["mlx_lm", *arguments])
            stock.main()
    except Understood:
        return True
    except (SystemExit, ValueError):
        return False
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_command_in_the_documents_is_one_that_the_real_parsers_take(
    document: Path, parsers_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlx_lm", reason="mlx-lm is not installed here (uv sync --extra mlx)")
    listed = list(commands((ROOT / document).read_text(encoding="utf-8")))
    # A bare name, as in "`mlx_lm evaluate` needs …", is no command line to copy; the others are.
    copied = [each for each in listed if len(each.split()) > 2 and not _PLACEHOLDER.match(each.split()[1])]
    assert [each for each in copied if not understood(each, monkeypatch)] == []


def anchors(document: Path) -> set[str]:
    """The headings of a page as GitHub makes addresses of them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, *(Path(path.name) for path in ROOT.glob("[A-Z]*.md"))], ids=str)
def test_every_link_to_a_file_or_heading_of_ours_leads_there(document: Path) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.M | re.S)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / document).parent / name if name else ROOT / document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_the_parsers_would_notice_the_seeds_mistake(parsers_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlx_lm", reason="mlx-lm is not installed here (uv sync --extra mlx)")
    text = "Sample with `mlx_lm lora --model M --adapter-path A --prompt X`.\n```bash\nmlx-training jobs --all\n```\n"
    assert [understood(each, monkeypatch) for each in commands(text)] == [False, False]


def _property_names(schema: Any) -> set[str]:
    if isinstance(schema, list):
        items: list[Any] = schema
        return set[str]().union(*(_property_names(item) for item in items))
    if not isinstance(schema, dict):
        return set()
    entries: dict[str, Any] = schema
    own = set(entries["properties"]) if isinstance(entries.get("properties"), dict) else set[str]()
    return own.union(*(_property_names(value) for value in entries.values()))


@pytest.fixture(scope="module")
def tools() -> dict[str, Any]:
    return {tool.name: tool for tool in anyio.run(build_server().list_tools)}


# Names of others: mlx-lm's Python API, its configuration and adapter tensors, macOS.
FOREIGN = {
    "mlx_lm",
    "batch_generate",
    "stream_generate",
    "apply_chat_template",
    "add_generation_prompt",
    "trust_remote_code",
    "max_buffer_length",
    "memory_pressure",
    "train_data",
    "register_backend",
    "lora_a",
    "lora_b",
}


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.parts[0] in ("agents", "skills")], ids=str)
def test_every_tool_argument_and_result_field_in_agent_and_skills_exists(document: Path, tools: dict[str, Any]) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    known = set(tools) | FOREIGN
    for tool in tools.values():
        known |= _property_names(tool.input_schema) | _property_names(tool.output_schema)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    ours = [span for span in spans if not span.startswith(("mx.", "mcp_server.", "mlx_lm.")) and "iogpu" not in span]
    mentioned = {
        name for span in ours for name in re.findall(r"(?:^|\.)([a-z]+(?:_[a-z0-9]+)+)(?=$|\.(?!json)|=|\()", span)
    }
    assert mentioned - known == set()
    for span in spans:
        call = re.fullmatch(r"([a-z_]+)\((.*)\)", span)
        if call and call[1] in tools:
            names = set(re.findall(r"(?:^|, )([a-z_]+)(?==|$|,)", call[2]))
            assert names <= tools[call[1]].input_schema["properties"].keys(), span


def test_every_function_of_mlx_that_the_skills_name_exists_and_is_not_deprecated() -> None:
    mx: Any = pytest.importorskip("mlx.core", reason="mlx is not installed here (uv sync --extra mlx)")
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("skills/**/*.md"))
    named = set(re.findall(r"`mx\.([a-z_]+)\(", text))
    assert {"get_active_memory", "get_peak_memory"} <= named
    assert [name for name in named if not hasattr(mx, name)] == []


@pytest.mark.parametrize("skill", SKILLS)
def test_a_skill_is_short_and_says_which_reference_holds_what(skill: str) -> None:
    folder = ROOT / "skills" / skill
    _, frontmatter, body = (folder / "SKILL.md").read_text(encoding="utf-8").split("---\n", 2)
    declared = yaml.safe_load(frontmatter)
    assert declared["name"] == skill
    # Descriptions of knowledge are in the context of every session, its bodies in that of each specialist.
    assert declared.get("disable-model-invocation", False) == (skill in COMMANDS)
    assert len(declared["description"]) <= 180
    assert len(body) <= 2400
    references = {path.name for path in folder.glob("references/*.md")}
    assert references == set(re.findall(r"`([a-z-]+\.md)`", body))
    assert bool(references) == (skill not in COMMANDS)
