"""The harness itself: what it claims about a session is what happened in that session."""

from __future__ import annotations

from pathlib import Path

import pytest

from .client import Claude
from .scripted_model import Request, Script, ScriptError, ToolUse, ask_agent
from .terminal import Terminal


def _plugin_with_agent(folder: Path) -> Path:
    (folder / ".claude-plugin").mkdir(parents=True)
    (folder / ".claude-plugin" / "plugin.json").write_text('{"name": "tiny", "version": "0.0.1"}')
    (folder / "agents").mkdir()
    (folder / "agents" / "echo.md").write_text(
        "---\nname: echo\ndescription: Echoes.\ntools: Bash\n---\n\nYou are the echo of the mountains.\n"
    )
    return folder


def test_a_turn_reads_the_result_of_the_tool_call_before_it(claude: Claude) -> None:
    def main(request: Request) -> Script:
        request = yield ToolUse("Bash", {"command": "echo $((40 + 2))"})
        yield f"the shell said {request.result.text}"

    session = claude.run(main=main, allowed_tools=["Bash"]).expect_success()

    assert session.answer == "the shell said 42"
    assert "Bash" in session.requests[0].tools


def test_main_agent_and_subagent_follow_scripts_of_their_own(claude: Claude, tmp_path: Path) -> None:
    session = claude.run(
        main=[ask_agent("tiny:echo", "call"), "the echo has come back"],
        agents={"echo of the mountains": [ToolUse("Bash", {"command": "echo hallo"}), "hallo hallo"]},
        plugin_dirs=[_plugin_with_agent(tmp_path / "tiny")],
        allowed_tools=["Bash"],
    )

    first, second = session.of("echo of the mountains")
    assert list(first.tools) == ["Bash"]
    assert second.result.text == "hallo"
    assert "hallo hallo" in session.of()[-1].result.text
    assert session.answer == "the echo has come back"


def test_a_session_that_wants_more_than_its_script_fails_the_test(claude: Claude) -> None:
    with pytest.raises(ScriptError, match="more than its script holds"):
        claude.run(main=[ToolUse("Bash", {"command": "true"})], allowed_tools=["Bash"])


def test_an_assertion_inside_a_turn_fails_the_test(claude: Claude) -> None:
    def main(request: Request) -> Script:
        request = yield ToolUse("Bash", {"command": "echo one"})
        assert request.result.text == "two"
        yield "unreachable"

    with pytest.raises(ScriptError, match="a turn raised AssertionError"):
        claude.run(main=main, allowed_tools=["Bash"])


def test_the_client_sees_nothing_of_this_machines_environment(claude: Claude, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "secret of the host")

    def main(request: Request) -> Script:
        request = yield ToolUse("Bash", {"command": "env"})
        yield request.result.text

    session = claude.run(main=main, permission_mode="bypassPermissions")

    assert f"HOME={claude.home}" in session.answer
    assert "secret of the host" not in session.answer


def test_an_interactive_session_answers_one_prompt_after_the_other(claude: Claude) -> None:
    def main(request: Request) -> Script:
        request = yield "good morning to you"
        assert "and again" in request.text
        request = yield ToolUse("Bash", {"command": "echo from the shell"})
        yield f"it said: {request.result.text}"

    with Terminal(claude, main, allowed_tools=["Bash"]) as terminal:
        terminal.submit("good morning")
        terminal.wait_for_text("good morning to you")
        terminal.submit("and again")
        terminal.wait_for_text("it said: from the shell")

    terminal.model.check()
    assert terminal.model.of("main")[-1].result.text == "from the shell"
