"""Text that looks like an access token or a private key. Found by kind and place; the secret itself is never shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# Markers are looked for first: a plain substring search is some fifty times as fast as the expressions.
# The lookbehind keeps a token's middle from being taken for another's start.
_KINDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("Hugging Face token", ("hf_", "api_org_"), r"(?<![A-Za-z0-9_])(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    ("Anthropic key", ("sk-ant-",), r"(?<![A-Za-z0-9])sk-ant-[A-Za-z0-9_-]{20,}"),
    ("OpenAI-like key", ("sk-",), r"(?<![A-Za-z0-9-])sk-(?!ant-)(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{20,}"),
    ("AWS access key id", ("AKIA", "ASIA"), r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    (
        "AWS secret access key",
        ("aws_secret", "AWS_SECRET", "ecretAccessKey", "secretaccesskey"),
        r"(?i:aws_secret_access_key|secretaccesskey)\W{1,6}(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
    ),
    (
        "GitHub token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"(?<![A-Za-z0-9_])(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
    ),
    ("GitLab token", ("glpat-",), r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20,}"),
    (
        "Slack token",
        ("xoxa-", "xoxb-", "xoxp-", "xoxo-", "xoxs-", "xoxr-"),
        r"(?<![A-Za-z0-9])xox[abposr]-[A-Za-z0-9-]{10,}",
    ),
    ("Google API key", ("AIza",), r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}"),
    (
        "Weights & Biases key",
        ("wandb", "WANDB", "Wandb", "W&B", "w&b"),
        r"(?i:wandb|w&b)[^\n]{0,40}?(?<![A-Za-z0-9])(?P<secret>[0-9a-f]{40}|wandb_v1_[A-Za-z0-9_]{40,})(?![A-Za-z0-9])",
    ),
    (
        "private key",
        ("PRIVATE KEY-----",),
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:[\s\S]*?-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|[\s\S]*)",
    ),
)
_PATTERNS = tuple((kind, markers, re.compile(pattern)) for kind, markers, pattern in _KINDS)
# Most markers hold a character that most rows do not: one look for it spares the others.
_MARKERS = {
    gate: tuple(
        dict.fromkeys(
            marker
            for _, markers, _ in _PATTERNS
            for marker in markers
            if gate == next((c for c in "_-" if c in marker), "")
        )
    )
    for gate in ("", "_", "-")
}


def find_secrets(text: str) -> list[str]:
    """The kinds of secrets ``text`` seems to hold, each once."""
    if not may_hold_secret(text):
        return []
    return list(dict.fromkeys(kind for kind, _, _ in _spans(text)))


def redact(text: str) -> str:
    """``text`` with every secret replaced by its kind."""
    if not may_hold_secret(text):
        return text
    for kind, start, end in sorted(_spans(text), key=lambda span: -span[1]):
        text = f"{text[:start]}[{kind} removed]{text[end:]}"
    return text


# Names whose value is a secret whatever it looks like. Counts of tokens, and mlx-lm's ``keys``, are not among them.
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:token|password|passwd|secret|api_?key|access_?key|secret_?key|credentials?|authorization)$", re.I
)


def redact_value(value: Any) -> Any:
    """Plain data with secrets removed: from every text, and whatever stands under a name such as ``token``."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        items: list[Any] = value
        return [redact_value(item) for item in items]
    if isinstance(value, dict):
        entries: dict[str, Any] = value
        return {
            name: "[removed]" if isinstance(item, str) and _SECRET_NAME.search(name) else redact_value(item)
            for name, item in entries.items()
        }
    return value


def may_hold_secret(text: str) -> bool:
    """Whether the expressions are worth running."""
    for gate, markers in _MARKERS.items():
        if gate in text:
            for marker in markers:  # any() with a generator takes twice as long, and this runs for every row
                if marker in text:
                    return True
    return False


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Kind, start and end of each secret, none inside another."""
    taken: list[tuple[int, int]] = []
    for kind, markers, pattern in _PATTERNS:
        if not any(marker in text for marker in markers):
            continue
        for match in pattern.finditer(text):
            start, end = match.span("secret" if "secret" in pattern.groupindex else 0)
            if not any(start < other_end and other_start < end for other_start, other_end in taken):
                taken.append((start, end))
                yield kind, start, end
