"""A scripted stand-in for the Messages API, on loopback.

The real Claude Code client talks to it as it would to the model, and a test decides what "the model" says. A script is
a list of turns, or a generator function that is given the client's first request and receives the next one at each
`yield`, so that a turn can use what a tool just answered:

    def main(request: Request) -> Script:
        request = yield ToolUse("Bash", {"command": "echo hello"})
        yield f"The shell said {request.result.text}"

Every request is kept, so a test can assert what the model was shown: the system prompt, the tools, the results. The
client names the session and the subagent in headers, so the main agent and each subagent follow scripts of their own.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast

JsonObject = dict[str, Any]

MAIN = "main"
SIDE = "side"


@dataclass(frozen=True)
class ToolUse:
    """One tool call of the scripted model."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict[str, Any])


Turn = str | ToolUse | Sequence[str | ToolUse]
"""What the model answers: text, a tool call, or several of them in one message."""

Script = Generator[Turn, "Request", None]
ScriptSource = Sequence[Turn] | Callable[["Request"], Script]


class ScriptError(AssertionError):
    """The session left its script: a turn raised, or the client asked for more or less than was scripted."""


@dataclass(frozen=True)
class ToolResult:
    """What the client told the model about one tool call."""

    tool_use_id: str
    is_error: bool
    blocks: Sequence[JsonObject]

    @property
    def text(self) -> str:
        return "\n".join(block["text"] for block in self.blocks if block["type"] == "text")

    @property
    def image_types(self) -> list[str]:
        return [block["source"]["media_type"] for block in self.blocks if block["type"] == "image"]

    def json(self) -> JsonObject:
        """The structured content of an MCP tool, which reaches the model as JSON text; beside a picture it may have notes."""
        texts = [block["text"] for block in self.blocks if block["type"] == "text"]
        return json.loads(next((text for text in texts if text.lstrip().startswith("{")), self.text))


def _blocks(content: str | Sequence[JsonObject] | None) -> list[JsonObject]:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _text(content: str | Sequence[JsonObject] | None) -> str:
    return "\n".join(block["text"] for block in _blocks(content) if block["type"] == "text")


@dataclass(frozen=True)
class Request:
    """One request to the model: all that it can know at that moment."""

    body: JsonObject
    session_id: str
    agent_id: str | None
    role: str
    """`main`, the key of the subagent's script, or `side` for the client's own errands (titles, prompt hooks)."""

    @property
    def system(self) -> str:
        return _text(self.body.get("system"))

    @property
    def messages(self) -> list[JsonObject]:
        return self.body["messages"]

    @cached_property
    def tools(self) -> dict[str, JsonObject]:
        """The tools whose schema the model was given, by name. Deferred ones are only named in `text`."""
        offered: list[JsonObject] = self.body.get("tools") or []
        return {tool["name"]: tool for tool in offered if not tool.get("defer_loading")}

    @property
    def text(self) -> str:
        """All the text of the conversation so far, tool results included."""
        parts: list[str] = []
        for message in self.messages:
            for block in _blocks(message["content"]):
                if block["type"] == "text":
                    parts.append(block["text"])
                elif block["type"] == "tool_result":
                    parts.append(_text(block.get("content")))
        return "\n".join(parts)

    @cached_property
    def results(self) -> list[ToolResult]:
        """The results of the model's last calls, in the order the client gave them."""
        found: list[ToolResult] = []
        for message in self.messages:
            if message["role"] == "assistant":
                found = []
            for block in _blocks(message["content"]):
                if block["type"] == "tool_result":
                    content = _blocks(block.get("content"))
                    found.append(ToolResult(block["tool_use_id"], bool(block.get("is_error")), content))
        return found

    @property
    def result(self) -> ToolResult:
        """The result of the one tool call of the turn before."""
        if len(self.results) != 1:
            raise ScriptError(f"expected one tool result, the client sent {len(self.results)}: {self.messages[-2:]}")
        return self.results[0]


def call_mcp(name: str, /, **arguments: Any) -> Generator[Turn, Request, ToolResult]:
    """Call an MCP tool, again while its server is still connecting: `result = yield from call_mcp(...)`.

    A client opens a session before its servers have answered, and a real model would also just try again.
    """
    deadline = time.monotonic() + 30
    while True:
        request = yield ToolUse(name, arguments)
        result = request.result
        connecting = result.is_error and "No such tool available" in result.text
        if not connecting or time.monotonic() > deadline:
            return result
        time.sleep(0.25)


def ask_agent(agent: str, prompt: str) -> ToolUse:
    """The call with which the main agent starts a subagent and waits for its report.

    The newest client would otherwise run it in the background and hand the report back as a later user turn.
    """
    arguments = {"description": "task", "prompt": prompt, "subagent_type": agent, "run_in_background": False}
    return ToolUse("Agent", arguments)


def _follow(turns: Sequence[Turn]) -> Script:
    # A list's own iterator has no `send`, so `yield from` would lose the requests.
    for turn in turns:  # noqa: UP028
        yield turn


