"""A worker's connection to one host: requests out in groups, answers back to their futures.

A link outlives its host process: while the host is being restarted, requests wait in it until
their deadline, so that a crash need cost no request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from hotswap.core.routing import HostRef
from hotswap.errors import DeadlineExceeded, InvalidOutput, ModelFailed, OutOfMemory
from hotswap.ipc.frames import (
    Answer,
    Array,
    Call,
    Cancel,
    Failure,
    FrameReader,
    Hello,
    Layout,
    decode_tensor,
    pack,
)

_RETRY: Final = 0.02
_SWEEP: Final = 0.25
#: Up to this compute time of the last batch (ns), frames to a host are held to two at a time.
_BRIEF_NS: Final = 500_000


class Outputs(list[tuple[str, Array]]):
    """A batch's outputs as the host gave them, decoded once: (name, array of all its rows).

    ``sound``: whether all of them passed the checks of a valid answer; None before those.
    ``shape``: what they look like, once `hotswap.serving.notes` has looked.
    """

    __slots__ = ("rows", "shape", "sound")

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.sound: bool | None = None
        self.shape: tuple[object, ...] | None = None


class Promise(Protocol):
    """What a link settles: a future, or anything that stands for one."""

    def done(self) -> bool: ...

    def set_result(self, result: Reply, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None: ...


class Reply:
    """One request's share of an `Answer`: rows ``start`` to ``stop`` of ``outputs``."""

    __slots__ = ("compute_ns", "outputs", "queue_ns", "start", "stop")

    def __init__(
        self, outputs: Outputs, start: int, stop: int, queue_ns: int, compute_ns: int
    ) -> None:
        self.outputs = outputs
        self.start = start
        self.stop = stop
        self.queue_ns = queue_ns
        self.compute_ns = compute_ns


class Pending:
    """One request that a host has, or will have when the link is up.

    ``resend``: if the host dies, it may be sent to another. ``shadow``: a copy off the path.
    """

    __slots__ = (
        "attempts",
        "deadline",
        "future",
        "layout",
        "outputs",
        "raws",
        "resend",
        "rows",
        "shadow",
        "token",
    )

    def __init__(
        self,
        layout: tuple[Layout, ...],
        outputs: tuple[str, ...],
        raws: list[bytes],
        rows: int,
        deadline: float,
        future: Promise,
        resend: bool = True,
        shadow: bool = False,
    ) -> None:
        self.layout = layout
        self.outputs = outputs
        self.raws = raws
        self.rows = rows
        self.deadline = deadline
        self.future = future
        self.resend = resend
        self.shadow = shadow
        self.token = 0
        self.attempts = 0


_Key = tuple[tuple[Layout, ...], tuple[str, ...], bool]


class _Group:
    """Requests of equal layout that leave in one frame."""

    __slots__ = ("deadlines", "ids", "raws", "rows")

    def __init__(self, inputs: int) -> None:
        self.ids: list[int] = []
        self.rows: list[int] = []
        self.deadlines: list[float] = []
        self.raws: list[list[bytes]] = [[] for _ in range(inputs)]


