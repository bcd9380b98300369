"""Open loop: requests leave at a constant rate, whatever the answers do. For tails.

A closed loop stops asking while a server stalls, and so hides the stall. Here request ``k`` is
due at ``start + k / rate``, and its latency is counted from then: what waits for a free
connection, or for this very process, is counted as waiting. ``lag`` says how much of it was
ours; a run whose lag is large says nothing about the server.

One thread, keep-alive connections, one request at a time on each (no pipelining).
`time.perf_counter` is the system's monotonic clock, so moments can be compared with those of
other processes on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import ROOT

#: How long after the last request answers are waited for, in seconds.
PATIENCE = 10.0


class ProtocolError(Exception):
    """An answer that this generator cannot read; the message says why."""


@dataclass
class Trace:
    """One entry per request, in the order in which they were due. Times in seconds.

    ``lag``: how late it was sent although a connection was free. ``status`` 0: no answer
    (connection lost, or none in time). ``version`` indexes ``versions``
    (the answer's ``x-hotswap-version``; index 0 is "none named").
    """

    due: NDArray[np.float64]
    sent: NDArray[np.float64]
    lag: NDArray[np.float64]
    done: NDArray[np.float64]
    status: NDArray[np.int64]
    version: NDArray[np.int64]
    versions: list[str] = field(default_factory=lambda: [""])

    @property
    def latency(self) -> NDArray[np.float64]:
        """Seconds from the intended moment to the whole answer; infinite where none came."""
        latency: NDArray[np.float64] = np.where(self.status > 0, self.done - self.due, np.inf)
        return latency

    @property
    def failures(self) -> int:
        """Requests without a 200."""
        return int((self.status != 200).sum())

    def between(self, begin: float, end: float) -> Trace:
        """The requests that were due from ``begin`` to ``end``."""
        keep = (self.due >= begin) & (self.due <= end)
        return Trace(
            self.due[keep],
            self.sent[keep],
            self.lag[keep],
            self.done[keep],
            self.status[keep],
            self.version[keep],
            self.versions,
        )

    def summary(self) -> dict[str, Any]:
        """Counts, latency percentiles and lag in milliseconds."""
        latency = self.latency * 1e3
        lag = self.lag[self.sent > 0] * 1e3
        if not len(latency):
            return {"requests": 0, "failures": 0}
        p50, p90, p99, worst = np.quantile(latency, [0.5, 0.9, 0.99, 1.0], method="higher")
        by_version = {
            name: int((self.version == i).sum()) for i, name in enumerate(self.versions) if name
        }
        codes, counts = np.unique(self.status, return_counts=True)
        return {
            "requests": len(latency),
            "failures": self.failures,
            "by_status": {str(code): int(n) for code, n in zip(codes, counts, strict=True)},
            "by_version": by_version,
            "p50_ms": float(p50),
            "p90_ms": float(p90),
            "p99_ms": float(p99),
            "max_ms": float(worst),
            "lag_p50_ms": float(np.median(lag)) if len(lag) else None,
            "lag_p99_ms": float(np.quantile(lag, 0.99)) if len(lag) else None,
        }


class _Connection:
    __slots__ = ("address", "buffer", "index", "request", "socket")

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.address, self.request = address, request
        self.buffer = b""
        self.index = -1
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(self.address, timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, index: int) -> None:
        self.index = index
        self.buffer = b""
        self.socket.sendall(self.request)


def read_answer(data: bytes) -> tuple[int, bytes, bool] | None:
    """(status, named version, whether it stays open) once ``data`` is a whole answer, else None.

    Only answers with a Content-Length are read; anything else raises ProtocolError.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise ProtocolError(f"an answer without Content-Length: {data[:200]!r}")
    line = head.find(b"\r\n", at + 2)
    length = int(head[at + 17 : line if line > 0 else end])
    if len(data) < end + 4 + length:
        return None
    version = b""
    at = head.find(b"\r\nx-hotswap-version:")
    if at >= 0:
        line = head.find(b"\r\n", at + 2)
        version = head[at + 20 : line if line > 0 else end].strip()
    return int(head[9:12]), version, b"\r\nconnection: close" not in head


def request_bytes(host: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One whole HTTP/1.1 POST."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def offer(
    address: tuple[str, int],
    requests: list[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int = 64,
    start_in: float = 0.1,
    on_start: Callable[[float], None] | None = None,
) -> Trace:
    """Send ``rate`` requests a second for ``seconds``; request k goes out as ``requests[k % n]``
    of its connection. ``on_start`` is told when the first is due, once all connections are open.
    Returns the trace of all of them, whatever became of each.
    """
    total = round(rate * seconds)
    trace = Trace(
        np.zeros(total),
        np.zeros(total),
        np.zeros(total),
        np.zeros(total),
        np.zeros(total, dtype=np.int64),
        np.zeros(total, dtype=np.int64),
    )
    epoll = select.epoll()  # before the connections: `select` takes no descriptor above 1023
    allow_descriptors(connections + 100)
    pool = [_Connection(address, requests[i % len(requests)]) for i in range(connections)]
    _sleep_precisely()
    start = time.perf_counter() + start_in
    trace.due[:] = start + np.arange(total) / rate
    if on_start is not None:
        on_start(start)
    gc.collect()
    gc.disable()
    try:
        _Loop(epoll, pool, trace, start, rate).run()
    finally:
        gc.enable()
        for each in pool:
            each.socket.close()
    return trace


def _sleep_precisely() -> None:
    """Ask the kernel not to round this thread's sleeps up (by 50 microseconds, ordinarily)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(29, 1000, 0, 0, 0)  # PR_SET_TIMERSLACK, nanoseconds


def allow_descriptors(count: int) -> None:
    """Raise this process's own limit of open files to ``count`` if it is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


class _Loop:
    """Sends what is due, reads what has come, sleeps to the microsecond in between."""

    def __init__(
        self,
        epoll: select.epoll,
        pool: list[_Connection],
        trace: Trace,
        start: float,
        rate: float,
    ) -> None:
        self.pool, self.start, self.gap = pool, start, 1 / rate
        self.trace = trace
        total = len(trace.due)
        # Lists are written several times faster than arrays, one element at a time.
        self.sent, self.done, self.lag = [0.0] * total, [0.0] * total, [0.0] * total
        #: Since when a connection has been free; meaningless while none is.
        self.free = 0.0
        self.status, self.version = [0] * total, [0] * total
        self.known = {b"": 0}
        self.epoll = epoll
        self.by_fd: dict[int, _Connection] = {}
        self.idle: list[_Connection] = []
        for each in pool:
            self.watch(each)

    def watch(self, connection: _Connection) -> None:
        self.by_fd[connection.socket.fileno()] = connection
        self.epoll.register(connection.socket, select.EPOLLIN)
        if not self.idle:
            self.free = time.perf_counter()
        self.idle.append(connection)

    def run(self) -> None:
        clock, total = time.perf_counter, len(self.sent)
        last, following = self.start + total * self.gap + PATIENCE, 0
        poller = self.epoll.fileno()
        while True:
            now = clock()
            while following < total and self.idle and self.start + following * self.gap <= now:
                self.dispatch(following, now)
                following += 1
                now = clock()
            if following == total and len(self.idle) == len(self.pool):
                break
            if now > last:
                break
            until = last
            if self.idle and following < total:
                until = self.start + following * self.gap
            # epoll sleeps in whole milliseconds, select in microseconds: select on the epoll.
            select.select([poller], [], [], max(0.0, until - now))
            for fd, _ in self.epoll.poll(0):
                self.receive(self.by_fd[fd])
        self.epoll.close()
        self.trace.sent[:], self.trace.done[:] = self.sent, self.done
        self.trace.lag[:] = self.lag
        self.trace.status[:], self.trace.version[:] = self.status, self.version
        self.trace.versions = [name.decode() for name in self.known]

    def dispatch(self, index: int, now: float) -> None:
        # The first that came back goes out next: every connection is used.
        connection = self.idle.pop(0)
        self.sent[index] = now
        self.lag[index] = now - max(self.start + index * self.gap, self.free)
        try:
            connection.send(index)
        except OSError:
            self.lost(connection)

    def receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.lost(connection)
            return
        if connection.buffer:
            data = connection.buffer + data
        answer = read_answer(data)
        if answer is None:
            connection.buffer = data
            return
        index = connection.index
        if index < 0:
            raise ProtocolError(f"an answer that nobody asked for: {data[:200]!r}")
        connection.index = -1
        self.done[index] = time.perf_counter()
        self.status[index], version, stays = answer
        self.version[index] = self.known.setdefault(version, len(self.known))
        if stays:
            if not self.idle:
                self.free = self.done[index]
            self.idle.append(connection)
        else:
            self.reopen(connection)

    def lost(self, connection: _Connection) -> None:
        """The server hung up; a request on its way keeps status 0, which is a failure."""
        connection.index = -1
        self.reopen(connection)

    def reopen(self, connection: _Connection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)
        del self.by_fd[connection.socket.fileno()]
        self.epoll.unregister(connection.socket)
        connection.socket.close()
        for _ in range(50):
            try:
                connection.open()
                break
            except OSError:
                time.sleep(0.01)
        else:
            self.pool.remove(connection)
            return
        self.watch(connection)


class Running:
    """The generator in a process of its own; `result` waits for it."""

    def __init__(
        self,
        port: int,
        path: str,
        body: Path,
        *,
        rate: float,
        seconds: float,
        connections: int = 64,
    ) -> None:
        # Several may run at once, against one server.
        self.output = body.with_suffix(f".{port}.{id(self):x}.npz")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.openloop", "--port", str(port), "--path", path,
             "--body", str(body), "--rate", str(rate), "--seconds", str(seconds),
             "--connections", str(connections), "--output", str(self.output)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ProtocolError("the load generator did not start")
        #: When the first request is due, on this machine's monotonic clock.
        self.start = float(json.loads(line)["start"])

    def result(self) -> Trace:
        """The trace, when all is sent and answered; raises ProtocolError if the generator failed."""
        self.process.communicate()
        if self.process.returncode:
            raise ProtocolError("the load generator failed")
        with np.load(self.output) as arrays:
            trace = Trace(
                arrays["due"],
                arrays["sent"],
                arrays["lag"],
                arrays["done"],
                arrays["status"],
                arrays["version"],
                [str(name) for name in arrays["versions"]],
            )
        self.output.unlink()
        return trace


def main() -> None:
    """One run; prints when it starts, writes the trace to a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    wire = request_bytes(
        f"127.0.0.1:{args.port}",
        args.path,
        args.body.read_bytes(),
        {"Content-Type": "application/json"},
    )
    trace = offer(
        ("127.0.0.1", args.port),
        [wire],
        rate=args.rate,
        seconds=args.seconds,
        connections=args.connections,
        on_start=lambda start: print(json.dumps({"start": start}), flush=True),
    )
    np.savez(
        args.output,
        due=trace.due, sent=trace.sent, lag=trace.lag, done=trace.done, status=trace.status, version=trace.version,
        versions=np.array(trace.versions),
    )  # fmt: skip


if __name__ == "__main__":
    main()
