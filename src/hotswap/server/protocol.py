"""One HTTP/1.1 connection of the data plane, straight from httptools to `DataApp.respond`.

A request is handed over whole, as one task, and its answer is one write: no scope, no events,
no messages between the two. What bounds a hostile or slow sender is here too: one absolute
deadline for receiving a request, limits on the request line, headers and body, JSON errors for
all that the parser refuses, and a cap on connections.
"""

from __future__ import annotations

import asyncio
import http
import logging
import re
import time
from collections import deque
from typing import Final, cast
from urllib.parse import unquote

import httptools

from hotswap.core.spec import Limits
from hotswap.errors import (
    BadInput,
    HeadersTooLarge,
    HotswapError,
    ReceiveTimeout,
    TooLarge,
    Unavailable,
)
from hotswap.server.errors import translate
from hotswap.server.messages import JSON_TYPE, READ_HEADERS, Answer, Request, keep_header
from hotswap.server.shared import Shared

log = logging.getLogger("hotswap.server")

#: The request line's limit in bytes; it counts as a header.
TARGET_BYTES: Final = 8192
#: How long a refused sender's bytes are still read and dropped, so that it sees the refusal.
_LINGER: Final = 2.0
_KNOWN_HOSTS: Final = 256
_NEVER: Final = float("inf")

