"""Every metric source keeps the same contract when its server misbehaves.

Whatever a server does, a reading ends in time as a number, as no data, or as one of two errors;
an outage is never taken for a number.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from hotswap.errors import BadInput, MetricsUnavailable
from hotswap.ports import MetricSource
from hotswap.sources.prometheus import ANSWER_BYTES, PrometheusSource
from tests.http_answers import (
    Act,
    HttpAnswers,
    as_json,
    dripping,
    endless,
    hang_up,
    http,
    http_answers,
    prometheus,
    raw,
    silent,
)

Make = Callable[[str, float], MetricSource]
PATIENCE = 30.0


@pytest.fixture(params=["prometheus"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a source of an address and a timeout."""
    return {"prometheus": lambda url, timeout: PrometheusSource(url, timeout=timeout)}[
        request.param
    ]


@pytest.fixture
async def server() -> AsyncIterator[HttpAnswers]:
    async with http_answers() as answers:
        yield answers


@contextlib.asynccontextmanager
async def opened(source: MetricSource) -> AsyncIterator[MetricSource]:
    """A source that is closed in the end, twice."""
    try:
        yield source
    finally:
        await source.close()
        await source.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
OUTAGES: dict[str, Act] = {
    "hangs up": hang_up,
    "is no HTTP": raw(b"220 smtp.example ESMTP\r\n"),
    "status alone": raw(b"HTTP/1.1 200 OK\r\n"),
    "half a body": raw(HEAD[:-2] + b'content-length: 900\r\n\r\n{"status":'),
    "empty": http(b""),
    "page": http(b"<html>log in</html>", 200, "content-type: text/html\r\n"),
    "page with 404": http(b"<html>no</html>", 404),
    "server error": http(b"oops", 500),
    "bad gateway": http(b"", 502),
    "rate limit": as_json({"status": "error", "error": "slow down"}, 429),
    "redirect": http(b"", 302, "location: http://127.0.0.1:1/login?token=x\r\n"),
    "redirect to itself": http(b"", 307, "location: /api/v1/query\r\n"),
    "not UTF-8": http(b'{"status": "\xff\xfe"}'),
    "list": as_json([1, 2]),
    "number": as_json(0.0),
    "null": as_json(None),
    "no data": as_json({"status": "success"}),
    "null data": as_json({"status": "success", "data": None}),
    "error with 200": as_json({"status": "error", "error": "no"}),
    "unknown type": prometheus("tensor", [1, "0"]),
    "scalar that is short": prometheus("scalar", ["0"]),
    "scalar that is no pair": prometheus("scalar", "00"),
    "value that is a number": prometheus("scalar", [1, 0.0]),
    "value that is a word": prometheus("scalar", [1, "none"]),
    "value that is nothing": prometheus("scalar", [1, None]),
    "vector that is an object": prometheus("vector", {"0": 0}),
    "vector of numbers": prometheus("vector", [0]),
    "deep": http(b"[" * 200_000),
    "compressed": http(b"\x1f\x8b\x08\x00" + b"0" * 50, 200, "content-encoding: gzip\r\n"),
}


@pytest.mark.parametrize("what", OUTAGES)
async def test_an_outage_is_no_number(make: Make, server: HttpAnswers, what: str) -> None:
    """What is not an answer is an outage, in one line; the next reading is as good as ever."""
    async with opened(make(server.url, PATIENCE)) as source:
        server.act = OUTAGES[what]
        with pytest.raises(MetricsUnavailable) as caught:
            await source.read("up")
        assert "\n" not in str(caught.value)
        assert "token=x" not in str(caught.value)
        server.act = prometheus("scalar", [1, "0.5"])
        assert await source.read("up") == 0.5


async def test_nobody_listens(make: Make, free_port: int) -> None:
    """A refused connection and an unknown host are outages."""
    for url in (f"http://127.0.0.1:{free_port}", "http://nobody.invalid:9090"):
        async with opened(make(url, PATIENCE)) as source:
            with pytest.raises(MetricsUnavailable, match="cannot be reached"):
                await source.read("up")


@pytest.mark.parametrize("act", [silent, dripping(HEAD)], ids=["silent", "dripping"])
async def test_a_slow_answer_is_an_outage(make: Make, server: HttpAnswers, act: Act) -> None:
    """The timeout is of the whole reading: a byte now and then does not extend it."""
    server.act = act
    async with opened(make(server.url, 0.2)) as source:
        with pytest.raises(MetricsUnavailable, match=r"did not answer within 0\.2 s"):
            await source.read("up")


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (HEAD, MetricsUnavailable),
        (b"HTTP/1.1 500 X\r\n\r\n", MetricsUnavailable),
        (HEAD + b'{"status":"success","data":{"resultType":"vector","result":["', BadInput),
    ],
    ids=["garbage", "failure", "samples"],
)
async def test_a_huge_answer_is_not_read(
    make: Make, server: HttpAnswers, head: bytes, error: type[Exception]
) -> None:
    """No more is taken of an answer without end than one number could need."""
    taken: list[int] = []
    server.act = endless(head, taken)
    async with opened(make(server.url, PATIENCE)) as source:
        with pytest.raises(error):
            await source.read("up")
    # What lies in the sockets' buffers was sent as well, so this is far above the bound.
    assert sum(taken) < ANSWER_BYTES + 32 * 2**20


async def test_a_reading_can_be_given_up(make: Make, server: HttpAnswers) -> None:
    """Cancelling ends it at once, and the source is still of use."""
    async with opened(make(server.url, PATIENCE)) as source:
        server.act = silent
        reading = asyncio.create_task(source.read("up"))
        await server.heard.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        server.act = prometheus("scalar", [1, "7"])
        assert await source.read("up") == 7.0


async def test_readings_at_once(make: Make, server: HttpAnswers) -> None:
    """Many rollouts may ask at the same time."""
    server.act = prometheus("scalar", [1, "7"])
    async with opened(make(server.url, PATIENCE)) as source:
        assert await asyncio.gather(*(source.read(f"q{n}") for n in range(40))) == [7.0] * 40
    assert {asked.params["query"] for asked in server.asked} == {f"q{n}" for n in range(40)}
