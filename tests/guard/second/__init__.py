"""A second corpus, written as by a stranger after the gate was finished, and scored before anything was mended for it."""

from __future__ import annotations

from . import shell

SUBJECTS = ("second",)


def cases():
    """(subject, label, command, options) of every case."""
    for label, commands in (("deny", shell.DENY), ("ask", shell.ASK), ("allow", shell.ALLOW)):
        for case in commands:
            command, options = (case, {}) if isinstance(case, str) else case
            yield "second", label, command, options


def file_cases():
    """The file tools have no cases of their own here."""
    return iter(())
