"""Makes an ASGI application of `DataApp.respond`, for other servers and for mounting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from hotswap.errors import HotswapError, TooLarge
from hotswap.server.messages import Answer, Request, collect

if TYPE_CHECKING:
    from hotswap.server.app import DataApp

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def serve(app: DataApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one ASGI scope: HTTP or lifespan; a WebSocket is refused."""
    kind = scope["type"]
    if kind == "http":
        await _http(app, scope, receive, send)
    elif kind == "lifespan":
        await _lifespan(receive, send)
    elif kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1003})


async def _http(app: DataApp, scope: Scope, receive: Receive, send: Send) -> None:
    arrived = time.monotonic()
    request = Request(scope["method"], local_path(scope), {}, b"", arrived)
    try:
        request.headers = collect(scope["headers"])
        body = await _body(app, receive)
    except HotswapError as exc:
        await _send(app.refusal(exc, request), scope, send)
        return
    if body is None:
        return
    request.body = body
    # A disconnect must free what is queued; only a receive() that waits can tell of it.
    gone = asyncio.ensure_future(receive())
    work = asyncio.ensure_future(app.respond(request))
    try:
        await asyncio.wait((gone, work), return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and gone.result()["type"] != "http.disconnect":
            await asyncio.wait((work,))
        if work.done():
            await _send(work.result(), scope, send)
    finally:
        gone.cancel()
        work.cancel()
        await asyncio.gather(gone, work, return_exceptions=True)


async def _body(app: DataApp, receive: Receive) -> bytes | None:
    """The whole body, or None if the client went away first. Raises `TooLarge`."""
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts += message.get("body", b"")
        if len(parts) > app.limits.body_bytes:
            raise TooLarge(f"The body is larger than {app.limits.body_bytes} bytes.")
        if not message.get("more_body", False):
            return bytes(parts)


def local_path(scope: Scope) -> str:
    """A scope's path below the place where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


async def _send(answer: Answer, scope: Scope, send: Send) -> None:
    length = (b"content-length", b"%d" % len(answer.body))
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [*answer.headers, length],
        }
    )
    body = b"" if scope["method"] == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
