"""One HTTP/1.1 connection of the control plane: uvicorn's, with the bounds that it does not have.

What is refused before the application sees it is JSON here too (`{"error": …}`): what is not
HTTP (400), a head that is too large (431), a request that takes too long to arrive (408), one
connection too many (503). The deadline for receiving ends with the request's last byte: an
answer, such as that to a switch, may take as long as it needs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, ClassVar, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hotswap.core.spec import Limits
from hotswap.errors import (
    BadInput,
    HeadersTooLarge,
    HotswapError,
    ReceiveTimeout,
    Unavailable,
)
from hotswap.server.errors import translate
from hotswap.server.guard import SECURITY_HEADERS
from hotswap.server.messages import JSON_TYPE
from hotswap.server.protocol import STATUS_LINES, TARGET_BYTES

log = logging.getLogger("hotswap.server")

#: Most open connections. Operators and scrapers are few; each costs a descriptor.
CONNECTIONS: Final = 512
#: In a request's ``extensions``: an `asyncio.Event` that is set when the server shuts down, so
#: that what would answer for ever can end. Other answers are waited for.
LEAVING: Final = "hotswap.leaving"
#: How long a refused sender's bytes are still read and dropped, so that it sees the refusal.
_LINGER: Final = 2.0


def control_protocol(limits: Limits, connections: int = CONNECTIONS) -> type[ControlProtocol]:
    """The class to give uvicorn as ``http=``, bound to ``limits`` (sizes, counts, timeouts)."""
    bound = {"limits": limits, "most_connections": connections, "__slots__": ()}
    return cast("type[ControlProtocol]", type("BoundControlProtocol", (ControlProtocol,), bound))


class _Door:
    """A transport as a cycle sees it, whose `close` does not cut off a sender in mid-body.

    Closing with bytes unread resets the connection, which can take the answer from the client.
    """

    __slots__ = ("_protocol",)

    def __init__(self, protocol: ControlProtocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        self._protocol.part()


class ControlProtocol(HttpToolsProtocol):
    """Receives requests within limits, hands them to uvicorn's cycles, and refuses in JSON."""

    limits: ClassVar[Limits] = Limits()
    most_connections: ClassVar[int] = CONNECTIONS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.timeout_keep_alive = self.limits.keepalive_timeout  # type: ignore[assignment]
        self._timer: asyncio.TimerHandle | None = None  # receiving, or lingering
        self._stall: asyncio.TimerHandle | None = None
        self._receiving = False
        self._headers_done = False
        self._has_body = False
        self._head_bytes = 0
        self._head_raw: int | None = None
        self._header_count = 0
        self._unanswered = 0
        self._refused = False
        self._refusal: bytes | None = None
        self._parting = False
        self._leaving = asyncio.Event()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it if there are too many."""
        full = len(self.connections) >= self.most_connections
        super().connection_made(transport)
        if full:
            self._refuse(Unavailable("This server has too many connections; try again soon."))
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._disarm()
        self._unset_keepalive_if_required()
        self._unset_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came. They do not prolong anything: only a request's first and last byte count."""
        if self._refused or self._parting:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Its request is answered as plain HTTP; what follows it is in no language of ours.
            self._refused = True
        except httptools.HttpParserError:
            self._refuse(BadInput("This is not a valid HTTP/1.1 request."))
        else:
            if self._receiving and not self._headers_done:
                self._count_head(len(data))

    def _count_head(self, received: int) -> None:
        """Bound a head that does not end: the parser only tells of whole headers.

        The read that it began in does not count: it may hold the end of another request.
        """
        self._head_raw = 0 if self._head_raw is None else self._head_raw + received
        if self._head_raw > self.limits.header_bytes + TARGET_BYTES:
            self._refuse(HeadersTooLarge())

    def pause_writing(self) -> None:
        """The client reads slowly; one that reads nothing at all is cut off."""
        super().pause_writing()
        self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._unset_stall()
        super().resume_writing()

    def shutdown(self) -> None:
        """The server stops: an answer in progress is the last of this connection."""
        super().shutdown()
        self._leaving.set()

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # it does not read either: an orderly close would never end
        else:
            super().timeout_keep_alive_handler()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._receiving = True
        self._headers_done = False
        self._has_body = False
        self._head_bytes = 0
        self._head_raw = None
        self._header_count = 0
        if not self._unanswered:
            self._disarm()
            self._arm()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        if self._refused:
            return
        super().on_url(url)
        if len(self.url) > TARGET_BYTES:
            self._refuse(HeadersTooLarge(f"The path is longer than {TARGET_BYTES} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer, which counts and is otherwise ignored."""
        if self._refused:
            return
        self._header_count += 1
        self._head_bytes += len(name) + len(value) + 4
        limits = self.limits
        if self._header_count > limits.header_count or self._head_bytes > limits.header_bytes:
            self._refuse(HeadersTooLarge())
        elif not self._headers_done:
            super().on_header(name, value)
            lowered = name.lower()
            if lowered == b"transfer-encoding" or (lowered == b"content-length" and value != b"0"):
                self._has_body = True

    def on_headers_complete(self) -> None:
        """The head is whole: the application begins."""
        if self._refused:
            return
        upgrade = self.parser.should_upgrade()
        if upgrade and self._has_body:
            # The parser does not read the body of a request that offers to upgrade.
            self._refuse(BadInput("Send a request with a body without an Upgrade header."))
            return
        super().on_headers_complete()
        extensions = cast("dict[str, Any]", self.cycle.scope.setdefault("extensions", {}))
        extensions[LEAVING] = self._leaving
        self._headers_done = True
        self._unanswered += 1
        self.cycle.transport = cast("asyncio.Transport", _Door(self))
        if upgrade:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: from here on nothing hurries its answer."""
        if self._refused:
            return
        self._receiving = False
        self._headers_done = False
        self._disarm()
        super().on_message_complete()

    # What a cycle calls.

    def on_response_complete(self) -> None:
        """An answer is written: the next request, what was refused meanwhile, or keep-alive."""
        self._unanswered -= 1
        if self._refused and not self.pipeline:
            self.server_state.total_requests += 1
            self._send_refusal()
            return
        if self._parting:
            return
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()  # else a sender that never waits would fill the memory
        if self._receiving:
            self._unset_keepalive_if_required()
            if self._timer is None and self._unanswered == int(self._headers_done):
                self._arm()

    # Deadlines.

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.limits.receive_timeout, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        """The request, or on a new connection its first byte, did not come in time."""
        self._timer = None
        if self._receiving:
            seconds = self.limits.receive_timeout
            self._refuse(ReceiveTimeout(f"The request took longer than {seconds:g} s to arrive."))
        else:
            self.transport.close()

    def _watch_writing(self, unsent: int) -> None:
        self._unset_stall()
        self._stall = self.loop.call_later(self.limits.receive_timeout, self._stalled, unsent)

    def _unset_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _stalled(self, before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent < before:
            self._watch_writing(unsent)  # a slow reader, but a reader
        else:
            self.transport.abort()

    # Refusing and closing.

    def _refuse(self, exc: HotswapError) -> None:
        """Answer with an error after what is in flight, and read no further request."""
        if self._refused:
            return
        self._refused = True
        self._disarm()
        log.debug("a request was refused: %s", exc)
        if self._headers_done:
            cycle = self.cycle
            if cycle.response_complete:  # it was answered before its body was in
                self.part()
                return
            if cycle.response_started:
                cycle.keep_alive = False
                return
            self._abandon(cycle)
        self._refusal = _render(exc)
        self._send_refusal()

    def _abandon(self, cycle: RequestResponseCycle) -> None:
        """End a cycle whose request will never be whole; its application sees a disconnect."""
        waiting = deque(each for each in self.pipeline if each[0] is not cycle)
        self.pipeline = waiting
        cycle.disconnected = True
        cycle.message_event.set()
        self._unanswered -= 1

    def _send_refusal(self) -> None:
        if self._refusal is not None and not self._unanswered and not self.transport.is_closing():
            self.transport.write(self._refusal)
            self._refusal = None
            self.part()

    def part(self) -> None:
        """Close in order: end our side, and drop for a moment what still comes."""
        if self._parting or self.transport.is_closing():
            return
        self._parting = True
        self._disarm()
        if not self._receiving and not self._refused:
            self.transport.close()  # nothing is on its way
            return
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._timer = self.loop.call_later(_LINGER, self.transport.abort)
        else:
            self.transport.close()


def _render(exc: HotswapError) -> bytes:
    status, extra, body = translate(exc)
    length = (b"content-length", b"%d" % len(body))
    headers = [JSON_TYPE, *extra, *SECURITY_HEADERS, length, (b"connection", b"close")]
    head = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    return STATUS_LINES[status] + head + b"\r\n" + body
