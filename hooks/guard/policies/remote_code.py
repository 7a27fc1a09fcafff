"""`--trust-remote-code` runs Python that came with the model, with the user's rights."""

from __future__ import annotations

from guard.effects.commands import family_of
from guard.verdict import ASK, Finding, said

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.world import World

RULE = "remote-code"
TEXT_FAMILIES = ("builtins", "output", "git", "search", "editors")
TEXT_PROGRAMS = (
    "grep",
    "rg",
    "ag",
    "ack",
    "less",
    "more",
    "man",
    "diff",
    "claude",
    "gh",
    "glab",
    "jira",
    "say",
    "open",
    "code",
)
FALSE = ("false", "0", "no", "off", "none", "")


def judge(world: World) -> list[Finding]:
    findings = []
    for run in world.scene.runs:
        name = run.argv[0].rpartition("/")[2]
        if family_of(name) in TEXT_FAMILIES or name in TEXT_PROGRAMS:
            continue
        for word in run.argv[1:]:
            if trusts(word) and not (name.startswith("python") and run.argv[1:2] == ["-c"]):
                findings.append(found(" ".join(run.argv)))
                break
        else:
            for key in ("HF_TRUST_REMOTE_CODE", "TRUST_REMOTE_CODE", "HF_HUB_TRUST_REMOTE_CODE"):
                values = run.env.vars.get(key)
                if values and values[0].lower() not in FALSE:
                    findings.append(found(f"{key}={values[0]} " + " ".join(run.argv)))
    for name, keywords, command in world.scene.python:
        if name == "trust_remote_code" and keywords[name] is True:
            findings.append(found(command))
    for work in world.scene.works:
        if work.options.get("trust-remote-code", "").lower() in ("true", "yes", "on", "1"):
            findings.append(found(work.by))
    return findings[:1]


def trusts(word: str) -> bool:
    """`--trust-remote-code`, `--trust_remote_code=True`, argparse's shortened `--trust-rem`, `trust_remote_code=True` in a value."""
    lowered = word.lower().replace("_", "-")
    if lowered.startswith("--trust"):
        key, equals, value = lowered.partition("=")
        return "--trust-remote-code".startswith(key) and (not equals or value not in FALSE)
    at = lowered.find("trust-remote-code")
    if at < 0 or lowered.startswith("--no-"):
        return False
    rest = lowered[at + 17 :].lstrip("\"' ")
    return rest[:1] in ("=", ":") and rest[1:].lstrip(" \"'")[:4] in ("true", "1", "yes")


def found(command: str) -> Finding:
    return Finding(
        ASK, RULE, f"{said(command)} trusts remote code", "Python files that come with the model would run with the user's rights",
        "leave the option out: mlx-lm knows the common architectures itself; if the model needs it, let the user read its code first",
    )  # fmt: skip
