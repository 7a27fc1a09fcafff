"""The errors that people and the model read.

Every message says what is wrong, the value seen, and what to do next. Services raise these and know nothing of MCP;
``tools.tool`` turns them into the SDK's ``ToolError`` at the boundary, the command line prints them after "error:"; what
both say of any other exception is in ``crash``.
"""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

from mcp_server.datasets.secrets import redact, redact_value

_MOST_EXPLAINED = 3  # an unknown argument may list all known ones


class UserError(Exception):
    """Something the caller can put right. ``str(error)`` is the whole message; the text is safe to show.

    Messages quote paths, values and other libraries' texts, any of which may hold an access token: those are taken out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


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


class HostError(UserError):
    """A machine of a training over several can't be reached or lacks what a rank needs."""


class ArgumentError(UserError):
    """An argument that does not exist or has a value out of range."""


def brief(text: str, most: int) -> str:
    """``text`` without secrets, or its beginning with an ellipsis: what is read by a model has to be paid for."""
    text = redact(text)  # before it is cut: half a token looks like none
    return text if len(text) <= most else text[: most - 1] + "…"


def explain(error: ValidationError, model: type[BaseModel]) -> ArgumentError:
    """pydantic's findings about ``model``'s arguments in one line: each argument, the value seen, what is allowed."""
    found = error.errors(include_url=False)
    parts = [_explain_one(dict(item), model) for item in found[:_MOST_EXPLAINED]]
    if len(found) > len(parts):
        parts.append(f"and {len(found) - len(parts)} more arguments are wrong")
    return ArgumentError("; ".join(parts))


def _explain_one(item: dict[str, Any], model: type[BaseModel]) -> str:
    location: tuple[str | int, ...] = item["loc"]
    path = ".".join(map(str, location))
    if item["type"] == "extra_forbidden":
        known = list(_owner(location, model).model_fields)
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = (
            f"did you mean {close[0]!r}?" if close else f"known arguments: {', '.join(known) or 'none; leave it out'}"
        )
        return f"unknown argument {path!r}; {hint}"
    if item["type"] == "missing":
        return f"the argument {path!r} is required; give it a value"
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    shown = redact(repr(redact_value(item.get("input"))))  # before it is cut: half a token looks like none
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return f"{path}={shown}: {message}; correct it and call again" if path else f"{message}"


def _owner(location: tuple[str | int, ...], model: type[BaseModel]) -> type[BaseModel]:
    """The model that the last part of ``location`` was given to."""
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        model = field.annotation
    return model
