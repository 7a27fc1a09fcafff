"""The plugin's skills in the real client: preloaded in the specialist, at hand in the main session, commands for people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .client import REPOSITORY, SPECIALIST, Claude, agent_definition
from .context import measure
from .scripted_model import Request, Script, ToolUse, ask_agent

BODY = agent_definition()[1][:200]
KNOWLEDGE = ("machine-learning", "performance", "python-scripting", "shell-scripting")


def first_line(skill: str) -> str:
    """The heading of a skill's body, which only its full text has."""
    return (REPOSITORY / "skills" / skill / "SKILL.md").read_text().split("---\n", 2)[2].strip().splitlines()[0]


def test_the_specialist_starts_with_the_four_skills_and_can_find_their_references(
    claude: Claude, offline_uv: dict[str, str]
) -> None:
    session = claude.run(
        main=[ask_agent(SPECIALIST, "go"), "done"],
        agents={BODY: ["done"]},
        plugin_dirs=[REPOSITORY],
        allowed_tools=["Agent"],
        environment=offline_uv,
    )
    first = session.of(BODY)[0]
    assert not [name for name in first.tools if "context7" in name]  # named in its tools, not installed here
    text = first.text
    assert [skill for skill in KNOWLEDGE if first_line(skill) not in text] == []
    folders = re.findall(r"in `([^`]+)/references/`", text)
    assert len(folders) == len(KNOWLEDGE)
    assert all(list((Path(folder) / "references").glob("*.md")) for folder in folders)


def test_the_main_session_knows_the_skills_by_name_and_opens_one_when_it_needs_it(
    claude: Claude, offline_uv: dict[str, str]
) -> None:
    def main(request: Request) -> Script:
        assert all(f"mlx-training:{skill}: " in request.text for skill in KNOWLEDGE)
        assert first_line("performance") not in request.text
        request = yield ToolUse("Skill", {"skill": "mlx-training:performance"})
        assert first_line("performance") in request.text
        yield "done"

    claude.run(main=main, plugin_dirs=[REPOSITORY], allowed_tools=["Skill"], environment=offline_uv).expect_success()


@pytest.mark.parametrize("command", ["fine-tune", "status", "report"])
def test_commands_for_people_cost_nothing_until_they_are_called(
    claude: Claude, offline_uv: dict[str, str], command: str
) -> None:
    def main(request: Request) -> Script:
        assert "train-0815" in request.text
        assert f"mlx-training:{command}: " not in request.text
        yield "done"

    session = claude.run(
        f"/mlx-training:{command} train-0815", main=main, plugin_dirs=[REPOSITORY], environment=offline_uv
    ).expect_success()

    assert first_line(command).partition("$")[0] in session.requests[0].text
    ours = {name for name in session.init["slash_commands"] if name.startswith("mlx-training:")}
    assert ours == {"mlx-training:fine-tune", "mlx-training:status", "mlx-training:report"}


def test_a_session_that_does_not_train_pays_little_for_the_plugin(
    claude: Claude, offline_uv: dict[str, str], tmp_path: Path
) -> None:
    # The older version searches for tools by itself at Anthropic's own address only; elsewhere it sends every schema.
    added = measure(claude.version, tmp_path / "measured", {"ENABLE_TOOL_SEARCH": "true"}).main

    assert any(line.startswith(f"- {SPECIALIST}: ") for line in added)
    # 1,200 tokens, at the 3.4 characters a token that these lines have (`benchmarks/context.py` counts the tokens).
    assert sum(map(len, added)) <= 4080, "\n".join(added)
