"""An interactive session of the real client on a pseudo-terminal, for what `claude -p` does not have.

Monitors, a session that is woken after it went idle, the status line: they exist at a prompt only. What the model was
shown is still in `model.requests`; the screen is read just to see where the session stands.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from .client import API_KEY, Claude
from .scripted_model import JsonObject, ScriptedModel, ScriptSource

_CONTROL = re.compile(r"\x1b\[[0-9;?<>=]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b[@-_78=>]")
_ROWS, _COLUMNS = 50, 140


class Terminal:
    """A person at the prompt. Use it as a context manager.

    The folder is trusted and first-run questions are answered beforehand; the permission mode is `default`, since the
    newest client's own is `auto`, in which a second model would judge each tool call.
    """

    def __init__(
        self,
        claude: Claude,
        main: ScriptSource,
        agents: Mapping[str, ScriptSource] | None = None,
        *,
        plugin_dirs: Sequence[Path] = (),
        allowed_tools: Sequence[str] = (),
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.model = ScriptedModel(main, agents)
        self._claude = claude
        self._command = [str(claude.executable), "--permission-mode", "default", *arguments]
        for folder in plugin_dirs:
            self._command += ["--plugin-dir", str(folder)]
        if allowed_tools:
            self._command += ["--allowedTools", ",".join(allowed_tools)]
        self._environment = dict(environment or {})
        self._output = bytearray()

    def __enter__(self) -> Self:
        self._answer_first_run_questions()
        self.model.__enter__()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            self._command,
            cwd=self._claude.project,
            env={**self._claude.environment(self.model.url), "TERM": "xterm-256color", **self._environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for_text("❯")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        # The reader ends when the last process that holds the terminal has gone.
        self._reader.join(5)
        os.close(self._master)
        self.model.__exit__()

    @property
    def printed(self) -> str:
        """Everything the client printed, without control sequences and white space (it draws spaces by moving)."""
        return re.sub(r"\s", "", _CONTROL.sub("", self._output.decode(errors="replace")))

    def submit(self, prompt: str) -> None:
        """Type a prompt and press return."""
        os.write(self._master, prompt.encode())
        # Return in the same read as the text counts as a pasted line break.
        self.wait_for_text(prompt)
        os.write(self._master, b"\r")

    def wait_for_text(self, text: str, timeout: float = 30) -> None:
        wanted = re.sub(r"\s", "", text)
        self.wait_until(lambda: wanted in self.printed, f"{text!r} on the screen", timeout)

    def wait_until(self, holds: Callable[[], bool], what: str, timeout: float = 30) -> None:
        """Wait for something that the session does by itself; `what` names it in the failure."""
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline or self._process.poll() is not None:
                ended = self._process.poll()
                state = "the client is running" if ended is None else f"the client ended with {ended}"
                raise TimeoutError(f"waited for {what}; {state}\n{self.printed[-2000:]}\n{self.model.failures}")
            time.sleep(0.05)

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # Linux's way of saying that the other side has closed.
                return
            if not chunk:
                return
            self._output += chunk

    def _answer_first_run_questions(self) -> None:
        path = self._claude.home / ".claude" / ".claude.json"
        settings: JsonObject = json.loads(path.read_text()) if path.exists() else {}
        settings |= {
            "hasCompletedOnboarding": True,
            "theme": "dark",
            "customApiKeyResponses": {"approved": [API_KEY[-20:]], "rejected": []},
        }
        projects: JsonObject = settings.setdefault("projects", {})
        project = str(self._claude.project)
        projects[project] = {**projects.get(project, {}), "hasTrustDialogAccepted": True}
        path.write_text(json.dumps(settings))
