"""A host's side of the wire in asyncio, under a test's command: it answers, holds, fails or dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hotswap.ipc.frames import (
    Answer,
    Call,
    Cancel,
    Failure,
    FrameReader,
    Hello,
    Layout,
    decode_tensor,
    encode_tensor,
    pack,
)
from hotswap.ipc.words import Health

Y = (Layout("y", "FP64", ()),)


class FakeHost:
    """Doubles the one FP64 input (or multiplies it by ``factor``, which may be NaN).

    ``hold``: calls wait in ``held`` until `release`. ``poison``: a request with this value makes
    the host die, as a crash in the model does: the stamp of what ran stays in shared memory.
    """

    def __init__(self, folder: Path, name: str, slot: int, health: Health) -> None:
        self.path = folder / f"h{name}"
        self.name = name
        self.slot = slot
        self.health = health
        self.incarnation = 0
        self.hold = False
        self.factor = 2.0
        self.poison: float | None = None
        self.fail: Callable[[int], Failure] | None = None
        self.calls: list[Call] = []
        self.cancelled: list[int] = []
        self.values: list[list[float]] = []
        self.arrived = asyncio.Condition()
        self._held: list[tuple[asyncio.StreamWriter, Call, list[float]]] = []
        self._server: asyncio.AbstractServer | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """A new process of this host listens."""
        self.incarnation += 1
        self.health.start(self.slot, self.incarnation)
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, str(self.path))

    def die(self) -> None:
        """Its process is gone: every connection ends at once."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self._held.clear()

    async def stop(self) -> None:
        """Die, and wait for what it leaves."""
        self.die()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def release(self) -> None:
        """Answer what is held and hold no more."""
        self.hold = False
        held, self._held = self._held, []
        for writer, call, values in held:
            self._answer(writer, call, values)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what has arrived makes it true."""
        async with self.arrived, asyncio.timeout(10):
            await self.arrived.wait_for(condition)

    def send(self, data: bytes) -> None:
        """Bytes of the test's own to every worker."""
        for writer in self._writers:
            writer.write(data)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        writer.write(pack(Hello(self.name, self.incarnation)))
        frames = FrameReader()
        try:
            while data := await reader.read(1 << 16):
                for header, payload in frames.feed(data):
                    if isinstance(header, Call):
                        self._called(writer, header, bytes(payload))
                    elif isinstance(header, Cancel):
                        self.cancelled += header.ids
                async with self.arrived:
                    self.arrived.notify_all()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _called(self, writer: asyncio.StreamWriter, call: Call, payload: bytes) -> None:
        values = decode_tensor(payload, call.layout[0], sum(call.rows)).tolist()
        self.calls.append(call)
        self.values.append(values)
        if self.poison in values:
            self.health.busy(self.slot, 1, call.token)
            self.die()
        elif self.fail is not None:
            writer.write(b"".join([pack(self.fail(each)) for each in call.ids]))
        elif self.hold:
            self._held.append((writer, call, values))
        else:
            self._answer(writer, call, values)

    def _answer(self, writer: asyncio.StreamWriter, call: Call, values: list[float]) -> None:
        raw = encode_tensor(self.factor * np.array(values), "FP64")
        writer.write(pack(Answer(call.ids, call.rows, Y, [len(raw)], 5, 7), raw))
