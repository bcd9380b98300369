"""The stream of events, over real sockets and the control plane's own protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import msgspec
import pytest
import uvicorn

from hotswap.core.rollout_views import EventView
from hotswap.core.spec import Limits
from hotswap.errors import StoreError
from hotswap.server.admin import create_app
from hotswap.server.admin_events import LISTENERS, frames
from hotswap.server.control_protocol import control_protocol
from hotswap.testing.fake_control import FakeControl

URL = "/api/v1/events"


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


class Listener:
    """One connection that reads a stream of events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def begin(self, *headers: str, query: str = "") -> tuple[int, dict[str, str]]:
        """Status and headers of the answer."""
        lines = [f"GET {URL}{query} HTTP/1.1", "Host: localhost", *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *pairs = head.strip().split("\r\n")
        return int(status.split()[1]), dict(pair.split(": ", 1) for pair in pairs)

    async def chunk(self) -> str:
        """The next chunk: one frame, or "" for the end."""
        async with asyncio.timeout(20):
            size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
            return (await self.reader.readexactly(size + 2))[:-2].decode()

    async def event(self) -> dict[str, Any]:
        """The next frame that is an event: its data, after its id and kind were compared."""
        while (frame := await self.chunk()).startswith(":"):
            pass
        id, kind, data, *rest = frame.split("\n")
        assert rest == ["", ""]
        event: dict[str, Any] = msgspec.json.decode(data.removeprefix("data: "))
        assert (id, kind) == (f"id: {event['id']}", f"event: {event['kind']}")
        return event


class Server:
    """uvicorn as control runs it, over a `FakeControl`."""

    def __init__(self, heartbeat: float = 60.0, **limits: Any) -> None:
        self.control = FakeControl()
        self.app = create_app(self.control, heartbeat=heartbeat)
        config = uvicorn.Config(
            self.app, log_config=None, access_log=False, lifespan="off", ws="none",
            timeout_graceful_shutdown=1, http=control_protocol(Limits(**limits)),
        )  # fmt: skip
        self.uvicorn = uvicorn.Server(config)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.task = asyncio.create_task(self.uvicorn._serve([self.sock]))
        self.listeners: list[Listener] = []

    def tell(self, text: str = "x") -> EventView:
        return self.control.happenings.emit("alert", "fraud", text, {})

    async def connect(self) -> Listener:
        listener = Listener(*await asyncio.open_connection(*self.sock.getsockname()))
        self.listeners.append(listener)
        return listener

    async def listener(self, *headers: str, query: str = "") -> Listener:
        """One that has been told that it is listening."""
        listener = await self.connect()
        status, _ = await listener.begin(*headers, query=query)
        assert status == 200
        assert (await listener.chunk()).startswith(": ")
        return listener

    async def stop(self) -> None:
        self.uvicorn.should_exit = True
        await self.task

    async def close(self) -> None:
        """Stop, and leave no connection behind."""
        for listener in self.listeners:
            listener.writer.transport.abort()
            with contextlib.suppress(OSError):
                await listener.writer.wait_closed()
        await self.stop()


Start = Callable[..., Server]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    servers: list[Server] = []

    def start_server(**options: Any) -> Server:
        servers.append(Server(**options))
        return servers[-1]

    yield start_server
    for server in servers:
        await server.close()


@pytest.fixture
async def server(start: Start) -> Server:
    return start()


async def test_events_come_as_they_happen(server: Server) -> None:
    """Each with its id, its kind and the whole of it as JSON; not to be stored or collected."""
    listener = await server.connect()
    status, headers = await listener.begin()
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    assert (await listener.chunk()).startswith(": ")
    told = server.tell("two\nlines")
    assert await listener.event() == msgspec.to_builtins(told)
    await server.control.register("fraud", "/m/1", version="v1")
    await server.control.switch("fraud", "v1")
    assert [(await listener.event())["kind"] for _ in range(2)] == ["version", "switch"]


async def test_commands_are_told_to_every_listener(server: Server) -> None:
    """A rollout's start and its abort, with the phase, to all who listen."""
    for version in ("v1", "v2"):
        await server.control.register("fraud", "/m", version=version)
    listeners = [await server.listener() for _ in range(20)]
    body = {"model": "fraud", "version": "v2", "strategy": "gradual"}
    view = await server.control.start_rollout(body)
    await server.control.command_rollout(view.id, "abort")
    for listener in listeners:
        phases = [(await listener.event())["data"]["phase"] for _ in range(2)]
        assert phases == ["Progressing", "RolledBack"]


async def test_a_client_that_was_away_gets_what_it_missed(server: Server) -> None:
    """By header or by query; the header, which browsers send when they reconnect, is newer."""
    for number in range(5):
        server.tell(str(number))
    resumed = await server.listener("Last-Event-ID: 3")
    assert [(await resumed.event())["id"] for _ in range(2)] == [4, 5]
    asked = await server.listener(query="?after=4")
    assert (await asked.event())["id"] == 5
    both = await server.listener("Last-Event-ID: 4", query="?after=0")
    assert (await both.event())["id"] == 5
    fresh = await server.listener()
    server.tell("now")
    for listener in (resumed, asked, both, fresh):
        assert (await listener.event())["message"] == "now"


async def test_a_quiet_stream_shows_that_it_lives(start: Start) -> None:
    """A comment, again and again, while nothing happens."""
    server = start(heartbeat=0.01)
    listener = await server.listener()
    assert [await listener.chunk() for _ in range(3)] == [": nothing new\n\n"] * 3
    server.tell("still here")
    assert (await listener.event())["message"] == "still here"


async def test_a_client_that_leaves_is_forgotten(server: Server) -> None:
    """Control hands it nothing any more."""
    listener = await server.listener()
    await _until(lambda: server.control.happenings.listeners == 1)
    assert server.app.state.listeners == 1
    listener.writer.transport.abort()
    await _until(lambda: server.control.happenings.listeners == 0)
    assert server.app.state.listeners == 0


async def test_one_that_does_not_read_stops_nobody_else(start: Start) -> None:
    """Others are told at once, and it is cut off after a while."""
    server = start(receive_timeout=0.2)
    slow = await server.connect()
    slow.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert (await slow.begin())[0] == 200
    slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
    quick = await server.listener()
    for _ in range(200):
        server.tell("x" * 100_000)
        assert (await quick.event())["kind"] == "alert"
    await _until(lambda: server.control.happenings.listeners == 1)


async def test_a_shutdown_ends_streams_at_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """In order, with the last chunk, and without anything being cancelled for taking too long."""
    listeners = [await server.listener() for _ in range(3)]
    with caplog.at_level(logging.WARNING):
        await server.stop()
    for listener in listeners:
        assert await listener.chunk() == ""
        assert await listener.reader.read() == b""
    assert caplog.records == []
    assert server.control.happenings.listeners == 0


async def test_a_stream_that_control_ends_is_ended_in_order(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is to ask again, from where it was."""

    async def failing(after: int | None = None) -> AsyncIterator[EventView]:
        yield server.tell("last")
        raise StoreError("gone")

    monkeypatch.setattr(server.control, "events", failing)
    listener = await server.listener()
    assert (await listener.event())["message"] == "last"
    assert await listener.chunk() == ""


async def test_frames_end_with_their_events() -> None:
    """And close them when they are closed themselves."""
    closed = []

    async def two() -> AsyncIterator[EventView]:
        try:
            yield EventView(1, 0.0, "alert", "m", "one")
            yield EventView(2, 0.0, "alert", "m", "two")
        finally:
            closed.append(True)

    stream = frames(two(), 60.0)
    assert [chunk.partition(b"\n")[0] async for chunk in stream][1:] == [b"id: 1", b"id: 2"]
    stream = frames(two(), 60.0)
    await anext(stream)
    await stream.aclose()
    assert closed == [True, True]


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?after=x", {}),
        ("?after=-1", {}),
        ("?after=1.5", {}),
        ("?after=" + "9" * 30, {}),
        ("?since=1", {}),
        ("", {"Last-Event-ID": "abc"}),
    ],
)
async def test_an_id_that_is_none_is_400(query: str, headers: dict[str, str]) -> None:
    """Rather than a stream that silently begins elsewhere."""
    transport = httpx2.ASGITransport(create_app(FakeControl()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get(URL + query, headers=headers)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


async def test_too_many_listeners_are_503() -> None:
    """Connections are left for commands."""
    app = create_app(FakeControl())
    app.state.listeners = LISTENERS
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get(URL)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
