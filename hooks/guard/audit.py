"""The audit trail: one JSON line for every call that was stopped, secrets redacted, the file bounded."""

from __future__ import annotations

import posix

from . import paths, shared, wire
from .verdict import Verdict

MAX_BYTES = 1_000_000
MAX_TEXT = 500


def file() -> str:
    folder = paths.env("CLAUDE_PLUGIN_DATA") or shared.home()
    return paths.join(folder, "guard.jsonl")


def redacted(text: str) -> str:
    from .policies.secrets import tokens

    for token, _service in tokens(text):
        text = text.replace(token, token[:3] + "[redacted]")
    return text


def record(payload: dict, verdict: Verdict) -> None:
    """Append one line; the older half goes to `guard.jsonl.1` when the file is full. Never raises."""
    import time

    inputs = payload.get("tool_input")
    inputs = inputs if isinstance(inputs, dict) else {}
    text = str(inputs.get("command") or inputs.get("file_path") or inputs.get("notebook_path") or "")
    row = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "decision": verdict.word,
        "rules": [finding.rule for finding in verdict.findings],
        "tool": str(payload.get("tool_name")),
        "agent": str(payload.get("agent_type") or "main"),
        "cwd": str(payload.get("cwd")),
        "text": redacted(text[:20_000])[:MAX_TEXT],
        "reason": redacted(verdict.reason())[:1500],
    }
    path = file()
    try:
        if not paths.is_dir(paths.parent(path)):
            posix.mkdir(paths.parent(path), 0o700)
        if paths.size(path) > MAX_BYTES:
            posix.rename(path, path + ".1")
        fd = posix.open(path, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT, 0o600)
        try:
            posix.write(fd, (wire.dumps(row) + "\n").encode())
        finally:
            posix.close(fd)
    except OSError:
        return
