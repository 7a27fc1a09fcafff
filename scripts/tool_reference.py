"""docs/tools.md from the tools themselves: what a client is told by list_tools(), as tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mcp_types import Tool

Schema = dict[str, Any]


def tool_reference(tools: Iterable[Tool]) -> str:
    """A section for each tool, and one for the objects that are in their results."""
    parts: dict[str, Schema] = {}
    lines: list[str] = []
    for tool in tools:
        returned = tool.output_schema or {}
        parts |= tool.input_schema.get("$defs", {}) | returned.get("$defs", {})
        lines += [f"## `{tool.name}`", "", tool.description or "", "", _hints(tool), "", "Parameters:", ""]
        lines += (
            _table(tool.input_schema, ("parameter", "default")) if tool.input_schema.get("properties") else ["none"]
        )
        lines += ["", "Returns:", "", *_table(returned, ("field",)), ""]
    lines += ["## Objects in parameters and results", ""]
    for name, schema in sorted(parts.items()):
        described = " ".join(str(schema.get("description", "")).replace("``", "`").split())
        lines += [f"### {name}", "", described, "", *_table(schema, ("field",)), ""]
    return "\n".join(lines).strip()


def _hints(tool: Tool) -> str:
    """What a client may know of a tool before it is called."""
    hints = tool.annotations
    if hints is None:
        return ""
    said = ["Only reads." if hints.read_only_hint else "Writes."]
    said += ["May end something that cannot be brought back."] if hints.destructive_hint else []
    said += ["The same call again changes nothing more."] if hints.idempotent_hint and not hints.read_only_hint else []
    said += ["May use the network (models and data of the Hub)."] if hints.open_world_hint else []
    return " ".join(said)


def _table(schema: Schema, head: tuple[str, ...]) -> list[str]:
    columns = [head[0], "type", *head[1:], "meaning"]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        cells = [f"`{name}`", _type(field)]
        if len(head) > 1:
            default = field.get("default")
            cells.append(
                "required" if name in required else "" if default in (None, {}) else f"`{json.dumps(default)}`"
            )
        text = " ".join(str(field.get("description", "")).split())
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in [*cells, text]) + " |")
    return lines


def _type(schema: Schema) -> str:
    """A field's type in words: "text or list of text", "`lora`, `dora`, `full`", a link where it is an object with a section."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        kinds = [_type(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return "[" + ", ".join(_type(each) for each in schema["prefixItems"]) + "]"
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return f"object of {_type(values)}" if isinstance(values, dict) and values else "object"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(str(schema.get("type")), "any") + _bounds(schema)


def _bounds(schema: Schema) -> str:
    names = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[name]}" for name, sign in names.items() if name in schema]
    return f" ({', '.join(found)})" if found else ""
