"""What a policy finds, and how findings become the hook's answer."""

from __future__ import annotations

from . import paths

ALLOW, ASK, DENY = 0, 1, 2
WORDS = {ALLOW: "allow", ASK: "ask", DENY: "deny"}


class Finding:
    """One thing to stop: what was seen, why it matters, what to do instead (a command that passes the gate, or a tool)."""

    __slots__ = ("advice", "decision", "rule", "seen", "why")

    def __init__(self, decision: int, rule: str, seen: str, why: str, advice: str) -> None:
        self.decision = decision
        self.rule = rule
        self.seen = seen
        self.why = why
        self.advice = advice

    def text(self) -> str:
        return "[" + self.rule + "] " + self.seen + ". Why: " + self.why + ". Instead: " + self.advice


class Verdict:
    """The strongest decision and every finding behind it."""

    __slots__ = ("decision", "findings")

    def __init__(self, findings: list[Finding]) -> None:
        self.decision = max((finding.decision for finding in findings), default=ALLOW)
        unique: list[Finding] = []
        for finding in sorted(findings, key=lambda each: -each.decision):
            if all(finding.text() != other.text() for other in unique):
                unique.append(finding)
        self.findings = unique

    @property
    def word(self) -> str:
        return WORDS[self.decision]

    def reason(self) -> str:
        """The message that the model reads: at most three findings, the worst first, and never a token."""
        from .audit import redacted

        shown = [finding.text() for finding in self.findings[:3]]
        more = len(self.findings) - len(shown)
        return redacted("\n".join(shown + ([f"({more} more findings of the same kind)"] if more > 0 else [])))


def short(path: str, cwd: str) -> str:
    """A path as people say it: relative to the project where it lies in it."""
    return path[len(cwd) + 1 :] if cwd != "/" and path.startswith(cwd + "/") else path


def aside(path: str, cwd: str) -> str:
    """The advice to move a path away, to a name that is free."""
    name = short(path, cwd)
    number = 1
    free = name + ".old"
    while paths.exists(paths.normal(free, cwd)) and number < 100:
        number += 1
        free = f"{name}.old{number}"
    return f"move it aside to a free name: `mv {quoted(name)} {quoted(free)}`"


def quoted(name: str) -> str:
    plain = name and all(c.isalnum() or c in "-_./+@" for c in name)
    return name if plain else "'" + name.replace("'", "'\\''") + "'"


def said(text: str, limit: int = 120) -> str:
    """A command line in a message: one line, shortened; redacted before, since half a token has no shape any more."""
    from .audit import redacted

    text = " ".join(redacted(text).replace("\ue10f", "?").split())
    return "`" + (text if len(text) <= limit else text[: limit - 3] + "...") + "`"
