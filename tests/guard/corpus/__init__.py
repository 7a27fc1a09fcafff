"""Labelled commands: one module a subject, each with lists DENY, ASK and ALLOW.

A case is a command, or (command, options). `{root}` stands for the project folder, `{home}` for the home folder.
Options: `run="why not"` keeps the ground-truth check from running it; `state="training"` judges it while a job runs.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SUBJECTS = (
    "artefacts", "data_sets", "evasions", "python_code", "platform", "one_training", "running_jobs", "machine", "hub", "remote_code",
    "secrets", "guard_itself", "plain_work", "walking", "programs", "files",
)  # fmt: skip


def cases() -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """(subject, label, command, options) of every shell case."""
    for subject in SUBJECTS:
        if subject == "files":
            continue
        module = importlib.import_module(__name__ + "." + subject)
        for label in ("deny", "ask", "allow"):
            for case in getattr(module, label.upper()):
                command, options = (case, {}) if isinstance(case, str) else case
                yield subject, label, command, options


def file_cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(label, tool, input) of every case for the file tools."""
    from . import files

    for label in ("deny", "ask", "allow"):
        for tool, inputs in getattr(files, label.upper()):
            yield label, tool, inputs
