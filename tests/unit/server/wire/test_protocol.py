"""The data plane's HTTP connections, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from unittest.mock import ANY

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.core.spec import Limits
from hotswap.server.app import DataApp
from hotswap.server.protocol import Connection
from hotswap.server.run import DataServer
from hotswap.server.shared import Shared
from hotswap.testing.fakes import FakePlane

BODY = msgspec.json.encode({"features": [float(n) for n in range(30)]})
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"

#: A limit that is never reached in a test, and one that is reached soon.
LONG, SOON = 60.0, 0.2


def post(body: bytes = BODY, *headers: str) -> bytes:
    lines = ["POST /predict HTTP/1.1", "Host: localhost:8080", f"Content-Length: {len(body)}"]
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

    async def refusal(self, status: int) -> str:
        """The sentence of an error that ends the connection."""
        got, headers, body = await self.response()
        assert got == status, body
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/json"
        assert await self.reader.read() == b""
        return str(msgspec.json.decode(body)["error"])

    def reset(self) -> None:
        self.writer.transport.abort()


class Site:
    """A server with a fake plane, and its clients."""

    def __init__(self, **limits: Any) -> None:
        defaults = {"receive_timeout": LONG, "keepalive_timeout": LONG}
        self.plane = FakePlane()
        self.lines: list[tuple[str, int]] = []
        self.app = DataApp(
            self.plane,
            Limits(**(defaults | limits)),
            access_log=lambda method, path, status, seconds, rid: self.lines.append((path, status)),
        )
        self.server = DataServer(self.app)
        self.wires: list[Wire] = []
        self.port = 0

    async def start(self) -> None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        await self.server.start([sock])

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire

    def open(self) -> list[Connection]:
        return list(self.server._shared.connections)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - the server has no event for each of them
            await asyncio.sleep(0.005)


Start = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    sites: list[Site] = []

    async def start_site(**limits: Any) -> Site:
        site = Site(**limits)
        sites.append(site)
        await site.start()
        return site

    yield start_site
    for site in sites:
        for wire in site.wires:
            wire.writer.close()
            with contextlib.suppress(OSError):
                await wire.writer.wait_closed()
        await site.server.close()


async def test_keep_alive_and_headers(start: Start) -> None:
    """Many requests on one connection, each with a date and a length."""
    site = await start()
    wire = await site.wire()
    for _ in range(3):
        wire.send(post())
        status, headers, body = await wire.response()
        assert status == 200
        assert msgspec.json.decode(body)["prediction"] == 1
        assert headers["date"].endswith("GMT")
        assert headers["x-hotswap-version"] == "v1"
        assert "connection" not in headers
    assert site.lines == [("/predict", 200)] * 3
    assert site.server.inflight == 0


async def test_byte_by_byte_and_chunked(start: Start) -> None:
    """A request may come in any pieces, chunked too, trailers ignored."""
    site = await start()
    wire = await site.wire()
    for byte in post():
        wire.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await wire.response())[0] == 200
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    wire.send(head + chunks + b"0\r\nX-Request-Id: trailer\r\n\r\n")
    status, headers, _ = await wire.response()
    assert status == 200
    assert headers["x-request-id"] != "trailer"


async def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    """Requests sent without waiting are answered one after the other."""
    site = await start()
    site.plane.fakes["demo"].gate = gate = asyncio.Event()
    wire = await site.wire()
    wire.send(b"".join(post(BODY, f"x-request-id: {n}") for n in range(50)) + LIVE)
    await site.until(lambda: site.plane.waiting == 1)
    assert site.server.inflight > 1
    gate.set()
    for number in range(50):
        status, headers, _ = await wire.response()
        assert (status, headers["x-request-id"]) == (200, str(number))
    assert (await wire.response())[2] == b'{"live":true}'
    assert site.server.inflight == 0


async def test_http_10_and_connection_close(start: Start) -> None:
    """HTTP/1.0 and Connection: close end the connection after the answer; HEAD has no body."""
    site = await start()
    for request in (
        b"GET /v2/health/live HTTP/1.0\r\n\r\n",
        b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ):
        wire = await site.wire()
        wire.send(request)
        status, headers, body = await wire.response()
        assert (status, headers["connection"], body) == (200, "close", b'{"live":true}')
        assert await wire.reader.read() == b""
    wire = await site.wire()
    wire.send(LIVE.replace(b"GET", b"HEAD"))
    head = await wire.reader.readuntil(b"\r\n\r\n")
    assert b"content-length: 13" in head
    wire.send(LIVE)
    assert (await wire.response())[2] == b'{"live":true}'


async def test_upgrade_offers_are_answered_as_plain_http(start: Start) -> None:
    """An offer to upgrade is ignored: the request is answered, the connection closed."""
    site = await start()
    wire = await site.wire()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
    wire.send(LIVE[:-2] + offer)
    status, headers, _ = await wire.response()
    assert (status, headers["connection"]) == (200, "close")
    assert await wire.reader.read() == b""
    wire = await site.wire()
    wire.send(post(BODY, "Connection: Upgrade", "Upgrade: websocket"))
    assert "Upgrade" in await wire.refusal(400)


async def test_expect_continue(start: Start) -> None:
    """A sender that asks first is asked for its body; a body too large is refused instead."""
    site = await start(body_bytes=1000)
    wire = await site.wire()
    request = post(BODY, "Expect: 100-continue")
    wire.send(request[: -len(BODY)])
    assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(BODY)
    assert (await wire.response())[0] == 200
    wire.send(post(b" " * 1001, "Expect: 100-continue")[:-1001])
    assert "1000" in await wire.refusal(413)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a/b?x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: \r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: u@a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: 2\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\r\nX-Request-Id: b\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    ],
)
async def test_what_the_parser_refuses(start: Start, request_bytes: bytes) -> None:
    """Malformed, ambiguous and smuggled requests are one JSON 400, then the end."""
    site = await start()
    wire = await site.wire()
    wire.send(request_bytes)
    assert await wire.refusal(400)
    assert not site.plane.calls


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:80", "a-b.example_1.org"])
async def test_hosts_that_are_fine(start: Start, host: str) -> None:
    """Names, addresses and ports are accepted."""
    site = await start()
    wire = await site.wire()
    wire.send(LIVE.replace(b"Host: x", b"Host: " + host.encode()))
    assert (await wire.response())[0] == 200


async def test_header_limits(start: Start) -> None:
    """Too many headers, too long ones, endless ones and endless paths are 431."""
    site = await start(header_bytes=4096, header_count=20)
    many = b"".join(b"A%d: b\r\n" % n for n in range(10_000))
    for request in (
        b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + many,
        b"GET /v2 HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 5000 + b"\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20_000,
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 20_000,
    ):
        wire = await site.wire()
        wire.send(request)
        assert await wire.refusal(431)
    wire = await site.wire()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    wire.send(head + many)
    assert await wire.refusal(431)
    assert not site.plane.calls


async def test_a_head_that_came_with_the_end_of_a_large_body(start: Start) -> None:
    """What one read holds of the request before is not counted as the next one's head."""
    site = await start(header_bytes=4096)
    wire = await site.wire()
    body = BODY + b" " * 60_000
    half = len(LIVE) // 2
    sent = post(body)
    wire.send(sent[:200])
    await site.until(lambda: any(each.receiving for each in site.open()))
    (connection,) = site.open()
    # As one read: how the loop would divide it depends on the machine.
    connection.data_received(sent[200:] + LIVE[:half])
    wire.send(LIVE[half:])
    assert (await wire.response())[0] == 200
    assert await wire.response() == (200, ANY, b'{"live":true}')
    wire.send(LIVE[:-2] + b"A: " + b"b" * 20_000)
    assert await wire.refusal(431)


