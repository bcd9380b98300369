"""Server-sent events: what happens, as it happens, for as long as a client listens."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hotswap.control.interface import Control
from hotswap.core.rollout_views import EventView
from hotswap.errors import BadInput, HotswapError, Unavailable
from hotswap.server.admin_replies import answers, control_of
from hotswap.server.admin_rollout_bodies import check_query
from hotswap.server.control_protocol import LEAVING

log = logging.getLogger("hotswap.server")
router = APIRouter()
Service = Annotated[Control, Depends(control_of)]

HEARTBEAT_SECONDS: Final = 15.0
#: Most listeners at once: the rest of the connections is left to commands and scrapers.
LISTENERS: Final = 256

_EXAMPLE: Final = """\
id: 42
event: rollout
data: {"id":42,"at":1790000000.0,"kind":"rollout","model":"fraud","message":"…","data":{}}

"""
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events without end; `data` is an `EventView` as JSON.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}
After = Annotated[str | None, Query(description="First, what came after the event of this id.")]
LastId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="As `after`, and before it: browsers send it."),
]


@router.get(
    "/api/v1/events",
    tags=["events"],
    response_class=StreamingResponse,
    responses=answers(EventView, 400, 503) | _STREAM,
)
async def stream_events(
    request: Request, control: Service, after: After = None, last_event_id: LastId = None
) -> Response:
    """Server-sent events: rollouts, switches, operations, versions, alerts.

    A client that was away asks for what it missed with the id of the last event that it has
    seen; the last 1,000 events are kept.
    """
    check_query(request, "after")
    given = last_event_id or after
    if given is not None and not re.fullmatch(r"[0-9]{1,18}", given):
        raise BadInput("the id of an event is a whole number")
    state = request.app.state
    if state.listeners >= LISTENERS:
        raise Unavailable(f"{LISTENERS} clients listen already; try again soon")
    events = control.events(None if given is None else int(given))
    return EventStream(frames(events, state.heartbeat), state)


def frame(event: EventView) -> bytes:
    """One event on the wire.

    >>> frame(EventView(7, 0.0, "alert", "m", "x")).splitlines()[:2]
    [b'id: 7', b'event: alert']
    """
    data = msgspec.json.encode(event)  # on one line, whatever it holds
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.id, event.kind.encode(), data)


async def frames(events: AsyncIterator[EventView], heartbeat: float) -> AsyncGenerator[bytes]:
    """``events`` as frames, and a comment whenever there was none for ``heartbeat`` seconds.

    The first frame is a comment, given when what happens from then on is no longer missed.
    """
    following: asyncio.Future[EventView] = asyncio.ensure_future(anext(events))
    try:
        await asyncio.sleep(0)
        yield b": events follow\n\n"
        while True:
            done, _ = await asyncio.wait([following], timeout=heartbeat)
            if not done:
                yield b": nothing new\n\n"
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = asyncio.ensure_future(anext(events))
            yield frame(event)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        if isinstance(events, AsyncGenerator):
            await events.aclose()


class EventStream(StreamingResponse):
    """A response that ends when its client leaves, and when the server does.

    ``state.listeners`` counts those that are open.
    """

    def __init__(self, content: AsyncGenerator[bytes], state: Any) -> None:
        super().__init__(content, media_type="text/event-stream")
        self.headers["x-accel-buffering"] = "no"  # proxies are not to collect events
        self._frames = content
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until somebody leaves."""
        ends = [asyncio.create_task(self.listen_for_disconnect(receive))]
        leaving = scope.get("extensions", {}).get(LEAVING)
        if leaving is not None:
            ends.append(asyncio.create_task(leaving.wait()))
        self._state.listeners += 1
        try:
            first = await anext(self._frames)
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            writing = asyncio.create_task(self._write(first, send))
            ends.append(writing)
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if writing in done:
                writing.result()
        finally:
            self._state.listeners -= 1
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            await self._frames.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, first: bytes, send: Send) -> None:
        await send({"type": "http.response.body", "body": first, "more_body": True})
        try:
            async for chunk in self._frames:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except HotswapError as error:  # the client asks again, from where it was
            log.warning("a stream of events ended early: %s", error)
