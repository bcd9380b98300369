"""What a Prometheus answer means, how it is asked, and what is never shown."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hotswap.errors import BadInput, ConfigError, MetricsUnavailable
from hotswap.sources.prometheus import QUERY_BYTES, PrometheusSource
from tests.http_answers import HttpAnswers, as_json, http_answers, prometheus, refusal


@pytest.fixture
async def server() -> AsyncIterator[HttpAnswers]:
    async with http_answers() as answers:
        yield answers


@pytest.fixture
async def source(server: HttpAnswers) -> AsyncIterator[PrometheusSource]:
    async with PrometheusSource(server.url) as made:
        yield made


def sample(value: object) -> dict[str, object]:
    """One element of a vector."""
    return {"metric": {"job": "api"}, "value": [1700000000.123, value]}


@pytest.mark.parametrize(
    ("kind", "result", "number"),
    [
        ("scalar", [1700000000.1, "0.25"], 0.25),
        ("vector", [sample("3")], 3.0),
        ("vector", [sample("-1e-3")], -0.001),
        ("vector", [sample("0")], 0.0),
        ("vector", [], None),
        ("vector", [sample("NaN")], None),
        ("vector", [sample("+Inf")], None),
        ("scalar", [1700000000.1, "-Inf"], None),
    ],
)
async def test_one_number_or_none(
    server: HttpAnswers, source: PrometheusSource, kind: str, result: object, number: float | None
) -> None:
    """A scalar or a single sample is its number; none, or none that is finite, is no data."""
    server.act = prometheus(kind, result)
    assert await source.read("up") == number


@pytest.mark.parametrize(
    ("kind", "result", "says"),
    [
        ("vector", [sample("1"), sample("2"), sample("3")], "gives 3 samples: aggregate it"),
        ("matrix", [{"metric": {}, "values": [[1, "1"]]}], "use a function of it, such as rate"),
        ("string", [1700000000, "text"], "gives a text"),
        ("vector", [{"metric": {}, "histogram": [1, {}]}], r"histogram_quantile\(…\)"),
    ],
)
async def test_a_query_that_gives_no_single_number_is_wrong(
    server: HttpAnswers, source: PrometheusSource, kind: str, result: object, says: str
) -> None:
    """The error says what to do about it."""
    server.act = prometheus(kind, result)
    with pytest.raises(BadInput, match=says):
        await source.read("up")


async def test_a_refused_query_is_wrong_in_prometheus_words(
    server: HttpAnswers, source: PrometheusSource
) -> None:
    """Prometheus' own message, on one line and not too long."""
    server.act = refusal('parse error:\n  unexpected "}"' + "x" * 5000)
    with pytest.raises(BadInput, match='refuses the query: parse error: unexpected "}"') as caught:
        await source.read("sum(}")
    assert len(str(caught.value)) < 400
    server.act = refusal("many-to-many matching not allowed", "execution", 422)
    with pytest.raises(BadInput, match="many-to-many"):
        await source.read("a / b")


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503])
async def test_a_refusal_of_the_asker_is_an_outage(
    server: HttpAnswers, source: PrometheusSource, status: int
) -> None:
    """Credentials, rate limits and failures say nothing about the query."""
    server.act = refusal("no", "anything", status)
    with pytest.raises(MetricsUnavailable, match=str(status)):
        await source.read("up")


async def test_a_number_with_a_warning_is_not_used(
    server: HttpAnswers, source: PrometheusSource
) -> None:
    """A part of the data is an outage; a doubt about the query is a wrong query."""
    server.act = prometheus("vector", [sample("0")], warnings=["store b: connection refused"])
    with pytest.raises(MetricsUnavailable, match="a part of the data: store b"):
        await source.read("up")
    server.act = prometheus("vector", [sample("0")], warnings=["PromQL warning: bucket label"])
    with pytest.raises(BadInput, match="bucket label"):
        await source.read("up")
    server.act = prometheus("vector", [sample("0")], warnings=[], infos=["PromQL info: a name"])
    assert await source.read("up") == 0.0


