"""A host's loop: read what has arrived, run it as one batch, write the answers, again.

One thread. While the model runs nothing is read; what arrives meanwhile is the next batch, so
batches grow with load and no request ever waits for a batch to fill. The loop stamps in shared
memory what it runs and since when; whoever watches needs no answer from it.
"""

from __future__ import annotations

import select
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from hotswap.core.batching import BatchQueue
from hotswap.core.datatypes import datatype_of
from hotswap.errors import InvalidOutput
from hotswap.ipc.frames import (
    Answer,
    Array,
    Call,
    Cancel,
    Failure,
    FrameReader,
    Hello,
    Layout,
    encode_tensor,
    pack,
)
from hotswap.ipc.words import Health
from hotswap.ports import Executor
from hotswap.serving.chunk import Chunk, join
from hotswap.serving.poller import BROKEN, READABLE, WRITABLE, SelectorPoller, poller

_READ: Final = 1 << 20
_DETAIL: Final = 16_384


class Connection:
    """One worker's connection."""

    def __init__(self, sock: socket.socket, epoll: select.epoll | SelectorPoller) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.reader = FrameReader()
        self._epoll = epoll
        self._unsent = bytearray()
        self.open = True

    def write(self, data: bytes) -> None:
        """Send now what fits; keep the rest until the socket is writable."""
        if not self.open:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.open = False
            return
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._epoll.modify(self.fd, READABLE | WRITABLE)

    def flush(self) -> None:
        """The socket is writable again."""
        try:
            sent = self.sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.open = False
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._epoll.modify(self.fd, READABLE)


#: What each worker is to be sent.
Answers = dict[Connection, list[bytes]]