_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """Reads requests, hands each to the application, writes the answers in order.

    ``deadline`` (monotonic seconds) is when the sweeper acts on it: for a request that is
    arriving, its receipt deadline; between requests, the keep-alive limit; while one is being
    answered, never. ``receiving``: a request has begun to arrive and has not ended.
    """

    __slots__ = (
        "_arrived",
        "_body",
        "_discarding",
        "_has_body",
        "_head_bytes",
        "_head_raw",
        "_header_count",
        "_headers",
        "_headers_done",
        "_hosts",
        "_keep_alive",
        "_loop",
        "_parser",
        "_paused",
        "_queue",
        "_refused",
        "_running",
        "_task",
        "_transport",
        "_unsent",
        "_url",
        "_wants_continue",
        "_writable",
        "deadline",
        "receiving",
        "shared",
    )

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        self.shared = shared
        self.deadline = time.monotonic() + shared.limits.receive_timeout
        self._loop = loop
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        # (request, keep-alive) or a ready answer, which is always the last.
        self._queue: deque[tuple[Request | Answer, bool]] = deque()
        self._paused = False
        self._discarding = False
        self._refused = False
        self._writable: asyncio.Event | None = None
        self._arrived = 0.0
        self._headers_done = False
        self._head_bytes = 0
        self._head_raw: int | None = 0
        self._header_count = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._hosts: list[bytes] = []
        self._body: bytes | bytearray = b""
        self.receiving = False
        self._has_body = False
        self._running = False
        self._unsent = 0
        self._keep_alive = True
        self._wants_continue = False

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it if there are too many."""
        # uvloop does not derive its transports from asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        shared = self.shared
        full = len(shared.connections) >= shared.limits.connections
        shared.connections.add(self)
        if full:
            self._refuse(Unavailable("This server has too many connections; try again soon."))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: what it asked for is cancelled."""
        self.shared.connections.discard(self)
        self._parser = None
        self._transport = None
        self._drop_queue()
        if self._writable is not None:
            self._writable.set()
        if self._task is not None:
            self._task.cancel()
            if not self._running:
                # A task cancelled before its first step runs none of its code.
                self.shared.done()

    def eof_received(self) -> None:
        """The client ended its side: the transport closes."""

    def _drop_queue(self) -> None:
        for item, _ in self._queue:
            if isinstance(item, Request):
                self.shared.done()
        self._queue.clear()

    def pause_writing(self) -> None:
        """The client reads slowly: the next answer waits."""
        self._writable = asyncio.Event()
        self._watch_writing()

    def _watch_writing(self) -> None:
        """A client that reads nothing of what is sent would hold the connection for ever."""
        if self._transport is not None:
            self._unsent = self._transport.get_write_buffer_size()
            self.deadline = time.monotonic() + self.shared.limits.receive_timeout

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        self._rest()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._discarding or self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Its request is answered as plain HTTP; what follows it is in no language of ours.
            self._refused = True
        except httptools.HttpParserError:
            self._refuse(BadInput("This is not a valid HTTP/1.1 request."))
        else:
            if self.receiving and not self._headers_done and not self._refused:
                self._count_head(len(data))

    def _count_head(self, received: int) -> None:
        """Bound a head that has not ended: the parser only tells of whole headers.

        Behind a request that is being answered, the read that it began in does not count: it may
        hold the end of that one.
        """
        self._head_raw = 0 if self._head_raw is None else self._head_raw + received
        if self._head_raw > self.shared.limits.header_bytes + TARGET_BYTES:
            self._refuse(HeadersTooLarge())

    # What the parser calls.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._arrived = time.monotonic()
        self._url = b""
        self._headers = {}
        self._hosts = []
        self._headers_done = False
        self._head_bytes = 0
        self._head_raw = 0 if self._task is None else None
        self._header_count = 0
        self._wants_continue = False
        self._body = b""
        self.receiving = True
        self._has_body = False
        if self._task is None:
            self.deadline = self._arrived + self.shared.limits.receive_timeout
        elif not self._paused and self._transport is not None:
            # The next request waits in the kernel until this one is answered.
            self._paused = True
            self._transport.pause_reading()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url
        if len(self._url) > TARGET_BYTES:
            self._refuse(HeadersTooLarge(f"The path is longer than {TARGET_BYTES} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer, which counts and is otherwise ignored."""
        limits = self.shared.limits
        self._header_count += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._header_count > limits.header_count or self._head_bytes > limits.header_bytes:
            if not self._refused:
                self._refuse(HeadersTooLarge())
            return
        if self._headers_done:
            return
        name = name.lower()
        if name in READ_HEADERS:
            try:
                keep_header(self._headers, name, value)
            except HotswapError as exc:
                self._refuse(exc)
        elif name == b"host":
            self._hosts.append(value)
        elif name == b"content-length":
            self._has_body = value != b"0"
            if len(value) > 18 or int(value) > limits.body_bytes:
                self._refuse(_too_large(limits))
        elif name == b"transfer-encoding":
            self._has_body = True
        elif name == b"expect":
            self._wants_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """The head is whole: refuse early what will be refused anyway."""
        self._headers_done = True
        if self._refused or self._parser is None:
            return
        parser = self._parser
        upgrade = parser.should_upgrade()
        self._keep_alive = parser.should_keep_alive() and not upgrade
        if upgrade and self._has_body:
            # The parser does not read the body of a request that offers to upgrade.
            self._refuse(BadInput("Send a request with a body without an Upgrade header."))
            return
        hosts = self._hosts
        if len(hosts) != 1 or hosts[0] not in self.shared.hosts:
            self._check_host(hosts)
        if self._wants_continue and self._task is None:
            self._invite()

    def _invite(self) -> None:
        """Ask for the body of a request that waits to be asked, unless it was refused."""
        if self._transport is not None and not self._refused:
            self._transport.write(_CONTINUE)

    def _check_host(self, hosts: list[bytes]) -> None:
        assert self._parser is not None
        if not hosts and self._parser.get_http_version() == "1.0":
            return
        if len(hosts) != 1 or _HOST.fullmatch(hosts[0]) is None:
            self._refuse(BadInput("Send one Host header with a host name and, if needed, a port."))
        elif len(self.shared.hosts) < _KNOWN_HOSTS:
            self.shared.hosts.add(hosts[0])

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._refused:
            return
        if not self._body:
            self._body = body
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        limits = self.shared.limits
        if len(self._body) > limits.body_bytes:
            self._body = b""
            self._refuse(_too_large(limits))

    def on_message_complete(self) -> None:
        """The request is whole: answer it, or let it wait for its turn."""
        self.receiving = False
        if self._refused or self._parser is None:
            return
        try:
            path = _path(self._url)
        except BadInput as exc:
            self._refuse(exc)
            return
        method = self._parser.get_method().decode("ascii")
        request = Request(method, path, self._headers, bytes(self._body), self._arrived)
        self.shared.inflight += 1
        if self._task is None:
            self._start(request, self._keep_alive)
        else:
            self._queue.append((request, self._keep_alive))

    # Answering.

    def _start(self, request: Request, keep_alive: bool) -> None:
        self.deadline = _NEVER
        self._task = self._loop.create_task(self._answer(request, keep_alive))

    async def _answer(self, request: Request, keep_alive: bool) -> None:
        shared = self.shared
        self._running = True
        try:
            answer = await shared.app.respond(request)
            if self._writable is not None:
                self._watch_writing()
                await self._writable.wait()
            stay = keep_alive and (bool(self._queue) or not shared.draining)
            if self._transport is not None:
                self._write(answer, stay, request.method == "HEAD")
        except Exception:
            log.exception("an answer could not be sent")
            stay = False
            self.shutdown()
        finally:
            self._task = None
            self._running = False
            shared.done()
        if self._transport is not None:
            self._next(stay)

    def _write(self, answer: Answer, keep_alive: bool, head: bool = False) -> None:
        assert self._transport is not None
        parts = [STATUS_LINES[answer.status]]
        for name, value in answer.headers:
            parts += (name, b": ", value, b"\r\n")
        body = answer.body
        parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(self.shared.date)
        parts.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
        if not head:
            parts.append(body)
        self._transport.write(b"".join(parts))

    def _next(self, keep_alive: bool) -> None:
        """After an answer: the request that waited, or the next one's deadline, or the end."""
        if not keep_alive:
            self._drop_queue()
            self._linger()
            return
        if self._queue:
            item, again = self._queue.popleft()
            if isinstance(item, Request):
                self._start(item, again)
            else:
                self._write(item, keep_alive=False)
                self._linger()
            return
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        self._rest()

    def _rest(self) -> None:
        """Set the deadline for what is awaited now: the rest of a request, or the next one."""
        if self._task is not None or self._discarding:
            return
        limits = self.shared.limits
        self.deadline = time.monotonic() + (
            limits.receive_timeout if self.receiving else limits.keepalive_timeout
        )

    # Refusing and closing.

    def _refuse(self, exc: HotswapError) -> None:
        """Answer with an error after what is in flight, and read no further request."""
        if self._refused:
            return
        self._refused = True
        status, extra, body = translate(exc)
        answer = Answer(status, (JSON_TYPE, *extra), body)
        app = self.shared.app
        if app.access_log is not None:
            app.access_log("-", "-", status, 0.0, "")
        if self._task is not None:
            self._queue.append((answer, False))
        elif self._transport is not None:
            self._write(answer, keep_alive=False)
            self._linger()

    def _linger(self) -> None:
        """Close in order: end our side, and drop what still comes for a moment.

        Closing at once, with bytes unread, would reset the connection and could take the
        answer away from the client.
        """
        transport = self._transport
        if transport is None or self._discarding:
            return
        self._discarding = True
        self._body = b""
        self._unsent = transport.get_write_buffer_size()
        self.deadline = time.monotonic() + _LINGER
        if transport.can_write_eof():
            transport.write_eof()
            if self._paused:
                self._paused = False
                transport.resume_reading()
        else:
            transport.close()

    def expire(self) -> None:
        """The deadline has passed."""
        transport = self._transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            # A slow reader, but a reader.
            self._unsent = unsent
            self.deadline = time.monotonic() + self.shared.limits.receive_timeout
        elif unsent or self._discarding:
            transport.abort()
        elif self.receiving:
            seconds = self.shared.limits.receive_timeout
            self._refuse(ReceiveTimeout(f"The request took longer than {seconds:g} s to arrive."))
        else:
            transport.close()

    def shutdown(self) -> None:
        """Close now, whatever is in flight."""
        if self._transport is not None:
            self._transport.close()


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"The body is larger than {limits.body_bytes} bytes.")


def _path(target: bytes) -> str:
    """The target's path, percent-decoded once. Raises `BadInput`."""
    try:
        path = httptools.parse_url(target).path
    except httptools.HttpParserError:
        path = None
    if not path:
        raise BadInput("The request's target is not a valid path.")
    text: str = path.decode("latin-1")
    return unquote(text) if "%" in text else text
