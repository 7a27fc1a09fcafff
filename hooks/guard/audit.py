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


# Of services the rule does not ask about: what is kept must not hold theirs either.
OTHER_SHAPES = (
    ("ghp_", 36, "GitHub"), ("gho_", 36, "GitHub"), ("ghu_", 36, "GitHub"), ("ghs_", 36, "GitHub"), ("ghr_", 36, "GitHub"),
    ("github_pat_", 50, "GitHub"), ("glpat-", 20, "GitLab"), ("xoxb-", 10, "Slack"), ("xoxp-", 10, "Slack"), ("xoxa-", 10, "Slack"),
    ("xoxs-", 10, "Slack"), ("xoxr-", 10, "Slack"), ("AKIA", 16, "AWS"), ("ASIA", 16, "AWS"), ("AIza", 35, "Google"),
)  # fmt: skip


SECRET_NAMES = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "_KEY")


def redacted(text: str) -> str:
    """Without what has the shape of a token, and without the values of variables that are named like one."""
    from .policies.secrets import SHAPES, tokens

    for name, value in paths.variables():
        if (
            len(value) > 7
            and value[0] not in "/~."
            and value in text
            and any(part in name.upper() for part in SECRET_NAMES)
        ):
            text = text.replace(value, "$" + name)
    for token, _service in tokens(text, SHAPES + OTHER_SHAPES):
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
