"""The audit trail: one JSON line for every call that was stopped, secrets redacted, the file bounded."""

from __future__ import annotations

from . import paths, shared, wire
from .verdict import Verdict

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

MAX_BYTES = 1_000_000
MAX_TEXT = 500


def file() -> str:
    return paths.join(shared.data_folder(), "guard.jsonl")


def redacted(text: str) -> str:
    from .policies.secrets import tokens

    for token, _service in tokens(text):
        text = text.replace(token, token[:3] + "[redacted]")
    return text


def record(payload: dict[str, Any], verdict: Verdict) -> None:
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
    if paths.size(path) > MAX_BYTES:
        import posix

        try:
            posix.rename(path, path + ".1")
        except OSError:
            pass
    paths.append_line(path, wire.dumps(row))
