"""Tests that drive the real Claude Code client, in its newest and its oldest supported version, with a scripted model.

A new one takes the fixture `claude` and says what the model does; `offline_uv` adds the plugin's server, `mlx_jobs` real
jobs:

    def test_the_model_is_told_the_chip(claude: Claude, offline_uv: dict[str, str]) -> None:
        def main(request: Request) -> Script:
            platform = yield from ask("check_platform")     # a tool of ours, once its server is up
            request = yield ToolUse("Bash", {"command": "uname -m"})  # any tool; the next request has its result
            yield f"{platform['backend']} on {request.result.text}"   # text alone ends the turn

        session = claude.run(
            main=main, plugin_dirs=[REPOSITORY], allowed_tools=["Bash", f"{TOOL}*"], environment=offline_uv
        )

        assert session.answer.startswith("apple-silicon")       # `session.requests` is all that the model was shown

Subagents have scripts of their own (`agents={text of its system prompt: script}`, started with `ask_agent`); what only a
prompt has (wake-ups, monitors) is driven with `Terminal`. A session that leaves its script fails the test.
"""