class HostLoop:
    """Serves one loaded version to its workers until `stop` or the supervisor is gone."""

    def __init__(
        self,
        *,
        host: str,
        incarnation: int,
        slot: int,
        listener: socket.socket,
        control_fd: int,
        on_control: Callable[[], bool],
        executor: Executor,
        health: Health,
        batch_rows: int,
        finite: bool,
        describe: Callable[[BaseException], str],
    ) -> None:
        self._hello = pack(Hello(host, incarnation))
        self._slot = slot
        self._listener = listener
        self._control_fd = control_fd
        self._on_control = on_control
        self._executor = executor
        self._mark_shadow: Callable[[bool], None] | None = getattr(executor, "mark_shadow", None)
        self._shadow = False
        self._health = health
        self._finite = finite
        self._describe = describe
        self._epoll = poller()
        self._connections: dict[int, Connection] = {}
        self._queue: BatchQueue[Chunk] = BatchQueue(batch_rows)
        self._cancelled: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Until told to stop; its connections are closed then."""
        try:
            self._serve()
        finally:
            for connection in self._connections.values():
                connection.sock.close()
            self._epoll.close()

    def _serve(self) -> None:
        epoll = self._epoll
        listener = self._listener.fileno()
        self._listener.setblocking(False)
        epoll.register(listener, READABLE)
        epoll.register(self._control_fd, READABLE)
        while True:
            for fd, event in epoll.poll(0 if self._queue else -1):
                if fd == listener:
                    self._accept()
                elif fd == self._control_fd:
                    if not self._on_control():
                        return
                else:
                    self._turn(self._connections[fd], event)
            if self._queue:
                self._run(self._queue.take())

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            connection = Connection(sock, self._epoll)
            self._connections[connection.fd] = connection
            self._epoll.register(connection.fd, READABLE)
            connection.write(self._hello)

    def _turn(self, connection: Connection, event: int) -> None:
        if event & WRITABLE:
            connection.flush()
        if event & (READABLE | BROKEN):
            try:
                data = connection.sock.recv(_READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                connection.open = False
            else:
                self._read(connection, data)
        if not connection.open:
            self._epoll.unregister(connection.fd)
            del self._connections[connection.fd]
            # The next connection may get this number.
            self._cancelled = {each for each in self._cancelled if each[0] != connection.fd}
            connection.sock.close()

    def _read(self, connection: Connection, data: bytes) -> None:
        now = time.monotonic_ns()
        try:
            for header, payload in connection.reader.feed(data):
                if isinstance(header, Call):
                    self._queue.add(Chunk(connection, header, payload, now))
                elif isinstance(header, Cancel):
                    self._cancelled.update((connection.fd, each) for each in header.ids)
        except ValueError:
            connection.open = False  # not our wire: nothing that it says can be trusted

    # --- one batch

    def _run(self, chunks: list[Chunk]) -> None:
        now_ns = time.monotonic_ns()
        chunks = self._still_wanted(chunks, now_ns / 1e9)
        if not chunks:
            return
        queue_ns = now_ns - min(chunk.arrived_ns for chunk in chunks)
        self._health.busy(self._slot, now_ns, chunks[0].call.token)
        try:
            answers = self._answers(chunks, queue_ns)
        except Exception as exc:
            self._retry_singly(chunks, exc, queue_ns)
        else:
            self._send(answers)
        finally:
            self._health.idle(self._slot)

    def _still_wanted(self, chunks: list[Chunk], now: float) -> list[Chunk]:
        """Drop what was cancelled and what expired before it is computed; answer the latter."""
        kept: list[Chunk] = []
        for chunk in chunks:
            call = chunk.call
            if not chunk.connection.open:
                continue
            if min(call.deadlines) > now and not self._cancelled:
                kept.append(chunk)
                continue
            fd = chunk.connection.fd
            gone = [(fd, each) in self._cancelled for each in call.ids]
            late = [deadline <= now for deadline in call.deadlines]
            expired = [i for i, g, x in zip(call.ids, gone, late, strict=True) if x and not g]
            if expired:
                message = "the deadline passed before the model could run"
                chunk.connection.write(pack(Failure(expired, "timeout", message)))
            self._cancelled.difference_update((fd, each) for each in call.ids)
            smaller = chunk.keep([not (g or x) for g, x in zip(gone, late, strict=True)])
            if smaller is not None:
                kept.append(smaller)
        if not self._queue:
            self._cancelled.clear()
        return kept

    def _predict(self, chunks: Sequence[Chunk]) -> dict[str, Array]:
        """Run the model on the joined rows and check what it gave."""
        rows = sum(chunk.total_rows for chunk in chunks)
        wanted = chunks[0].call.outputs
        if self._mark_shadow is not None and chunks[0].call.shadow != self._shadow:
            self._shadow = not self._shadow
            self._mark_shadow(self._shadow)
        outputs = self._executor.predict(join(chunks), wanted)
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != rows:
                got = "no rows" if array.ndim == 0 else f"{array.shape[0]} rows"
                raise InvalidOutput(f"output {name!r} has {got} for {rows} rows of input")
            if self._finite and array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InvalidOutput(f"output {name!r} is not finite")
        missing = [name for name in wanted if name not in outputs]
        if missing:
            raise InvalidOutput(f"output {missing[0]!r} is missing")
        return outputs

    def _retry_singly(self, chunks: Sequence[Chunk], exc: Exception, queue_ns: int) -> None:
        """A batch that raises is run again request by request: only what fails alone has failed."""
        singles = [single for chunk in chunks for single in chunk.split()]
        if len(singles) == 1:
            self._fail(singles[0], exc)
            return
        for single in singles:
            # The batch, or the ones before it, took their time: nobody waits for what is late.
            if not self._still_wanted([single], time.monotonic()):
                continue
            self._health.busy(self._slot, time.monotonic_ns(), 0)
            try:
                answers = self._answers([single], queue_ns)
            except Exception as alone:
                self._fail(single, alone)
            else:
                self._send(answers)

    def _fail(self, chunk: Chunk, exc: Exception) -> None:
        kind = "model"
        if isinstance(exc, InvalidOutput):
            kind = "invalid_output"
        elif isinstance(exc, MemoryError):
            kind = "memory"
        detail = "" if kind == "invalid_output" else "".join(traceback.format_exception(exc))
        failure = Failure(chunk.call.ids, kind, self._describe(exc), detail[-_DETAIL:])
        chunk.connection.write(pack(failure))

    def _answers(self, chunks: Sequence[Chunk], queue_ns: int) -> Answers:
        """Run them: for each worker the rows that it sent, in the order in which it sent them.

        Encoding is the model's failure too: what it gave may be nothing that can be sent.
        """
        began = time.monotonic_ns()
        outputs = self._predict(chunks)
        compute_ns = time.monotonic_ns() - began
        layout = tuple(_layout(name, array) for name, array in outputs.items())
        arrays = list(outputs.values())
        at = 0
        ready: Answers = {}
        for chunk in chunks:
            end = at + chunk.total_rows
            raws = [
                encode_tensor(array[at:end], each.datatype)
                for array, each in zip(arrays, layout, strict=True)
            ]
            at = end
            call = chunk.call
            header = Answer(
                call.ids, call.rows, layout, [len(raw) for raw in raws], queue_ns, compute_ns
            )
            ready.setdefault(chunk.connection, []).append(pack(header, *raws))
        return ready

    def _send(self, answers: Answers) -> None:
        for connection, frames in answers.items():
            connection.write(frames[0] if len(frames) == 1 else b"".join(frames))


def _layout(name: str, array: Array) -> Layout:
    try:
        datatype = datatype_of(array.dtype)
    except ValueError as exc:
        raise InvalidOutput(f"output {name!r} cannot be sent: {exc}") from None
    return Layout(name, datatype, array.shape[1:])


__all__ = ["Connection", "HostLoop"]
