"""After a write: is what lies on the disk now something that mlx-lm can use?"""

from __future__ import annotations

from . import lora_config, paths, shared, wire
from .protected import DATA_FILES

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

MAX_BYTES = 20_000_000
MAX_SHOWN = 8


def review(payload: dict[str, Any]) -> str:
    """The hook's JSON: problems go back to the model, remarks beside the result; empty when all is well."""
    inputs = payload.get("tool_input")
    path = inputs.get("file_path") if isinstance(inputs, dict) else None
    if not isinstance(path, str):
        return ""
    path = paths.normal(path, str(payload.get("cwd") or "/"))
    problems, remarks = found(path)
    if problems:
        shown = "\n".join("- " + problem for problem in problems[:MAX_SHOWN])
        more = f"\n({len(problems) - MAX_SHOWN} more)" if len(problems) > MAX_SHOWN else ""
        return wire.dumps(
            {"decision": "block", "reason": f"{path} was written, but mlx-lm can't use it as it is:\n{shown}{more}"}
        )
    if remarks:
        shown = "; ".join(remarks[:MAX_SHOWN])
        return wire.dumps(
            {"hookSpecificOutput": {"hookEventName": "PostToolUse", "additionalContext": f"{path}: {shown}"}}
        )
    return ""


def found(path: str) -> tuple[list[str], list[str]]:
    """(problems, remarks) of a file that is a subject of ours; nothing for every other file."""
    name = paths.base(path).lower()
    if name in DATA_FILES:
        return data_file(path)
    if name == "adapter_config.json":
        return lora_config.check_adapter(paths.read_text(path, MAX_BYTES) or ""), []
    if name.endswith((".yaml", ".yml")):
        text = paths.read_text(path) or ""
        if lora_config.is_lora_yaml(text):
            return lora_config.check_yaml(text), lora_config.notes(text)
    return [], []


def data_file(path: str) -> tuple[list[str], list[str]]:
    if paths.size(path) > MAX_BYTES:
        return [], []  # the tools' own inspection reads large files
    text = paths.read_text(path, MAX_BYTES)
    if text is None:
        return ["it can't be read as text"], []
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    if not lines:
        return ["it is empty; mlx-lm stops with an IndexError on an empty file"], []
    problems, remarks = [], []
    expect = None
    for number, line in enumerate(lines, 1):
        kind, issues = shared.check_line(line, expect)
        expect = kind if number == 1 else expect
        for issue in issues:
            (problems if issue.severity == "error" else remarks).append(f"line {number} {issue.message}")
    return problems, remarks
