"""Channels: messages over a socket pair, between a loop and a loop or a blocking process."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading

import pytest

from hotswap.ipc import messages
from hotswap.ipc.channel import BlockingChannel, Channel
from hotswap.ipc.messages import Ack, Beat, Message, Preload, Stop


class End:
    """One end of a channel that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.lost = asyncio.Event()

    async def attach(self, sock: socket.socket) -> Channel:
        return await Channel.attach(
            sock, messages.encode, messages.decode, self.heard.put_nowait, self.lost.set
        )


async def test_messages_arrive_in_order_both_ways() -> None:
    """Each end hears what the other sent; large messages arrive whole."""
    left, right = socket.socketpair()
    a, b = End(), End()
    one, two = await a.attach(left), await b.attach(right)
    large = Preload(("x" * 3_000_000,))
    for message in (Beat(), large, Ack(1, 2)):
        assert one.send(message)
    assert [await b.heard.get() for _ in range(3)] == [Beat(), large, Ack(1, 2)]
    assert two.send(Stop(1.5))
    assert await a.heard.get() == Stop(1.5)
    one.close()
    await b.lost.wait()
    assert not two.open
    assert not two.send(Beat())
    assert not one.send(Beat())
    two.close()


async def test_a_message_in_pieces_is_one_message() -> None:
    """Bytes that trickle in are put together."""
    left, right = socket.socketpair()
    end = End()
    channel = await end.attach(left)
    body = messages.encode(Ack(3, 4))
    for byte in struct.pack("<I", len(body)) + body:
        right.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await end.heard.get() == Ack(3, 4)
    right.close()
    await end.lost.wait()
    channel.close()


async def test_a_blocking_end_speaks_the_same_wire() -> None:
    """What a process without a loop sends and receives is the same; end of file is told."""
    left, right = socket.socketpair()
    end = End()
    channel = await end.attach(left)
    blocking = BlockingChannel(right, messages.encode, messages.decode)
    blocking.send(Ack(1, 1))
    assert await end.heard.get() == Ack(1, 1)
    channel.send(Stop(2.0))
    assert await asyncio.to_thread(blocking.receive) == Stop(2.0)
    channel.close()
    with pytest.raises(EOFError, match="gone"):
        await asyncio.to_thread(blocking.receive)
    right.close()


def test_a_length_that_cannot_be_is_refused() -> None:
    """A blocking end does not wait for gigabytes that will never come."""
    left, right = socket.socketpair()
    with left, right:
        right.sendall(struct.pack("<I", 0xFFFF_FFFF))
        with pytest.raises(ValueError, match="out of range"):
            BlockingChannel(left, messages.encode, messages.decode).receive()


def test_blocking_ends_carry_large_messages() -> None:
    """More than the socket holds is sent while the other end reads."""
    left, right = socket.socketpair()
    with left, right:
        large = Preload(("y" * 2_000_000,))
        sender = threading.Thread(
            target=BlockingChannel(left, messages.encode, messages.decode).send, args=(large,)
        )
        sender.start()
        assert BlockingChannel(right, messages.encode, messages.decode).receive() == large
        sender.join()
