"""A small read-only web server on loopback.

Whoever knows the random token in the address may read; nobody else on this machine or on a page in the same browser. So:
every path begins with the token (compared in constant time), the Host header must be ours (a foreign name that resolves
to 127.0.0.1 is refused), only GET is known, nothing is loaded from elsewhere, and no script but our own may run.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import sys
import webbrowser
from typing import Any

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_server.errors import ArgumentError, UserError
from mcp_server.jobs import store
from mcp_server.reports.facts import collect
from mcp_server.reports.page import report
from mcp_server.reports.style import STYLE, source
from mcp_server.ui.pages import SCRIPT, Jobs, job_content, page

HOST = "127.0.0.1"
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src {source(STYLE)}; script-src {source(SCRIPT)}; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the token is in the address
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Gatekeeper:
    """Refuses whatever is not a GET of ours with the token; the token is taken off the path."""

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{name}:{port}".encode() for name in (HOST, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: closed before it opens
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            refusal.headers.update(HEADERS)
            await refusal(scope, receive, send)
            return
        _, _, rest = scope["path"].split("/", 2)
        await self._app({**scope, "path": f"/{rest}"}, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse("this server answers only to its own address", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("this server only shows", 405, {"Allow": "GET, HEAD"})
        given = scope["path"].split("/", 2)[1].encode()
        if not hmac.compare_digest(given, self._token):
            return PlainTextResponse("open the address that `mlx-training ui` printed, with its token", 403)
        if scope["path"].count("/") == 1:  # without its last stroke the links of the page would lead astray
            return RedirectResponse(f"{scope['path']}/")
        return None


def application(token: str, port: int) -> ASGIApp:
    """The server's app for one token and port."""
    jobs = Jobs()

    async def listed(request: Request) -> Response:
        content = await anyio.to_thread.run_sync(jobs.content)
        return _answer(request, "mlx-training", content)

    async def one(request: Request) -> Response:
        job_id = request.path_params["job_id"]
        return _answer(request, job_id, await anyio.to_thread.run_sync(job_content, job_id))

    async def report_of(request: Request) -> Response:
        folder = store.get(request.path_params["job_id"])
        return HTMLResponse(report(await anyio.to_thread.run_sync(collect, folder)), headers=HEADERS)

    async def refused(_: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 404, HEADERS)

    app = Starlette(
        routes=[
            Route("/", listed),
            Route("/jobs/{job_id}", one),
            Route("/jobs/{job_id}/report", report_of),
        ],
        exception_handlers={UserError: refused, 404: _missing},
    )
    return Gatekeeper(app, token=token, port=port)


def _answer(request: Request, title: str, content: Any) -> Response:
    part = "part" in request.query_params
    return HTMLResponse(content if part else page(title, content), headers=HEADERS)


async def _missing(_: Request, __: Exception) -> Response:
    return PlainTextResponse("there is no such page", 404, HEADERS)


def serve(port: int, *, open_browser: bool) -> int:
    """Serve until Ctrl-C, saying the address. Raises ArgumentError when the port is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ArgumentError(f"--port {port} can't be used: {error}; leave it out to take a free one") from error
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(24)
    address = f"http://{HOST}:{port}/{token}/"
    print(
        f"{address}\nonly this machine can open it, and only with this address; Ctrl-C ends it, the jobs go on",
        flush=True,
    )
    if open_browser:
        webbrowser.open(address)
    # No access log: it would hold the token.
    config = uvicorn.Config(
        application(token, port), log_level="error", access_log=False, server_header=False, ws="none", lifespan="off"
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    print("ended; the jobs go on", file=sys.stderr)
    return 0
