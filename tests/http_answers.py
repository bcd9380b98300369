"""A server whose every byte a test decides: for clients that must survive anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

Act = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Asked(NamedTuple):
    """One request: its path, its parameters (the first of each), its headers in lower case."""

    path: str
    params: dict[str, str]
    headers: dict[str, str]


class HttpAnswers:
    """Listens on ``url``. What it does with a request is ``act``'s to say; then it hangs up.

    ``heard`` is set by the first request.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.heard = asyncio.Event()
        self.act: Act = hang_up

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            parts = urlsplit(first.split(" ")[1])
            fields = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in fields}
            params = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.asked.append(Asked(parts.path, params, headers))
            self.heard.set()
            await self.act(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone, as some of these tests want it to
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def http_answers() -> AsyncIterator[HttpAnswers]:
    """A server on a free loopback port while the block runs."""
    answers = HttpAnswers()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(answers.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    answers.url = f"http://{host}:{port}"
    try:
        yield answers
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection without a word."""


def raw(*parts: bytes) -> Act:
    """Write these bytes and hang up."""

    async def act(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return act


def http(body: bytes, status: int = 200, headers: str = "") -> Act:
    """A well-formed answer with this body."""
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}"
    return raw(head.encode() + b"\r\n" + body)


def as_json(content: object, status: int = 200) -> Act:
    """A well-formed answer in JSON."""
    return http(json.dumps(content).encode(), status, "content-type: application/json\r\n")


def prometheus(kind: str, result: object, **more: object) -> Act:
    """What Prometheus answers to a query that it understood."""
    return as_json({"status": "success", "data": {"resultType": kind, "result": result}, **more})


def refusal(error: str, kind: str = "bad_data", status: int = 400) -> Act:
    """What Prometheus answers to a query that it will not carry out."""
    return as_json({"status": "error", "errorType": kind, "error": error}, status)


async def silent(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


def dripping(head: bytes) -> Act:
    """Begin an answer and then send a byte now and then, for ever."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    return act


def endless(head: bytes, sent: list[int]) -> Act:
    """Begin an answer and never end it; ``sent`` counts the chunks that were taken."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent.append(65536)

    return act
