"""A Hub on loopback: data sets of plain files, served as huggingface.co does, to the real ``datasets`` library."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager

REVISION = "0123456789abcdef0123456789abcdef01234567"


class _Handler(http.server.BaseHTTPRequestHandler):
    files: dict[str, dict[str, bytes]]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        # "paths-info": which of the named files there are, by form.
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        path = self.path.split("?")[0].removeprefix("/")
        parts = path.removeprefix("api/").split("/")
        name = "/".join(parts[1:3])
        if parts[0] != "datasets" or name not in self.files:
            # What the Hub says of what is not there, and of what is private, without a login.
            self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif path.startswith("api/"):
            self._send(200, json.dumps(self._about(parts[3:], name)).encode(), {"Content-Type": "application/json"})
        else:
            file = "/".join(parts[5:])
            content = self.files[name].get(file)
            if content is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            else:
                digest = hashlib.sha256(content).hexdigest()
                self._send(200, content, {"X-Repo-Commit": REVISION, "ETag": f'"{digest}"'})

    def _about(self, what: list[str], name: str) -> object:
        listed = [
            {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for file, content in self.files[name].items()
        ]
        if what and what[0] in ("tree", "paths-info"):
            return listed
        siblings = [{"rfilename": file} for file in self.files[name]]
        return {"id": name, "sha": REVISION, "private": False, "tags": [], "downloads": 0, "siblings": siblings}

    def _send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(files: dict[str, dict[str, bytes]]) -> Generator[str]:
    """The address of a Hub with ``files``: data set → file → content."""
    handler = type("Handler", (_Handler,), {"files": files})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
