"""Steady load on raw connections, in a thread of its own, with a record of every request."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from tests.e2e.harness import wait_until
from tests.e2e.tricks import number_of


class Sent(NamedTuple):
    """One request: monotonic seconds, status (0: the connection broke), version, what was wrong.

    ``number`` is what the model answered, NaN if it did not; ``port`` the client's; ``key`` what
    it was sent with; ``fallback`` why stable answered for a candidate; ``id`` the request's.
    """

    start: float
    end: float
    status: int
    version: str
    number: float
    port: int
    problem: str
    key: str = ""
    fallback: str = ""
    id: str = ""


class Switched(NamedTuple):
    """One switch: when it was asked for and when its answer was here."""

    asked: float
    answered: float
    version: str


class Load:
    """Closed loops over so many connections while the block runs.

    ``fresh``: a new connection for every request. ``pause``: seconds between the requests of a
    connection, so that two processors are not kept from what is tested; it may be changed. ``keys``: send each
    request under one of so many keys, in turn.
    """

    def __init__(
        self,
        port: int,
        model: str,
        connections: int = 16,
        *,
        fresh: bool = False,
        pause: float = 0.004,
        row: Sequence[float] = (1.0, 2.0),
        keys: int = 0,
    ) -> None:
        self.sent: list[Sent] = []
        self._port = port
        self._fresh = fresh
        self._connections = connections
        self.pause = pause
        body = json.dumps({"features": list(row), "model": model}).encode()
        self._head = (
            b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        )
        self._rest = b"content-length: %d\r\n\r\n%s" % (len(body), body)
        self._keys = keys
        self._begun = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait(2 * self._connections)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)

    def wait(self, more: int) -> None:
        """Until so many more requests have ended."""
        goal = len(self.sent) + more
        wait_until(lambda: len(self.sent) >= goal, f"{more} requests to end")

    async def _run(self) -> None:
        await asyncio.gather(*(self._loop() for _ in range(self._connections)))

    async def _loop(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop.is_set():
            start = time.monotonic()
            port = 0
            self._begun += 1
            key = f"user-{self._begun % self._keys}" if self._keys else ""
            header = f"x-hotswap-key: {key}\r\n".encode() if key else b""
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", self._port)
                port = streams[1].get_extra_info("sockname")[1]
                start = time.monotonic()
                streams[1].write(self._head + header + self._rest)
                status, headers, body = await asyncio.wait_for(read_answer(streams[0]), 60)
            except (OSError, EOFError, TimeoutError) as exc:
                problem = f"{type(exc).__name__}: {exc}"
                ended = time.monotonic()
                self.sent.append(Sent(start, ended, 0, "", float("nan"), port, problem, key))
                if streams is not None:
                    streams[1].close()
                streams = None
                await asyncio.sleep(0.02)
                continue
            end = time.monotonic()
            self.sent.append(_checked(start, end, status, headers, body, port, key))
            if self._fresh or headers.get("connection") == "close":
                streams[1].close()
                streams = None
            if self.pause:
                await asyncio.sleep(self.pause)
        if streams is not None:
            streams[1].close()

    # --- what is expected

    def failures(self) -> list[Sent]:
        """Everything but a 200 whose version, body and number agree."""
        return [sent for sent in self.sent if sent.status != 200 or sent.problem]

    def expect_no_failure(self) -> None:
        """Every request was answered 200 by exactly one version."""
        failed = self.failures()
        kinds = Counter((f.status, f.problem) for f in failed).most_common(5)
        assert not failed, f"{len(failed)} of {len(self.sent)} requests failed: {kinds}"

    def expect_order(self, first: str, switches: Sequence[Switched]) -> None:
        """No request that began after a switch returned, or after an answer of a new version was
        seen, was answered by an older one.
        """
        steps = [Switched(0.0, 0.0, first), *switches]
        good = sorted((s for s in self.sent if s.status == 200), key=lambda s: s.start)
        by_end = sorted(good, key=lambda s: s.end)
        at = known = newest = 0
        for sent in good:
            while known + 1 < len(steps) and steps[known + 1].answered < sent.start:
                known += 1
            while at < len(by_end) and by_end[at].end < sent.start:
                newest = max(newest, _index(steps, by_end[at]))
                at += 1
            oldest = max(known, newest)
            allowed = [s.version for s in steps[oldest:] if s.asked <= sent.end]
            assert sent.version in allowed, (
                f"a request begun {sent.start - steps[known].answered:.4f} s after the switch to "
                f"{steps[known].version} returned was answered by {sent.version}, not {allowed}"
            )


def _index(steps: Sequence[Switched], sent: Sent) -> int:
    """The earliest switch that this answer proves."""
    fitting = [
        number
        for number, step in enumerate(steps)
        if step.version == sent.version
        and step.asked <= sent.end
        and (number + 1 == len(steps) or steps[number + 1].answered >= sent.start)
    ]
    return fitting[0] if fitting else 0


def _checked(
    start: float,
    end: float,
    status: int,
    headers: dict[str, str],
    body: bytes,
    port: int,
    key: str,
) -> Sent:
    version = headers.get("x-hotswap-version", "")
    number, problem = float("nan"), ""
    if status == 200:
        answer = json.loads(body)
        number = answer["prediction"]
        if answer["version"] != version or number_of(version) != number:
            problem = f"the header says {version} and the body {answer}"
    else:
        problem = body.decode(errors="replace")
    fallback = headers.get("x-hotswap-fallback", "")
    id = headers.get("x-request-id", "")
    return Sent(start, end, status, version, number, port, problem, key, fallback, id)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of one answer with a content length."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split(" ", 2)[1]), headers, body
