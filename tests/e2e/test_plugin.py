"""The plugin as a person gets it: it validates, installs, starts its server, and its tools reach the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from .client import PLUGIN, REPOSITORY, SPECIALIST, TOOL, Claude, agent_definition, ask
from .marketplace import GitHost, copy_plugin, git, snapshot
from .scripted_model import Request, Script, ask_agent


def check_platform(request: Request) -> Script:
    """A script that asks about the machine and repeats the verdict, which only the real tool can know."""
    platform = yield from ask("check_platform")
    yield f"backend {platform['backend']} with {platform['memory_gb']} GB"


ANSWER = "backend apple-silicon with 68.7 GB"


@pytest.fixture
def a_mac(offline_uv: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a session in which the server takes this machine for a certain Mac."""
    facts = {
        "system": "Darwin",
        "machine": "arm64",
        "macos": "26.1",
        "chip": "Apple M4 Max",
        "memory_bytes": 64 * 2**30,
    }
    told = {**facts, "translated": 0, "container": False, "metal": True}
    (tmp_path / "facts.json").write_text(json.dumps(told))
    return {**offline_uv, "MLX_TRAINING_FACTS": str(tmp_path / "facts.json")}


@pytest.fixture(params=["local folder", "git"])
def marketplace(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Callable[[Path], str]]:
    """Publishes a plugin's folder as a marketplace and says what to give to `claude plugin marketplace add`."""
    if request.param == "local folder":
        yield str
    else:
        with GitHost(tmp_path / "git-host") as host:
            yield lambda folder: host.publish(folder, "mlx-training")


# The older client looks at the marketplace alone where a folder has both manifests, so the plugin's is named too.
@pytest.mark.parametrize("target", [".", ".claude-plugin/plugin.json"])
def test_the_plugin_and_its_marketplace_pass_strict_validation(claude: Claude, target: str) -> None:
    finished = claude.command("plugin", "validate", "--strict", REPOSITORY / target)

    assert finished.exit_code == 0, finished.stdout + finished.stderr
    assert "Validation passed" in finished.stdout


def test_it_passes_what_the_directory_of_plugins_asks_for(claude: Claude, tmp_path: Path) -> None:
    if claude.version != "newest":
        pytest.skip("the older client has no --profile")
    plugin = copy_plugin(tmp_path / "plugin")

    finished = claude.command("plugin", "validate", "--strict", "--profile", "directory", plugin)

    assert finished.exit_code == 0, finished.stdout + finished.stderr


def test_the_release_tag_is_what_the_recipe_says_and_uncommitted_files_are_refused(
    claude: Claude, tmp_path: Path
) -> None:
    plugin = copy_plugin(tmp_path / "plugin")
    git("init", "--quiet", cwd=plugin)
    git("add", "--all", cwd=plugin)
    git("commit", "--quiet", "--message", "a release", cwd=plugin)
    version = json.loads((plugin / ".claude-plugin" / "plugin.json").read_text())["version"]

    finished = claude.command("plugin", "tag", "--dry-run", plugin)

    assert finished.exit_code == 0, finished.stdout + finished.stderr
    assert f"mlx-training--v{version}" in finished.stdout
    assert git("tag", cwd=plugin) == ""
    (plugin / "README.md").write_text("changed")
    assert claude.command("plugin", "tag", "--dry-run", plugin).exit_code == 1


def test_validation_would_notice_an_agent_that_does_not_parse(claude: Claude, tmp_path: Path) -> None:
    plugin = copy_plugin(tmp_path / "plugin")
    agent = plugin / "agents" / "mlx-training-specialist.md"
    agent.write_text(agent.read_text().replace("description: >-", "description: [", 1))

    finished = claude.command("plugin", "validate", "--strict", plugin / ".claude-plugin" / "plugin.json")

    assert finished.exit_code == 1
    assert "frontmatter" in finished.stdout


def test_installed_from_a_marketplace_its_tool_answers_the_model(
    claude: Claude, marketplace: Callable[[Path], str], a_mac: dict[str, str], tmp_path: Path
) -> None:
    plugin = copy_plugin(tmp_path / "plugin")
    published = snapshot(plugin)
    address = marketplace(plugin)
    claude.command("plugin", "marketplace", "add", address).expect_success()
    claude.command("plugin", "install", f"{PLUGIN}@{PLUGIN}").expect_success()

    session = claude.run(main=check_platform, allowed_tools=[f"{TOOL}*"], environment=a_mac).expect_success()

    assert session.answer == ANSWER
    [loaded] = [each for each in session.init["plugins"] if each["name"] == PLUGIN]
    root = Path(loaded["path"])
    assert root == plugin or root.is_relative_to(claude.home / ".claude" / "plugins" / "cache")
    # Updates replace the root and may find it read-only: what the server makes belongs into the data folder.
    # (`.in_use` is the client's own mark on a version that a session runs from.)
    assert {name: digest for name, digest in snapshot(root).items() if not name.startswith(".in_use")} == published
    [environment] = (claude.plugin_data / f"{PLUGIN}-{PLUGIN}").glob("server-*")
    assert (environment / "pyvenv.cfg").exists()


@pytest.mark.slow
def test_variables_of_the_users_settings_reach_the_server(claude: Claude, offline_uv: dict[str, str]) -> None:
    variables = {
        "MLX_TRAINING_PYTHON": "/nowhere/python",
        "MLX_TRAINING_PLATFORMS": "linux-cpu,linux-cuda,apple-silicon",
    }
    (claude.home / ".claude" / "settings.json").write_text(json.dumps({"env": variables}))

    def main(request: Request) -> Script:
        found = yield from ask("check_platform")
        yield found["summary"]

    session = claude.run(main=main, plugin_dirs=[REPOSITORY], allowed_tools=[f"{TOOL}*"], environment=offline_uv)

    assert "MLX_TRAINING_PYTHON=/nowhere/python is not an executable Python" in session.answer


def test_the_specialist_is_given_every_tool_of_its_list_at_once(claude: Claude, a_mac: dict[str, str]) -> None:
    definition, body = agent_definition()
    listed = [name.strip() for name in definition["tools"].split(",")]
    ours = {name for name in listed if name.startswith(TOOL)}

    def main(request: Request) -> Script:
        # Only once the server is up is it certain what the specialist gets.
        yield from ask("check_platform")
        yield ask_agent(SPECIALIST, "is this machine fit for training?")
        yield "done"

    session = claude.run(
        main=main,
        agents={body[:200]: check_platform},
        plugin_dirs=[REPOSITORY],
        allowed_tools=[f"{TOOL}*"],
        environment=a_mac,
    )

    first, _ = session.of(body[:200])
    assert ours <= first.tools.keys()
    assert {"Read", "Write", "Edit", "Bash"} <= first.tools.keys()
    assert first.body["model"].startswith("claude-sonnet")
    assert ANSWER in session.of()[-1].result.text


def test_modules_of_the_users_project_are_never_taken_for_the_servers_own(
    claude: Claude, a_mac: dict[str, str]
) -> None:
    for name in ("mcp_server", "pydantic", "json"):
        (claude.project / f"{name}.py").write_text("raise RuntimeError('a file of the project was imported')\n")

    session = claude.run(
        main=check_platform,
        plugin_dirs=[REPOSITORY],
        allowed_tools=[f"{TOOL}*"],
        environment={**a_mac, "PYTHONPATH": str(claude.project)},
    )

    assert session.answer == ANSWER
