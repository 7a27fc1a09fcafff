"""Copies of this repository's plugin, and a git host on loopback to install them from."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from .client import REPOSITORY


def git(*arguments: str | Path, cwd: Path) -> str:
    """Run git as a person without any configuration, so that a machine's own settings change nothing."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", *identity, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True).stdout


def copy_plugin(target: Path) -> Path:
    """This repository as a person would get it: what git tracks, and new files that it does not ignore."""
    listed = git("ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=REPOSITORY)
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    return target


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below `folder` with a digest of its content; git's own bookkeeping left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


class GitHost:
    """Serves git repositories over http on loopback, as a context manager; clients clone shallowly from it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = _GitServer(folder)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish(self, content: Path, name: str) -> str:
        """Commit all of `content` and push it to the repository `name`; returns the repository's address."""
        bare = self._folder / f"{name}.git"
        if not bare.exists():
            git("init", "--quiet", "--bare", "--initial-branch=main", bare, cwd=self._folder)
        if not (content / ".git").exists():
            git("init", "--quiet", "--initial-branch=main", cwd=content)
        git("add", "--all", "--force", cwd=content)
        git("commit", "--quiet", "--message=Publish", cwd=content)
        git("push", "--quiet", bare, "main", cwd=content)
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}.git"


class _GitServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(("127.0.0.1", 0), _GitHandler)
        self.folder = folder


class _GitHandler(BaseHTTPRequestHandler):
    """Hands each request to `git http-backend`, which speaks CGI."""

    server: _GitServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self._run_backend()

    def do_POST(self) -> None:
        self._run_backend()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _run_backend(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type") or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding") or "",
            "HTTP_GIT_PROTOCOL": self.headers.get("git-protocol") or "",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.partition(": ") for line in head.decode().splitlines()]
        status = next((value.split()[0] for name, _, value in fields if name == "Status"), "200")
        self.send_response(int(status))
        for name, _, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