class HostLink(asyncio.Protocol):
    """One host as one worker sees it. Lives on the worker's loop."""

    def __init__(
        self,
        ref: HostRef,
        runtime_dir: str,
        on_lost: Callable[[HostLink, list[Pending]], None],
    ) -> None:
        self.ref = ref
        self.outstanding_rows = 0
        self.incarnation = 0
        self.connected = asyncio.Event()
        self._path = os.path.join(runtime_dir, ref.address)
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._pending: dict[int, Pending] = {}
        self._groups: dict[_Key, _Group] = {}
        self._next = 0
        self._scheduled = False
        self._closed = False
        # What the host has: requests sent and not answered; the newest id sent; the size of the
        # last frame; the compute time of the last answer.
        self._at_host = 0
        self._sent = 0
        self._last_frame = 0
        self._compute_ns = 0
        self._connecting = self._loop.create_task(self._connect())
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    # --- connection

    async def _connect(self) -> None:
        """Until it is up. The address stays the same over restarts of the host."""
        while not self._closed:
            with contextlib.suppress(OSError):
                await self._loop.create_unix_connection(lambda: self, self._path)
                return
            await asyncio.sleep(_RETRY)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._closed:  # meanwhile
            self._transport.close()
            return
        self._reader = FrameReader()
        self._at_host = self._last_frame = 0

    def connection_lost(self, exc: Exception | None) -> None:
        had = self._pending
        was = self.connected.is_set()
        self._transport = None
        self.connected.clear()
        if self._closed:
            return
        if was:
            # Sent or not: the process that had them is gone. They are given up together, with
            # the incarnation still set, so that the plane can tell what it was running.
            self._pending = {}
            self._groups = {}
            self.outstanding_rows = 0
            self._on_lost(self, list(had.values()))
        self._connecting = self._loop.create_task(self._connect())

    def close(self) -> None:
        """No table names this host any more."""
        self._closed = True
        self._connecting.cancel()
        self._sweeper.cancel()
        if self._transport is not None:
            self._transport.close()
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(ModelFailed("the version was unloaded"))
        self._pending.clear()
        self._groups.clear()
        self.outstanding_rows = 0

    @property
    def idle(self) -> bool:
        return not self._pending

    @property
    def closed(self) -> bool:
        """Whether no table names its host any more."""
        return self._closed

    # --- requests

    def call(self, pending: Pending) -> int:
        """Send it with the others of this loop step; its id."""
        if self._closed:
            if not pending.future.done():
                pending.future.set_exception(ModelFailed("the version was unloaded"))
            return 0
        self._next = number = (self._next + 1) & 0x7FFFFFFF
        self._pending[number] = pending
        self.outstanding_rows += pending.rows
        if pending.token:
            self._send_alone(number, pending)
            return number
        key = (pending.layout, pending.outputs, pending.shadow)
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = group = _Group(len(pending.layout))
            if not self._scheduled and self.connected.is_set():
                self._scheduled = True
                self._loop.call_soon(self._flush)
        group.ids.append(number)
        group.rows.append(pending.rows)
        group.deadlines.append(pending.deadline)
        for parts, raw in zip(group.raws, pending.raws, strict=True):
            parts.append(raw)
        return number

    def cancel(self, number: int) -> None:
        """Nobody waits for it any more."""
        pending = self._pending.pop(number, None)
        if pending is None:
            return
        self.outstanding_rows -= pending.rows
        if number > self._sent and not pending.token:
            self._take_back(number)
            return
        if not self.connected.is_set():
            return  # no host has it
        self._at_host -= 1
        if self._transport is not None:
            self._transport.write(pack(Cancel([number])))
        if self._groups and not self._scheduled:  # perhaps no answer will come to send them
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _take_back(self, number: int) -> None:
        """It waits here still: the host never hears of it."""
        for key, group in self._groups.items():
            if number in group.ids:
                at = group.ids.index(number)
                del group.ids[at], group.rows[at], group.deadlines[at]
                for parts in group.raws:
                    del parts[at]
                if not group.ids:
                    del self._groups[key]
                return

    def _flush(self) -> None:
        """Send what has gathered, unless the host has enough to do.

        Every write wakes the host. While it has two frames of brief batches, a third would only
        wait there; here it grows until an answer comes, and one write carries more requests. For
        a slow model nothing is held back: all that is there when a batch ends is the next one.
        """
        self._scheduled = False
        if not self._groups or self._transport is None or not self.connected.is_set():
            return  # they go when the link is up
        if self._at_host > self._last_frame and self._compute_ns < _BRIEF_NS:
            return  # `data_received`, `cancel` or `_sweep` sends them
        self._send()

    def _send(self) -> None:
        """All that has gathered, in one write."""
        assert self._transport is not None
        groups, self._groups = self._groups, {}
        self._last_frame = sum([len(group.ids) for group in groups.values()])
        self._at_host += self._last_frame
        self._sent = self._next
        frames = [self._frame(key, group) for key, group in groups.items()]
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def _frame(self, key: _Key, group: _Group) -> bytes:
        payload = [b"".join(parts) for parts in group.raws]
        sizes = [len(raw) for raw in payload]
        call = Call(key[0], key[1], group.ids, group.rows, group.deadlines, sizes, shadow=key[2])
        return pack(call, *payload)

    def _send_alone(self, number: int, pending: Pending) -> None:
        if self._transport is None or not self.connected.is_set():
            return  # `_open` sends it
        sizes = [len(raw) for raw in pending.raws]
        call = Call(
            pending.layout, pending.outputs, [number], [pending.rows], [pending.deadline],
            sizes, pending.token,
        )  # fmt: skip
        self._at_host += 1
        self._transport.write(pack(call, *pending.raws))

    # --- answers

    def data_received(self, data: bytes) -> None:
        for header, payload in self._reader.feed(data):
            if isinstance(header, Answer):
                self._answer(header, payload)
            elif isinstance(header, Failure):
                self._failure(header)
            elif isinstance(header, Hello):
                self._open(header)
        if self._groups:
            self._flush()

    def _open(self, hello: Hello) -> None:
        """The host answers here: what waited goes out."""
        self.incarnation = hello.incarnation
        self.connected.set()
        for number, pending in list(self._pending.items()):
            if pending.token:
                self._send_alone(number, pending)
        if self._groups:
            self._flush()

    def _answer(self, header: Answer, payload: memoryview) -> None:
        rows = sum(header.rows)
        self._compute_ns = header.compute_ns
        at = 0
        outputs = Outputs(rows)
        for layout, size in zip(header.layout, header.sizes, strict=True):
            outputs.append((layout.name, decode_tensor(payload[at : at + size], layout, rows)))
            at += size
        start = 0
        pendings = self._pending
        for number, count in zip(header.ids, header.rows, strict=True):
            stop = start + count
            pending = pendings.pop(number, None)
            if pending is not None:
                self._at_host -= 1
                self.outstanding_rows -= pending.rows
                if not pending.future.done():
                    pending.future.set_result(
                        Reply(outputs, start, stop, header.queue_ns, header.compute_ns)
                    )
            start = stop

    def _failure(self, header: Failure) -> None:
        error: type[Exception] = {
            "timeout": DeadlineExceeded,
            "invalid_output": InvalidOutput,
            "memory": OutOfMemory,
        }.get(header.kind, ModelFailed)
        for number in header.ids:
            pending = self._pending.pop(number, None)
            if pending is not None:
                self._at_host -= 1
                self.outstanding_rows -= pending.rows
                if not pending.future.done():
                    failure = error(header.message)
                    if header.detail:
                        failure.add_note(header.detail)  # for the log; clients see the message
                    pending.future.set_exception(failure)

    def _sweep(self) -> None:
        """Deadlines that nobody else keeps: one pass over what waits, four times a second."""
        if self._groups and self.connected.is_set():
            self._send()  # nothing was answered for a while: hold nothing back
        now = time.monotonic()
        for number, pending in list(self._pending.items()):
            if pending.deadline <= now:
                self.cancel(number)
                if not pending.future.done():
                    pending.future.set_exception(
                        DeadlineExceeded("the deadline passed before the model answered")
                    )
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)