async def test_body_limit(start: Start) -> None:
    """A body over the limit is a 413 before it was received, with and without a length."""
    site = await start(body_bytes=1000)
    wire = await site.wire()
    wire.send(post(b" " * 2000)[:-2000])
    assert "1000" in await wire.refusal(413)
    wire = await site.wire()
    wire.send(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(30):
        wire.send(b"64\r\n" + b" " * 100 + b"\r\n")
    assert await wire.refusal(413)
    wire = await site.wire()
    wire.send(post(b" " * 10)[:-10].replace(b"10\r\n", b"9" * 30 + b"\r\n"))
    assert (await wire.response())[0] in (400, 413)
    assert site.server.inflight == 0


async def test_refusal_waits_for_the_answer_before_it(start: Start) -> None:
    """A bad request behind a good one does not take the good one's answer."""
    site = await start()
    site.plane.fakes["demo"].gate = gate = asyncio.Event()
    wire = await site.wire()
    wire.send(post() + b"NONSENSE\r\n\r\n")
    await site.until(lambda: site.plane.waiting == 1)
    gate.set()
    assert (await wire.response())[0] == 200
    assert await wire.refusal(400)


@pytest.mark.parametrize(
    "start_of_request",
    [b"P", b"POST /predict HTTP/1.1\r\nHos", post()[: -len(BODY)], post()[:-1]],
)
async def test_receipt_deadline(start: Start, start_of_request: bytes) -> None:
    """A request that does not end in time is a 408, however busily its bytes come."""
    site = await start(receive_timeout=SOON)
    wire = await site.wire()
    wire.send(start_of_request)
    assert "to arrive" in await wire.refusal(408)
    assert not site.plane.calls


async def test_receipt_deadline_is_not_reset_by_bytes(start: Start) -> None:
    """A sender of one byte at a time is cut off at the same deadline."""
    site = await start(receive_timeout=SOON)
    wire = await site.wire()
    wire.send(post(b" " * 10**6)[: -(10**6)])

    async def drip() -> None:
        while True:
            wire.send(b" ")
            await asyncio.sleep(SOON / 20)

    dripping = asyncio.create_task(drip())
    status, _, _ = await wire.response()
    dripping.cancel()
    assert status == 408


async def test_silent_and_idle_connections_are_closed(start: Start) -> None:
    """A connection that sends nothing is closed, and so is one that stays idle."""
    site = await start(receive_timeout=SOON)
    wire = await site.wire()
    assert await wire.reader.read() == b""
    site = await start(keepalive_timeout=SOON)
    wire = await site.wire()
    wire.send(LIVE)
    await wire.response()
    assert await wire.reader.read() == b""


async def test_a_slow_answer_is_not_a_slow_request(start: Start) -> None:
    """The receipt deadline does not cut off a request that is being answered."""
    site = await start(receive_timeout=SOON, keepalive_timeout=SOON)
    site.plane.fakes["demo"].gate = gate = asyncio.Event()
    wire = await site.wire()
    wire.send(post())
    await site.until(lambda: site.plane.waiting == 1)
    other = await site.wire()
    assert await other.reader.read() == b""  # the sweeper has been here since
    gate.set()
    assert (await wire.response())[0] == 200


async def test_disconnect_cancels_the_prediction(start: Start) -> None:
    """A client that is gone frees what it was waiting for, and what it had queued."""
    site = await start()
    site.plane.fakes["demo"].gate = asyncio.Event()
    wire = await site.wire()
    wire.send(post() * 3)
    await site.until(lambda: site.plane.waiting == 1)
    wire.reset()
    # Reading is paused behind a pipelined request: what is still unread hides the disconnect.
    other = await site.wire()
    other.send(post())
    await site.until(lambda: site.plane.waiting >= 1)
    other.reset()
    await site.until(lambda: site.plane.cancelled >= 1)
    site.plane.fakes["demo"].gate.set()
    await site.until(lambda: site.server.inflight == 0 and site.server.connections == 0)
    assert site.plane.held == 0


async def test_connection_cap(start: Start) -> None:
    """One connection too many is a 503 with Retry-After; the others go on."""
    site = await start(connections=2)
    wires = [await site.wire() for _ in range(2)]
    for wire in wires:
        wire.send(LIVE)
        assert (await wire.response())[0] == 200
    extra = await site.wire()
    status, headers, _ = await extra.response()
    assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
    for wire in wires:
        wire.send(LIVE)
        assert (await wire.response())[0] == 200
    wires[0].writer.close()
    extra.writer.close()
    await site.until(lambda: site.server.connections == 1)
    wire = await site.wire()
    wire.send(LIVE)
    assert (await wire.response())[0] == 200


async def test_drain(start: Start) -> None:
    """Draining: not ready, every answer closes, what is in flight ends, then all is closed."""
    site = await start()
    site.plane.fakes["demo"].gate = gate = asyncio.Event()
    busy, idle = await site.wire(), await site.wire()
    busy.send(post())
    idle.send(LIVE)
    await idle.response()
    await site.until(lambda: site.plane.waiting == 1)
    site.server.begin_drain()
    assert not await site.server.wait_idle(0.01)
    idle.send(LIVE.replace(b"live", b"ready"))
    assert "draining" in await idle.refusal(503)
    late = await site.wire()
    late.send(LIVE)
    assert (await late.response())[1]["connection"] == "close"
    site.server.stop_accepting()
    waiting = asyncio.create_task(site.server.wait_idle(30))
    gate.set()
    status, headers, _ = await busy.response()
    assert (status, headers["connection"]) == (200, "close")
    assert await waiting
    assert await site.server.wait_idle(0)
    with pytest.raises(OSError, match=r"refused|Connect"):
        await site.wire()
    await site.server.close()
    await site.until(lambda: site.server.connections == 0)


async def test_drain_answers_what_was_received(start: Start) -> None:
    """Requests received whole before the end of a drain are all answered, the last one closing;
    one that is still arriving is waited for."""
    site = await start()
    site.plane.fakes["demo"].gate = gate = asyncio.Event()
    wire, slow = await site.wire(), await site.wire()
    wire.send(post() * 3)
    slow.send(post()[:-1])
    shared = site.server._shared
    await site.until(lambda: any(each.receiving for each in shared.connections))
    await site.until(lambda: site.plane.waiting == 1)
    site.server.begin_drain()
    gate.set()
    closing = [(await wire.response())[1].get("connection") for _ in range(3)]
    assert closing == [None, None, "close"]
    await site.until(lambda: site.server.inflight == 0)
    assert not await site.server.wait_idle(0.01)
    waiting = asyncio.create_task(site.server.wait_idle(30))
    slow.send(post()[-1:])
    assert (await slow.response())[0] == 200
    assert await waiting


class Memory(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.ended = False

    def write(self, data: Any) -> None:
        self.data += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


PIECES = st.sampled_from(
    [
        *(LIVE, post(), b"POST /predict HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"\0", b"GET "),
        *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"2\r\n{}\r\n", b"/ "),
        *(b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"Expect: 100-continue\r\n"),
        *(b"0\r\n\r\n", b"HTTP/1.1\r\n"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=8), max_size=8), st.integers(1, 400))
def test_any_bytes(pieces: list[bytes], size: int) -> None:
    """Whatever comes, in whatever pieces: no failure of ours, and nothing is left in flight."""

    async def feed() -> None:
        plane = FakePlane()
        shared = Shared(DataApp(plane), Limits(header_bytes=500, body_bytes=500))
        connection = Connection(shared, asyncio.get_running_loop())
        transport = Memory()
        connection.connection_made(transport)
        data = b"".join(pieces)
        for at in range(0, len(data), size):
            connection.data_received(data[at : at + size])
            await asyncio.sleep(0)
        for _ in range(2 * len(pieces) + 4):
            await asyncio.sleep(0)
        assert b"HTTP/1.1 500" not in transport.data
        connection.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert shared.inflight == 0
        assert plane.held == 0
        assert not shared.connections

    asyncio.run(feed())


async def test_close_cancels_what_is_left(start: Start) -> None:
    """Closing ends requests that did not end by themselves."""
    site = await start()
    site.plane.fakes["demo"].gate = asyncio.Event()
    wire = await site.wire()
    wire.send(post())
    await site.until(lambda: site.plane.waiting == 1)
    await site.server.close()
    assert await wire.reader.read() == b""
    await site.until(lambda: site.server.inflight == 0)
    assert site.plane.held == 0


async def test_large_answer_to_a_slow_reader_is_whole(start: Start) -> None:
    """An answer larger than the socket's buffers reaches a client that reads late, to its end."""
    site = await start(json_bytes=1 << 25)
    wire = await site.wire()
    rows = 200_000
    site.plane.record = False
    wire.send(
        post(
            b'{"features":[' + b",".join([b"[" + b",".join([b"1"] * 30) + b"]"] * rows) + b"]}",
            "Connection: close",
        )
    )
    await wire.writer.drain()
    status, _, body = await wire.response()
    assert status == 200
    assert len(msgspec.json.decode(body)["predictions"]) == rows
    assert await wire.reader.read() == b""


async def test_a_client_that_never_reads_is_cut_off(start: Start) -> None:
    """Answers that nobody takes do not hold a connection for ever."""
    site = await start(receive_timeout=SOON)
    sock = socket.create_connection(("127.0.0.1", site.port))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        for _ in range(200):
            requests = LIVE.replace(b"/v2/health/live", b"/openapi.json") * 100
            await asyncio.wait_for(loop.sock_sendall(sock, requests), SOON)
            if site.server.connections == 0 and site.lines:
                break
    await site.until(lambda: site.server.connections == 0)
    sock.close()


async def test_percent_encoding_is_decoded_once(start: Start) -> None:
    """An encoded path is its plain one; a doubly encoded one is not."""
    site = await start()
    wire = await site.wire()
    for path, status in (
        (b"/v2/models/d%65mo", 200),
        (b"/v2/models/d%2565mo", 404),
        (b"/v2/models/%252e%252e%252fdemo", 404),
        (b"/v2/models/demo?x=1", 200),
        (b"/v2/models/%ff%00", 404),
        (b"http://x/v2/models/demo", 200),
    ):
        wire.send(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await wire.response())[0] == status, path
