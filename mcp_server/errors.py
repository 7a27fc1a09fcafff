"""The errors that people and the model read.

Every message says what is wrong, the value seen, and what to do next. Services raise these and know nothing of MCP;
``tools.tool`` turns them into the SDK's ``ToolError`` at the boundary (any other exception's text is hidden from the
model), the command line prints them after "error:".
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError


class UserError(Exception):
    """Something the caller can put right. ``str(error)`` is the whole message; the text is safe to show."""


class PlatformError(UserError):
    """MLX can't or may not run on this machine."""


class ModelError(UserError):
    """The model is missing, is not a model, or does not fit what was asked of it."""


class DataError(UserError):
    """The data set is missing or has a row that would fail or mistrain."""


class PathError(UserError):
    """A path that exists and must not, does not and must, or can't be written."""


class JobError(UserError):
    """No such job, or a job in a state that does not allow what was asked."""


class BusyError(JobError):
    """Another job has the machine and the call said not to wait."""


class ArgumentError(UserError):
    """An argument that does not exist or has a value out of range."""


def explain(error: ValidationError, known: Iterable[str]) -> ArgumentError:
    """pydantic's findings in one line each: the argument, the value seen, what is allowed."""
    return ArgumentError("; ".join(_explain_one(dict(item), list(known)) for item in error.errors(include_url=False)))


def _explain_one(item: dict[str, object], known: list[str]) -> str:
    location = item.get("loc")
    path = ".".join(str(part) for part in location) if isinstance(location, tuple) else ""
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known arguments: {', '.join(known)}"
        return f"unknown argument {path!r}; {hint}"
    if item["type"] == "missing":
        return f"the argument {path!r} is required; give it a value"
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    shown = repr(item.get("input"))
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return f"{path}={shown}: {message}; correct it and call again" if path else f"{message}"
