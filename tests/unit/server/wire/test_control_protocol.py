"""The control plane's HTTP connections, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import uvicorn

from hotswap.core.spec import Limits
from hotswap.server.control_protocol import control_protocol
from hotswap.server.guard import Guard, Receive, Scope, Send

GET = b"GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = GET.replace(b"quick", b"slow")

#: A limit that is never reached in a test, and one that is reached soon.
LONG, SOON = 60.0, 0.2


def post(body: bytes, *headers: str, path: str = "/quick") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


class Wire:
    """One client connection that reads responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(status.split()[1]), headers, body

    async def ok(self) -> str:
        status, _, body = await self.response()
        assert status == 200, body
        return body.decode()

    async def refusal(self, status: int) -> str:
        """The sentence of an error that ends the connection."""
        got, headers, body = await self.response()
        assert got == status, body
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/json"
        assert await self.reader.read() == b""
        return str(msgspec.json.decode(body)["error"])


class Site:
    """uvicorn with our protocol over a small application, and its clients.

    ``/slow`` answers when ``release`` is set, ``/early`` before its body is read, ``/big`` with
    ``big`` bytes, all else at once. ``seen``: the paths asked for. The `Guard` is in front.
    """

    def __init__(self, connections: int = 512, **limits: Any) -> None:
        defaults = {"receive_timeout": LONG, "keepalive_timeout": LONG}
        protocol = control_protocol(Limits(**(defaults | limits)), connections)
        config = uvicorn.Config(
            self.app, log_config=None, access_log=False, lifespan="off", http=protocol, ws="none",
            interface="asgi3",
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.release = asyncio.Event()
        self.seen: list[str] = []
        self.big = 0
        self.wires: list[Wire] = []
        self.port = 0
        self.task: asyncio.Task[None] | None = None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/early":
            await self.answer(scope, receive, send)
        else:
            await Guard(self.answer, max_body=1000)(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        if scope["path"] == "/slow":
            await self.release.wait()
        body = b"x" * self.big if scope["path"] == "/big" else scope["path"].encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def start(self) -> None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        self.port = sock.getsockname()[1]
        self.task = asyncio.create_task(self.server._serve([sock]))
        await self.until(lambda: self.server.started)

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - the server has no event for each of them
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self.release.set()
        for wire in self.wires:
            wire.writer.transport.abort()
        self.server.should_exit = True
        self.server.force_exit = True
        if self.task is not None:
            await self.task


Start = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    sites: list[Site] = []

    async def start_site(**options: Any) -> Site:
        site = Site(**options)
        sites.append(site)
        await site.start()
        return site

    yield start_site
    for site in sites:
        await site.stop()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused_in_json(start: Start, garbage: bytes) -> None:
    """A 400 with an error's usual body, and the end of the connection."""
    wire = await (await start()).wire()
    wire.send(garbage)
    assert "HTTP/1.1" in await wire.refusal(400)


async def test_bad_bytes_in_a_body_are_refused_in_json(start: Start) -> None:
    """A broken chunk ends the request that was waiting for it; the application is not asked."""
    site = await start()
    wire = await site.wire()
    wire.send(b"POST /quick HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    wire.send(b"2\r\n{}\r\n")
    wire.send(b"zz\r\n")
    await wire.refusal(400)
    assert site.seen == []


async def test_many_or_long_headers_are_refused(start: Start) -> None:
    """By their count, by their bytes, by one that does not end, and by the path's length."""
    site = await start(header_count=10, header_bytes=2000)
    head = b"GET /quick HTTP/1.1\r\nHost: localhost\r\n"
    for more in (b"a: b\r\n" * 10 + b"\r\n", b"a: " + b"b" * 2000 + b"\r\n\r\n"):
        wire = await site.wire()
        wire.send(head + more)
        await wire.refusal(431)
    wire = await site.wire()
    wire.send(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert "path" in await wire.refusal(431)
    wire = await site.wire()
    wire.send(head + b"a: ")
    with contextlib.suppress(ConnectionError):
        for _ in range(64):
            wire.send(b"b" * 1000)
            await asyncio.sleep(0)
    await wire.refusal(431)
    assert site.seen == []


async def test_bytes_do_not_prolong_the_receipt_of_a_head_or_body(start: Start) -> None:
    """The deadline is the whole request's: one byte now and then is a 408 all the same."""
    site = await start(receive_timeout=SOON)
    for begin in (GET[:-2] + b"a: ", post(b"x" * 99)[:-90]):
        wire = await site.wire()
        wire.send(begin)

        async def trickle(wire: Wire = wire) -> None:
            with contextlib.suppress(RuntimeError, ConnectionError):
                while True:
                    wire.send(b" ")
                    await asyncio.sleep(SOON / 10)

        trickling = asyncio.create_task(trickle())
        assert "0.2 s" in await wire.refusal(408)
        trickling.cancel()
    assert site.seen == []


async def test_a_connection_that_says_nothing_is_closed(start: Start) -> None:
    """Nothing, or only empty lines: there is no request to answer, so it ends without words."""
    site = await start(receive_timeout=SOON)
    silent, newlines = await site.wire(), await site.wire()
    newlines.send(b"\r\n\r\n")
    assert await silent.reader.read() == b""
    assert await newlines.reader.read() == b""


async def test_a_long_answer_is_not_cut(start: Start) -> None:
    """The receipt deadline ends with the request's last byte, however long the answer takes."""
    site = await start(receive_timeout=SOON, keepalive_timeout=SOON)
    wire = await site.wire()
    wire.send(post(b"{}", path="/slow"))
    await asyncio.sleep(2.5 * SOON)
    site.release.set()
    assert await wire.ok() == "/slow"


async def test_a_request_behind_a_long_answer_has_its_own_deadline(start: Start) -> None:
    """What is received in part while another is answered is timed from that answer on."""
    site = await start(receive_timeout=SOON)
    wire = await site.wire()
    wire.send(SLOW + GET[:20])
    await site.until(lambda: site.seen == ["/slow"])
    await asyncio.sleep(2 * SOON)
    site.release.set()
    assert await wire.ok() == "/slow"
    await wire.refusal(408)


async def test_requests_on_one_connection_each_have_a_deadline(start: Start) -> None:
    """Keep-alive: time that passed before or between requests does not count."""
    site = await start(receive_timeout=3 * SOON)
    wire = await site.wire()
    for _ in range(3):
        await asyncio.sleep(2 * SOON)
        wire.send(GET)
        assert await wire.ok() == "/quick"


async def test_idle_connections_are_closed(start: Start) -> None:
    """After the keep-alive limit, which empty lines do not prolong."""
    site = await start(keepalive_timeout=SOON)
    wire = await site.wire()
    wire.send(GET)
    assert await wire.ok() == "/quick"
    wire.send(b"\r\n")
    assert await wire.reader.read() == b""


async def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    """And what is refused behind them comes last, and cuts none of them."""
    site = await start()
    wire = await site.wire()
    wire.send(SLOW + GET + post(b"{}", path="/third") + b"nonsense\r\n\r\n")
    await site.until(lambda: site.seen == ["/slow"])
    site.release.set()
    assert [await wire.ok() for _ in range(3)] == ["/slow", "/quick", "/third"]
    await wire.refusal(400)


async def test_a_sender_that_never_waits_does_not_fill_the_memory(start: Start) -> None:
    """While requests wait, no more of them are read."""
    site = await start()
    wire = await site.wire()
    wire.send(SLOW + GET * 200_000)
    await site.until(lambda: site.seen == ["/slow"])
    site.release.set()
    for expected in ["/slow", *["/quick"] * 50]:
        assert await wire.ok() == expected
    (connection,) = site.server.server_state.connections
    assert len(getattr(connection, "pipeline")) < 20_000  # noqa: B009 - of one of two types


async def test_a_body_that_is_refused_early_does_not_cost_the_answer(start: Start) -> None:
    """The client that is still sending reads the 413, not a reset connection."""
    site = await start()
    wire = await site.wire()
    wire.send(post(b"x" * 3_000_000))
    assert "1000 bytes" in await wire.refusal(413)


async def test_an_answer_before_its_body_leaves_the_body_a_deadline(start: Start) -> None:
    """What was answered is not answered again: the connection just ends."""
    site = await start(receive_timeout=SOON)
    wire = await site.wire()
    wire.send(post(b"x" * 100, path="/early")[:-50])
    assert await wire.ok() == "/early"
    assert await wire.reader.read() == b""


async def test_one_connection_too_many_is_refused(start: Start) -> None:
    """503 with Retry-After; when one ends, the next is taken."""
    site = await start(connections=2)
    first, second, third = [await site.wire() for _ in range(3)]
    status, headers, _ = await third.response()
    assert (status, headers["retry-after"]) == (503, "1")
    for wire in (first, second):
        wire.send(GET)
        assert await wire.ok() == "/quick"
    third.writer.close()
    first.writer.close()
    await site.until(lambda: len(site.server.server_state.connections) == 1)
    again = await site.wire()
    again.send(GET)
    assert await again.ok() == "/quick"


async def test_an_offer_to_upgrade_is_declined(start: Start) -> None:
    """Answered as plain HTTP, and the connection closes; with a body it is refused."""
    site = await start()
    wire = await site.wire()
    wire.send(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00")
    status, headers, body = await wire.response()
    assert (status, headers["connection"], body) == (200, "close", b"/quick")
    assert await wire.reader.read() == b""
    wire = await site.wire()
    wire.send(post(b"{}", "Connection: Upgrade", "Upgrade: h2c"))
    assert "Upgrade" in await wire.refusal(400)


async def test_the_body_is_asked_for_where_a_client_waits(start: Start) -> None:
    """Expect: 100-continue, as curl sends it."""
    site = await start()
    wire = await site.wire()
    request = post(b"{}", "Expect: 100-continue")
    wire.send(request[:-2])
    assert (await wire.response())[0] == 100
    wire.send(request[-2:])
    assert await wire.ok() == "/quick"


async def test_a_reader_that_does_not_read_is_cut_off(start: Start) -> None:
    """Its unsent answer is not kept for ever."""
    site = await start(receive_timeout=SOON)
    site.big = 50_000_000
    wire = await site.wire()
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    wire.send(GET.replace(b"quick", b"big"))
    await site.until(lambda: site.seen == ["/big"])
    await site.until(lambda: not site.server.server_state.connections)


async def test_a_client_that_leaves_in_mid_request_leaves_nothing(start: Start) -> None:
    """Neither a connection nor a task."""
    site = await start()
    wire = await site.wire()
    wire.send(post(b"{}")[:-1])
    state = site.server.server_state
    await site.until(lambda: len(state.tasks) == 1)
    wire.writer.transport.abort()
    await site.until(lambda: not state.connections and not state.tasks)
