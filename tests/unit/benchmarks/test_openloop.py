"""The open-loop generator: what is due is sent, and waiting is counted from when it was due."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from benchmarks.groups.switching import stale
from benchmarks.openloop import ProtocolError, Trace, offer, read_answer, request_bytes

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-hotswap-version: v1\r\n\r\n{}"
REQUEST = request_bytes("localhost", "/predict", b'{"a": 1}', {"Content-Type": "application/json"})


@contextmanager
def serving(reply: Callable[[int], bytes | None]) -> Iterator[tuple[str, int]]:
    """A server that answers its n-th request (from 0) with ``reply(n)``; None hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    count = iter(range(10**9))

    def talk(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65536):
                answer = reply(next(count))
                if answer is None:
                    return
                connection.sendall(answer)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_every_due_request_is_sent_once_and_answered() -> None:
    """Rate times seconds requests, none before it is due, each with its version."""
    with serving(lambda _: OK) as address:
        trace = offer(address, [REQUEST], rate=400, seconds=0.5, connections=4)
    assert len(trace.due) == 200
    assert trace.failures == 0
    assert np.allclose(np.diff(trace.due), 1 / 400)
    assert (trace.sent >= trace.due).all()
    assert (trace.done >= trace.sent).all()
    assert trace.summary()["by_version"] == {"v1": 200}
    assert trace.summary()["by_status"] == {"200": 200}


def test_a_stall_is_charged_to_everything_that_was_due_in_it() -> None:
    """Latency counts from the intended moment, although nothing could be sent."""

    def reply(number: int) -> bytes:
        if number == 5:
            time.sleep(0.2)
        return OK

    with serving(reply) as address:
        trace = offer(address, [REQUEST], rate=100, seconds=0.3, connections=1)
    latency = trace.latency
    for late in range(5, 20):
        assert latency[late] >= 0.2 - (late - 5) / 100 - 0.001
    # The generator was not late itself: no connection was free.
    assert (trace.sent - trace.due).max() > 0.1
    assert (trace.lag < trace.sent - trace.due + 1e-9).all()
    assert trace.lag[6:20].sum() < (trace.sent - trace.due)[6:20].sum() / 2


def test_error_statuses_are_failures() -> None:
    """Only a 200 is an answer; the rest is counted by status."""
    refused = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
    with serving(lambda n: refused if n % 2 else OK) as address:
        trace = offer(address, [REQUEST], rate=200, seconds=0.1, connections=1)
    assert trace.summary()["by_status"] == {"200": 10, "503": 10}
    assert trace.failures == 10


def test_a_lost_connection_fails_one_request_and_is_opened_again() -> None:
    """Without an answer the status is 0 and the latency infinite; the next is asked anew."""
    with serving(lambda n: None if n == 3 else OK) as address:
        trace = offer(address, [REQUEST], rate=200, seconds=0.1, connections=1)
    assert trace.failures == 1
    assert np.isinf(trace.latency).sum() == 1
    assert (trace.status == 200).sum() == 19


def test_connection_close_is_obeyed() -> None:
    """An answer that closes is an answer, and the next request goes over a new connection."""
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with serving(lambda n: closing) as address:
        trace = offer(address, [REQUEST], rate=100, seconds=0.1, connections=2)
    assert trace.failures == 0


@pytest.mark.parametrize("cut", [0, 10, len(OK) - 1])
def test_part_of_an_answer_is_no_answer_yet(cut: int) -> None:
    """It waits for the head and for as many bytes as the head says."""
    assert read_answer(OK[:cut]) is None


def test_an_answer_is_read_whatever_the_case_of_its_headers() -> None:
    """Status, version and whether the connection stays open."""
    assert read_answer(OK) == (200, b"v1", True)
    assert read_answer(OK.upper().replace(b"\r\n\r\n{}", b"\r\nCONNECTION: CLOSE\r\n\r\n{}")) == (
        200,
        b"v1",
        False,
    )


def test_a_chunked_answer_is_refused() -> None:
    """What the generator cannot read is an error, never a wrong figure."""
    with pytest.raises(ProtocolError, match="without Content-Length"):
        read_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def trace_of(*entries: tuple[float, float, str]) -> Trace:
    """Requests as (sent, done, version)."""
    sent, done, versions = zip(*entries, strict=True)
    names = ["", *dict.fromkeys(versions)]
    moments = np.array(sent)
    status = np.full(len(entries), 200)
    return Trace(
        moments,
        moments,
        np.zeros(len(entries)),
        np.array(done),
        status,
        np.array([names.index(v) for v in versions]),
        names,
    )


def test_answers_after_a_switch_must_be_of_the_new_version() -> None:
    """Only requests that began after it returned, and ended before the next began, are judged."""
    switches = [
        {"to": "v2", "begin": 1.0, "returned": 1.1},
        {"to": "v1", "begin": 2.0, "returned": 2.1},
    ]
    fine = trace_of((1.05, 1.2, "v1"), (1.2, 1.3, "v2"), (1.9, 2.05, "v1"), (2.2, 2.3, "v1"))
    assert stale(fine, switches) == 0
    assert stale(trace_of((1.2, 1.3, "v1"), (2.2, 2.3, "v2")), switches) == 2


def test_between_keeps_what_was_due_in_the_window() -> None:
    """Windows are cut by the intended moments."""
    trace = trace_of((1.0, 1.1, "v1"), (2.0, 2.1, "v1"), (3.0, 3.1, "v1"))
    assert trace.between(1.5, 2.5).summary()["requests"] == 1
    assert trace.between(5, 6).summary() == {"requests": 0, "failures": 0}
