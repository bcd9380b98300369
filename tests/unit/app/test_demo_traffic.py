"""The demo's traffic against a small HTTP server: every request is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np

from hotswap.app.demo_bench import DemoModel, DemoVersion
from hotswap.app.demo_traffic import Traffic

MODEL = DemoModel(
    "cancer",
    "classification",
    np.arange(8.0).reshape(4, 2),
    np.array([0, 1, 0, 1]),
    (DemoVersion("v1", "ONNX", "", Path(), np.array([0, 1, 0, 1])),),
)
Reply = Callable[[str, dict[str, Any]], bytes | None]


def http(content: Any, status: str = "200 OK", extra: str = "X-Hotswap-Version: v1\r\n") -> bytes:
    body = json.dumps(content).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def right(path: str, body: dict[str, Any]) -> bytes:
    """What a server answers that knows the labels."""
    if path == "/predict":
        row = int(body["features"][0]) // 2
        return http({"prediction": row % 2, "version": "v1"})
    row = int(body["inputs"][0]["data"][0]) // 2
    return http({"model_version": "v1", "outputs": [{"name": "predict", "data": [row % 2]}]})


@contextlib.asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[tuple[int, list[str]]]:
    """A server on a free port, and the paths it was asked for; None hangs up."""
    asked: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length:")[2].split()[0])
                path = head.split()[1]
                asked.append(path)
                answer = reply(path, json.loads(await reader.readexactly(length)))
                if answer is None:
                    break
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (the traffic has no event to wait for)
            await asyncio.sleep(0.001)


async def test_answers_are_kept_with_version_and_value() -> None:
    """Both protocols are spoken, all rows are asked for, and each value is read."""
    async with serving(right) as (port, asked):
        traffic = Traffic("127.0.0.1", port, [MODEL, MODEL], every=0.001)
        await until(lambda: len(traffic.answers) >= 12)
        await traffic.stop()
    assert {"/predict", "/v2/models/cancer/infer"} <= set(asked)
    assert {each.row for each in traffic.answers} == {0, 1, 2, 3}
    for each in traffic.answers:
        assert (each.problem, each.version, each.named) == ("", "v1", "v1")
        assert each.prediction == MODEL.labels[each.row]
        assert each.seconds > 0
    assert len(traffic.answers) == len(asked)


async def test_covered_waits_until_every_row_was_answered() -> None:
    """It returns once that version has answered all held-out rows."""
    async with serving(right) as (port, _):
        traffic = Traffic("127.0.0.1", port, [MODEL, MODEL], every=0.001)
        await traffic.covered(MODEL, "v1")
        assert {each.row for each in traffic.answers} == {0, 1, 2, 3}
        await traffic.covered(MODEL, "v9", patience=0.01)
        await traffic.stop()


async def test_an_error_status_is_a_problem() -> None:
    """The server's sentence is kept."""
    async with serving(lambda *_: http({"error": "try again"}, "503 Service Unavailable")) as (
        port,
        _,
    ):
        traffic = Traffic("127.0.0.1", port, [MODEL], every=0.001)
        await until(lambda: len(traffic.answers) >= 1)
        await traffic.stop()
    assert traffic.answers[0].problem == '503: {"error": "try again"}'


async def test_a_lost_connection_is_a_problem_and_is_opened_again() -> None:
    """A request without an answer is a failure; the traffic goes on."""
    replies = iter([None])

    def reply(path: str, body: dict[str, Any]) -> bytes | None:
        return next(replies, right(path, body))

    async with serving(reply) as (port, _):
        traffic = Traffic("127.0.0.1", port, [MODEL], every=0.001)
        await until(lambda: len(traffic.answers) >= 3)
        await traffic.stop()
    assert traffic.answers[0].problem.startswith("no answer")
    assert [each.problem for each in traffic.answers[1:3]] == ["", ""]


async def test_a_connection_that_the_server_closes_politely_is_no_failure() -> None:
    """`Connection: close` is obeyed: the next request opens a new connection."""

    def reply(path: str, body: dict[str, Any]) -> bytes | None:
        return right(path, body).replace(
            b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
        )

    async with serving(reply) as (port, _):
        traffic = Traffic("127.0.0.1", port, [MODEL], every=0.001)
        await until(lambda: len(traffic.answers) >= 4)
        await traffic.stop()
    assert not any(each.problem for each in traffic.answers)


async def test_an_answer_that_cannot_be_read_is_a_problem() -> None:
    """A 200 with another content does not pass for an answer."""
    async with serving(lambda *_: http({"hello": 1})) as (port, _):
        traffic = Traffic("127.0.0.1", port, [MODEL, MODEL], every=0.001)
        await until(lambda: len(traffic.answers) >= 2)
        await traffic.stop()
    assert all("cannot be read" in each.problem for each in traffic.answers)


async def test_nobody_listening_is_a_problem() -> None:
    """A refused connection is a request that failed, not an error of the demo."""
    async with serving(right) as (port, _):
        pass
    traffic = Traffic("127.0.0.1", port, [MODEL], every=0.001)
    await until(lambda: len(traffic.answers) >= 1)
    await traffic.stop()
    assert traffic.answers[0].problem.startswith("no answer")


async def test_a_fallback_is_kept_with_its_reason() -> None:
    """Who answered in a candidate's place, and why, is in the answer."""
    extra = "X-Hotswap-Version: v1\r\nX-Hotswap-Fallback: error\r\n"

    def reply(path: str, body: dict[str, Any]) -> bytes:
        return right(path, body).replace(b"X-Hotswap-Version: v1\r\n", extra.encode())

    async with serving(reply) as (port, _):
        traffic = Traffic("127.0.0.1", port, [MODEL], every=0.001)
        await until(lambda: len(traffic.answers) >= 1)
        await traffic.stop()
    assert (traffic.answers[0].version, traffic.answers[0].fallback) == ("v1", "error")
