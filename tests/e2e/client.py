"""Runs the real Claude Code in a sandbox of its own, with a scripted model behind it.

Nothing of the machine's own Claude Code is used: the environment is built from nothing, the home and configuration
folders are temporary, the key is a dummy and the only address it knows is the scripted model's on loopback.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from . import install
from .scripted_model import MAIN, JsonObject, Request, ScriptedModel, ScriptSource, Turn, call_mcp

REPOSITORY = Path(__file__).resolve().parents[2]

API_KEY = "sk-ant-dummy-key-of-the-tests"

# What the server of this repository's own plugin is called by clients, and its tools' names up to the tool.
PLUGIN = "mlx-training"
TOOL = f"mcp__plugin_{PLUGIN}_mlx__"
SPECIALIST = f"{PLUGIN}:mlx-training-specialist"


def agent_definition() -> tuple[dict[str, str], str]:
    """Frontmatter and body of the specialist; the body's first line tells its requests from other agents'."""
    _, frontmatter, body = (REPOSITORY / "agents" / "mlx-training-specialist.md").read_text().split("---\n", 2)
    return yaml.safe_load(frontmatter), body.strip()


def ask(tool: str, **arguments: Any) -> Generator[Turn, Request, JsonObject]:
    """In a script: call one of the plugin's tools, which must not refuse; gives its structured answer."""
    result = yield from call_mcp(f"{TOOL}{tool}", **arguments)
    assert not result.is_error, result.text
    return result.json()


@dataclass(frozen=True)
class Finished:
    """How a command of the client ended."""

    exit_code: int
    stdout: str
    stderr: str

    def expect_success(self) -> Self:
        assert self.exit_code == 0, f"exit code {self.exit_code}\n{self.stdout}\n{self.stderr}"
        return self


@dataclass(frozen=True)
class Session(Finished):
    """A finished `claude -p`: what it printed, and what the model was shown."""

    events: Sequence[JsonObject]
    requests: Sequence[Request]
    debug_log: str

    @property
    def init(self) -> JsonObject:
        """The event that lists the tools, agents, plugins and servers of the session."""
        return next(event for event in self.events if (event["type"], event.get("subtype")) == ("system", "init"))

    @property
    def answer(self) -> str:
        """The last words of the main agent, as `claude -p` would print them."""
        return next(event["result"] for event in reversed(self.events) if event["type"] == "result")

    def of(self, role: str = MAIN) -> list[Request]:
        return [request for request in self.requests if request.role == role]


@functools.cache
def _program_folders() -> list[str]:
    """The folders a sandboxed client finds programs in: git, uv, a Python for hooks, and the system's own."""
    programs = [shutil.which("git"), install.python(), "/usr/bin/env", "/bin/sh", "/usr/sbin/chown", "/sbin/mount"]
    with contextlib.suppress(install.Unavailable):
        programs.insert(0, str(install.uv()))
    return list(dict.fromkeys(str(Path(program).parent) for program in programs if program))


class Claude:
    """One person's Claude Code: a version of the client with a home, configuration and plugins of its own."""

    def __init__(self, version: str, folder: Path) -> None:
        self.version = version
        self.executable = install.claude(version)
        self.home = folder / "home"
        self.project = folder / "project"
        self.debug_folder = folder / "debug"
        for each in (self.home / ".claude", self.project, self.debug_folder):
            each.mkdir(parents=True, exist_ok=True)
        self._sessions = 0

    @property
    def plugin_data(self) -> Path:
        """Where the client gives each plugin a folder, named `<plugin>-<marketplace>`, or `<plugin>-inline`."""
        return self.home / ".claude" / "plugins" / "data"

    @property
    def state(self) -> Path:
        """Where the plugin keeps jobs for this person."""
        return self.home / ".mlx-training"

    def environment(self, model_url: str = "http://127.0.0.1:9", **more: str) -> dict[str, str]:
        """The whole environment of a client; `model_url` defaults to a port where nobody answers."""
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        variables = {
            "PATH": os.pathsep.join(_program_folders()),
            "HOME": str(self.home),
            "TMPDIR": str(temporary),
            "CLAUDE_CONFIG_DIR": str(self.home / ".claude"),
            "ANTHROPIC_API_KEY": API_KEY,
            "ANTHROPIC_BASE_URL": model_url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            # The interpreter and the wheels are on this machine already; no test depends on the network.
            "UV_PYTHON": install.python(),
            "UV_PYTHON_DOWNLOADS": "never",
        }
        return {**variables, **more}

    def offline_uv(self) -> dict[str, str]:
        """What lets uv start this repository's server without the network; add it to a session's environment."""
        return {"UV_CACHE_DIR": str(install.uv_cache_with_dependencies(REPOSITORY)), "UV_OFFLINE": "1"}

    def command(self, *arguments: str | Path, timeout: float = 60, **environment: str) -> Finished:
        """Run `claude ARGUMENTS`, such as `plugin validate`, without a model."""
        return self._execute([str(each) for each in arguments], self.environment(**environment), self.project, timeout)

    def run(
        self,
        prompt: str = "go",
        *,
        main: ScriptSource = ("done",),
        agents: Mapping[str, ScriptSource] | None = None,
        side: Callable[[Request], str] = lambda request: "{}",
        plugin_dirs: Sequence[Path] = (),
        allowed_tools: Sequence[str] = (),
        permission_mode: str = "default",
        arguments: Sequence[str] = (),
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 90,
        strict: bool = True,
    ) -> Session:
        """Run `claude -p PROMPT` to its end.

        `strict` raises when the session left its script (see `ScriptedModel.check`); without it the test looks itself.
        """
        self._sessions += 1
        debug_file = self.debug_folder / f"session-{self._sessions}.log"
        command = ["-p", prompt, "--output-format", "stream-json", "--verbose", "--debug-file", str(debug_file)]
        command += ["--permission-mode", permission_mode, *arguments]
        for folder in plugin_dirs:
            command += ["--plugin-dir", str(folder)]
        if allowed_tools:
            command += ["--allowedTools", ",".join(allowed_tools)]
        with ScriptedModel(main, agents, side) as model:
            variables = self.environment(model.url, **(environment or {}))
            if permission_mode == "bypassPermissions":
                # As root the client refuses this mode unless it is told that it is caged.
                variables["IS_SANDBOX"] = "1"
            finished = self._execute(command, variables, cwd or self.project, timeout)
            if strict:
                try:
                    model.check()
                except AssertionError as error:
                    error.add_note(f"exit code {finished.exit_code}, stderr: {finished.stderr[-2000:]}")
                    raise
        events = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
        log = debug_file.read_text(errors="replace") if debug_file.exists() else ""
        return Session(finished.exit_code, finished.stdout, finished.stderr, events, model.requests, log)

    def _execute(self, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, timeout: float) -> Finished:
        process = subprocess.Popen(
            [str(self.executable), *arguments],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # Its hooks and servers share its process group; training jobs have left it and are the test's to stop.
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            raise TimeoutError(f"claude took more than {timeout:.0f} s\n{stdout[-3000:]}\n{stderr[-3000:]}") from None
        return Finished(process.returncode, stdout, stderr)