async def test_it_asks_as_prometheus_wants_to_be_asked(server: HttpAnswers) -> None:
    """Under any path, the query unchanged, with the token, and with how long it waits."""
    server.act = prometheus("scalar", [1, "1"])
    async with PrometheusSource(server.url + "/prom/", token="t0k3n", timeout=2.5) as source:
        assert await source.read('sum(rate(x{a="ü&+"}[1m])) > 0') == 1.0
        await source.read("up")
    first = server.asked[0]
    assert first.path == "/prom/api/v1/query"
    assert first.params == {"query": 'sum(rate(x{a="ü&+"}[1m])) > 0', "timeout": "2500ms"}
    assert first.headers["authorization"] == "Bearer t0k3n"
    assert server.asked[1].params["query"] == "up"


async def test_a_user_in_the_address_becomes_basic_authentication(server: HttpAnswers) -> None:
    """Percent-encoded or not."""
    server.act = prometheus("scalar", [1, "1"])
    async with PrometheusSource(server.url.replace("//", "//me:p%40ss@")) as source:
        assert await source.read("up") == 1.0
    sent = server.asked[0].headers["authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"me:p@ss"


async def test_no_secret_is_ever_shown(server: HttpAnswers) -> None:
    """Not when it cannot be reached, and not when the server sends it back."""
    for url, token in (
        (server.url, "t0k3n-s3cret"),
        (server.url.replace("//", "//me:t0k3n-s3cret@"), None),
    ):
        async with PrometheusSource(url, token=token) as source:
            server.act = refusal("you sent t0k3n-s3cret, which is wrong")
            with pytest.raises(BadInput, match=r"you sent \*\*\*, which is wrong"):
                await source.read("up")
            server.act = as_json("t0k3n-s3cret", 500)
            with pytest.raises(MetricsUnavailable) as caught:
                await source.read("up")
            assert "s3cret" not in str(caught.value)
            assert "me" not in str(caught.value).split("//")[1].split("/")[0]
    gone = PrometheusSource("http://me:t0k3n-s3cret@127.0.0.1:1/x")
    with pytest.raises(MetricsUnavailable, match=r"^http://127.0.0.1:1/x cannot be reached"):
        await gone.read("up")
    await gone.close()
    await gone.close()


async def test_a_query_that_cannot_be_sent_is_wrong(
    server: HttpAnswers, source: PrometheusSource
) -> None:
    """Too long for an address, or no text; the longest that may be is sent whole."""
    with pytest.raises(BadInput, match="make a recording rule of it"):
        await source.read("x" * (QUERY_BYTES + 1))
    with pytest.raises(BadInput, match="not valid Unicode"):
        await source.read("\ud800")
    assert server.asked == []
    server.act = prometheus("scalar", [1, "1"])
    longest = "€" * (QUERY_BYTES // 3)
    assert await source.read(longest) == 1.0
    assert server.asked[0].params["query"] == longest


async def test_authorities_that_cannot_be_read_are_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: HttpAnswers
) -> None:
    """It ends no process; once they can be read, so can Prometheus."""
    server.act = prometheus("scalar", [1, "1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    async with PrometheusSource(server.url) as source:
        with pytest.raises(MetricsUnavailable, match="certificate authorities cannot be read"):
            await source.read("up")
        monkeypatch.delenv("SSL_CERT_FILE")
        assert await source.read("up") == 1.0


@pytest.mark.parametrize(
    "url",
    ["ftp://h", "127.0.0.1:9090", "http://", "http://h:x", "http://h/?a=b", "http://[x", "", "//h"],
)
def test_an_address_that_cannot_be_asked_is_refused(url: str) -> None:
    """With a sentence that shows what one looks like."""
    with pytest.raises(ConfigError, match="must be like http://"):
        PrometheusSource(url)


async def test_an_ipv6_address_stays_one(server: HttpAnswers) -> None:
    """Its brackets are kept."""
    source = PrometheusSource("http://[::1]:1/")
    with pytest.raises(MetricsUnavailable, match=r"^http://\[::1\]:1 cannot be reached"):
        await source.read("up")
    await source.close()
