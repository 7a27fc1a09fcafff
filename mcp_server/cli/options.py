"""Command line flags made from the tools' pydantic models, so that both take the same arguments with the same words."""

from __future__ import annotations

import argparse
import json
import sys
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mcp_server.errors import ArgumentError, explain

Options = TypeVar("Options", bound=BaseModel)


def add_options(parser: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    """One flag for every field of ``model``; those without a default are required."""
    for name, field in model.model_fields.items():
        flag = "--" + name.replace("_", "-")
        text = (field.description or "").replace("%", "%%")
        if _kinds(field) == {bool}:
            parser.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=text)
            continue
        default = option_default(field)
        text += f" (default {default})" if default not in (None, {}) else ""
        parser.add_argument(flag, dest=name, required=field.is_required(), help=text, metavar=name.upper())


def option_default(field: FieldInfo) -> Any:
    """A field's default as plain data; None when it has none."""
    if field.is_required():
        return None
    default = field.get_default(call_default_factory=True, validated_data={})
    return default.model_dump(exclude_none=True) if isinstance(default, BaseModel) else default


def read_options(arguments: argparse.Namespace, model: type[Options]) -> Options:
    """The model with what was given on the command line. Raises ArgumentError."""
    given: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        value = getattr(arguments, name)
        if value is not None:
            given[name] = _read(name, value, field)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise explain(error, model) from error


def _read(name: str, value: Any, field: FieldInfo) -> Any:
    kinds = _kinds(field)
    structured = any(kind in (dict, list) or (isinstance(kind, type) and issubclass(kind, BaseModel)) for kind in kinds)
    # A field that takes text too, such as lr_schedule, is given JSON by its first character.
    plain = str in kinds and isinstance(value, str) and not value.lstrip().startswith(("{", "["))
    if not structured or plain or not isinstance(value, str):
        return value
    if list[str] in _annotations(field) and not value.lstrip().startswith("["):
        return value.split(",")
    try:
        return json.loads(value)
    except ValueError as error:
        flag = "--" + name.replace("_", "-")
        raise ArgumentError(f"{flag} {value!r} is not JSON: {error}; write for example '{{\"rank\": 16}}'") from error


def _annotations(field: FieldInfo) -> list[Any]:
    """The types a field takes, without None."""
    annotation: Any = field.annotation
    parts = typing.get_args(annotation) if type(None) in typing.get_args(annotation) else (annotation,)
    return [part for part in parts if part is not type(None)]


def _kinds(field: FieldInfo) -> set[Any]:
    """``_annotations``, generics by their origin."""
    return {typing.get_origin(part) or part for part in _annotations(field)}


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON, for programs")


def show(result: BaseModel, *, as_json: bool, text: str) -> None:
    """The result as JSON, or ``text`` for people."""
    if as_json:
        json.dump(result.model_dump(mode="json", exclude_none=True), sys.stdout, indent=1)
        print()
    else:
        print(text)
