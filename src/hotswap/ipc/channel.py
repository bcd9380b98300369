"""A message channel over an inherited socket pair, in asyncio or blocking form."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, cast

_LENGTH: Final = struct.Struct("<I")
_MAX: Final = 256 * 1024 * 1024


class Channel(asyncio.Protocol):
    """Length-prefixed messages, decoded by ``decode`` and given to ``on_message``.

    ``on_lost`` is called once, when the other end is gone.
    """

    def __init__(
        self,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        on_message: Callable[[Any], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._encode = encode
        self._decode = decode
        self._on_message = on_message
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def attach(
        cls,
        sock: socket.socket,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        on_message: Callable[[Any], None],
        on_lost: Callable[[], None],
    ) -> Channel:
        """Take over a connected stream socket."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(
            lambda: cls(encode, decode, on_message, on_lost), sock=sock
        )
        return channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= 4:
            (size,) = _LENGTH.unpack_from(buffer, at)
            if len(buffer) - at - 4 < size:
                break
            message = self._decode(bytes(buffer[at + 4 : at + 4 + size]))
            at += 4 + size
            self._on_message(message)
        del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()

    @property
    def open(self) -> bool:
        """Whether messages can still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Any) -> bool:
        """Queue a message; False if the other end is gone."""
        if not self.open:
            return False
        assert self._transport is not None
        body = self._encode(message)
        self._transport.write(_LENGTH.pack(len(body)) + body)
        return True

    def close(self) -> None:
        """Close after what was sent is written."""
        if self._transport is not None:
            self._transport.close()


class BlockingChannel:
    """The same wire for a process without an event loop (the host and the nursery's children)."""

    def __init__(
        self, sock: socket.socket, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]
    ) -> None:
        self.sock = sock
        self._encode = encode
        self._decode = decode

    def send(self, message: Any) -> None:
        """Send all of it. Raises OSError if the other end is gone."""
        body = self._encode(message)
        self.sock.setblocking(True)
        self.sock.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Any:
        """Wait for one message. Raises EOFError if the other end is gone."""
        self.sock.setblocking(True)
        (size,) = _LENGTH.unpack(self._exactly(4))
        if size > _MAX:
            raise ValueError("a message's length is out of range")
        return self._decode(self._exactly(size))

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError("the other end of the channel is gone")
            data += part
        return bytes(data)
