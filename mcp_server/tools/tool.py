"""How a function of one pydantic model becomes an MCP tool, and where our errors become the SDK's."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, get_args, get_origin, get_type_hints

import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from mcp_server.crash import told
from mcp_server.errors import brief, explain

_MOST_ERROR = 4000  # characters; a path or a value that was given may be as long as one likes
_TEXT: tuple[Any, ...] = (str, str | None)


class NoArguments(BaseModel):
    """For tools that need none."""

    model_config = ConfigDict(extra="forbid")


Result = TypeVar("Result", bound=BaseModel)


@dataclass(frozen=True)
class Illustrated(Generic[Result]):
    """A result with pictures (PNG), which the model sees beside it."""

    result: Result
    pictures: list[bytes]


class ModelTool(Tool):
    """A tool whose arguments are a pydantic model and whose result is one.

    Unknown arguments are refused; every failure reaches the model as one clear sentence.
    """

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        try:
            options = self._options(arguments)
            if self.is_async:
                result = await self.fn(options, context)
            else:
                result = await anyio.to_thread.run_sync(self.fn, options)
            return _as_call_result(result) if convert_result else result
        except (MCPError, ToolError):
            raise
        except Exception as error:  # the SDK would send the text of whatever came out of here
            raise ToolError(brief(str(told(error)), _MOST_ERROR)) from error

    def _options(self, arguments: dict[str, Any]) -> BaseModel:
        metadata = self.fn_metadata
        fields = metadata.arg_model.model_fields
        # Lists and objects come as JSON in a string from some clients. Where text is asked for it is text: prompts may be JSON.
        texts = {
            name: value for name, value in arguments.items() if name in fields and fields[name].annotation in _TEXT
        }
        try:
            return metadata.arg_model.model_validate(metadata.pre_parse_json(arguments) | texts)
        except ValidationError as error:
            raise ToolError(brief(str(explain(error, metadata.arg_model)), _MOST_ERROR)) from error


def _as_call_result(found: BaseModel | Illustrated[BaseModel]) -> CallToolResult:
    """Both forms of the result; fields that are null say nothing and cost tokens, so they are left out."""
    result = found.result if isinstance(found, Illustrated) else found
    pictures = found.pictures if isinstance(found, Illustrated) else []
    structured = result.model_dump(mode="json", exclude_none=True)
    text = TextContent(type="text", text=result.model_dump_json(exclude_none=True))
    images = [
        ImageContent(type="image", data=base64.b64encode(png).decode(), mime_type="image/png") for png in pictures
    ]
    return CallToolResult(content=[text, *images], structured_content=structured)


def _terse(schema: Any) -> Any:
    """The schema without what costs the model tokens and tells it nothing: pydantic's titles, which repeat the names, and
    null, since what is optional can be left out (null is still accepted), and permission for what is permitted anyway."""
    if isinstance(schema, list):
        items: list[Any] = schema
        return [_terse(item) for item in items]
    if not isinstance(schema, dict):
        return schema
    entries: dict[str, Any] = schema
    short = {
        key: _terse(value)
        for key, value in entries.items()
        if (key, value) not in (("default", None), ("additionalProperties", True))
        and not (key == "title" and isinstance(value, str))
    }
    choices = [each for each in short.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) == 1:
        del short["anyOf"]
        return choices[0] | short
    return short | ({"anyOf": choices} if choices else {})


def make_tool(
    function: Callable[..., Any],
    *,
    title: str,
    read_only: bool,
    destructive: bool = False,
    idempotent: bool = False,
    open_world: bool = False,
) -> Tool:
    """A tool named after ``function``: its first parameter's model is the input, its return type
    the output (inside ``Illustrated`` where it may bring pictures), its docstring the description. ``async`` functions are
    given the request's context too."""
    hints = get_type_hints(function)
    first = next(iter(inspect.signature(function).parameters))
    options: type[BaseModel] = hints[first]
    returned = hints["return"]
    output: type[BaseModel] = get_args(returned)[0] if get_origin(returned) is Illustrated else returned
    bases: Any = (options, ArgModelBase)
    arguments = cast(type[ArgModelBase], create_model(f"{function.__name__}_arguments", __base__=bases))
    description = inspect.cleandoc(function.__doc__ or "")
    return ModelTool(
        fn=function,
        name=function.__name__,
        title=title,
        description=description,
        parameters=_terse(arguments.model_json_schema()),
        fn_metadata=FuncMetadata(arg_model=arguments, output_model=output),
        is_async=inspect.iscoroutinefunction(function),
        context_kwarg=None,  # ours take it as their second argument
        annotations=ToolAnnotations(
            title=title,
            read_only_hint=read_only,
            destructive_hint=destructive,
            idempotent_hint=idempotent,
            open_world_hint=open_world,
        ),
    )