class _Conversation:
    """One agent's way through its script."""

    def __init__(self, source: ScriptSource) -> None:
        self.lock = threading.Lock()
        self.turns_left: int | None = None if callable(source) else len(source)
        self._source = source
        self._script: Script | None = None
        self._last: tuple[JsonObject, Turn | None] | None = None

    def answer(self, request: Request) -> Turn | None:
        """The next turn, or None past the end of the script."""
        # A client that lost a connection repeats itself word for word; that must not move the script on.
        if self._last is not None and self._last[0] == request.body:
            return self._last[1]
        try:
            if self._script is None:
                self._script = self._source(request) if callable(self._source) else _follow(self._source)
                turn = next(self._script)
            else:
                turn = self._script.send(request)
        except StopIteration:
            turn = None
        if turn is not None and self.turns_left is not None:
            self.turns_left -= 1
        self._last = (request.body, turn)
        return turn


class ScriptedModel:
    """The server. Use it as a context manager; `url` is what ANTHROPIC_BASE_URL must say.

    `agents` maps a text that occurs in a subagent's system prompt to that subagent's script.
    `side` answers requests without tools that belong to no agent, such as those of prompt hooks.
    """

    def __init__(
        self,
        main: ScriptSource = ("done",),
        agents: Mapping[str, ScriptSource] | None = None,
        side: Callable[[Request], str] = lambda request: "{}",
    ) -> None:
        self.requests: list[Request] = []
        self.failures: list[ScriptError] = []
        self._main = main
        self._agents = dict(agents or {})
        self._side = side
        self._conversations: dict[tuple[str, str | None], _Conversation] = {}
        self._used: set[str] = set()
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def of(self, role: str) -> list[Request]:
        """The requests of the main agent (`MAIN`), of one subagent (its key in `agents`), or the side ones."""
        return [request for request in self.requests if request.role == role]

    def check(self) -> None:
        """Raise what went wrong: a turn that raised, an unscripted request, turns that were never asked for."""
        if self.failures:
            raise self.failures[0]
        for key in self._agents.keys() - self._used:
            raise ScriptError(f"no subagent with {key!r} in its system prompt was started")
        if not self._conversations:
            raise ScriptError("the client never asked the model anything")
        for (_, agent_id), conversation in self._conversations.items():
            if conversation.turns_left:
                raise ScriptError(f"{conversation.turns_left} turns left of the script of {agent_id or MAIN}")

    def _role(self, body: JsonObject, agent_id: str | None) -> str:
        system = _text(body.get("system"))
        if agent_id is None:
            return MAIN if body.get("tools") else SIDE
        return next((key for key in self._agents if key in system), f"unscripted subagent: {system[:200]}")

    def _answer(self, body: JsonObject, session_id: str, agent_id: str | None) -> Turn:
        role = self._role(body, agent_id)
        request = Request(body, session_id, agent_id, role)
        with self._lock:
            self.requests.append(request)
            self._used.add(role)
        if role == SIDE:
            return self._side(request)
        source = self._main if role == MAIN else self._agents.get(role, ())
        with self._lock:
            conversation = self._conversations.setdefault((session_id, agent_id), _Conversation(source))
        with conversation.lock:
            turn = conversation.answer(request)
        if turn is None:
            shown = json.dumps(request.messages[-1]["content"])[:1000]
            raise ScriptError(f"{role} was asked for more than its script holds; the client had just said: {shown}")
        return turn

    def respond(self, body: JsonObject, session_id: str, agent_id: str | None) -> JsonObject:
        """One message of the Messages API."""
        try:
            turn = self._answer(body, session_id, agent_id)
        except Exception as error:  # Whatever a test's own turn raises belongs to the test, not to this thread.
            failure = error if isinstance(error, ScriptError) else ScriptError(f"a turn raised {error!r}")
            if failure is not error:
                failure.__cause__ = error
            self.failures.append(failure)
            turn = f"The script failed: {failure}"
        parts = [turn] if isinstance(turn, (str, ToolUse)) else list(turn)
        content: list[JsonObject] = []
        for part in parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
            else:
                identity = f"toolu_{uuid.uuid4().hex[:20]}"
                content.append({"type": "tool_use", "id": identity, "name": part.name, "input": dict(part.input)})
        calls = any(isinstance(part, ToolUse) for part in parts)
        return {
            "id": f"msg_{uuid.uuid4().hex[:20]}",
            "type": "message",
            "role": "assistant",
            "model": body.get("model"),
            "content": content,
            "stop_reason": "tool_use" if calls else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, model: ScriptedModel) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        if path == "/v1/messages":
            asked = cast(JsonObject, json.loads(body))
            session_id = self.headers.get("x-claude-code-session-id") or ""
            message = self.server.model.respond(asked, session_id, self.headers.get("x-claude-code-agent-id"))
            if asked.get("stream"):
                self._send(200, _as_events(message), "text/event-stream")
            else:
                self._send_json(200, message)
        elif path == "/v1/messages/count_tokens":
            self._send_json(200, {"input_tokens": max(1, len(body) // 4)})
        else:
            self._send_json(404, {"type": "error", "error": {"type": "not_found_error", "message": path}})

    def do_GET(self) -> None:
        self._send_json(404, {"type": "error", "error": {"type": "not_found_error", "message": self.path}})

    def do_HEAD(self) -> None:
        self._send(200, b"", "text/plain")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _send_json(self, status: int, body: JsonObject) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        try:
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            # The client was stopped while a turn was being thought out; nobody is left to tell.
            self.close_connection = True


def _as_events(message: JsonObject) -> bytes:
    """The server-sent events of one message."""
    events: list[JsonObject] = [{"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}]
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            start: JsonObject = {"type": "text", "text": ""}
            delta: JsonObject = {"type": "text_delta", "text": block["text"]}
        else:
            start = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 1}})
    events.append({"type": "message_stop"})
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
