"""The route of a model's report."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import msgspec
import pytest

from hotswap.core.quality_views import Quality
from hotswap.errors import NotFound, StoreError
from hotswap.server.admin import create_app
from hotswap.testing.fake_control import FakeControl
from hotswap.web import quality
from tests.unit.web.quality_samples import binary

URL = "/api/v1/models/fraud/report"


@pytest.fixture
async def control() -> FakeControl:
    control = FakeControl()
    await control.register("fraud", "/m/v1", version="v1")
    control.qualities["fraud"] = binary()
    control.calls.clear()
    return control


@pytest.fixture
async def client(control: FakeControl) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(control, write_report=quality.write)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as c:
        yield c


def _error(response: httpx2.Response, status: int) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    return str(body["error"])


async def test_the_report_as_json(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """Everything there is, of all that is recorded."""
    answer = await client.get(URL)
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=Quality) == binary()
    assert control.calls == [("quality", "fraud", None, None, None, None)]


async def test_what_it_is_asked_for(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """A stretch of time, two versions, an input."""
    await client.get(
        f"{URL}?since_seconds=3600&until=2023-11-14T22:13:20Z&versions=v1,v2&by=the%20amount"
    )
    assert control.calls == [("quality", "fraud", 3600.0, 1.7e9, ("v1", "v2"), "the amount")]


@pytest.mark.parametrize(
    ("form", "kind", "begin"),
    [("html", "text/html", "<!doctype html>"), ("markdown", "text/markdown", "# fraud")],
)
async def test_pages(client: httpx2.AsyncClient, form: str, kind: str, begin: str) -> None:
    """HTML that may load nothing, or Markdown."""
    answer = await client.get(f"{URL}?format={form}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.text.startswith(begin)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("since=7d", "there is no query parameter 'since' here"),
        ("by=a&by=b", "give the query parameter 'by' once"),
        ("since_seconds=0", "since_seconds"),
        ("since_seconds=nan", "since_seconds"),
        ("since_seconds=inf", "since_seconds"),
        ("since_seconds=soon", "since_seconds"),
        ("until=soon", "until must be a Unix time or a date"),
        ("until=-5", "until must be"),
        ("until=inf", "until must be"),
        ("versions=v1", "versions takes two different ones"),
        ("versions=v1,v1", "versions takes two different ones"),
        ("versions=v1,v2,v3", "versions takes two different ones"),
        ("versions=v1,..%2Fx", "version"),
        ("by=", "by names no input"),
        ("format=pdf", "format"),
    ],
)
async def test_bad_queries(
    client: httpx2.AsyncClient, control: FakeControl, query: str, words: str
) -> None:
    """400 with a sentence that names what is wrong; nothing is measured."""
    assert words in _error(await client.get(f"{URL}?{query}"), 400)
    assert control.calls == []


async def test_what_cannot_be_reported(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """An unknown model, a server that does not record, a store that is away."""
    assert "nope" in _error(await client.get("/api/v1/models/nope/report"), 404)
    _error(await client.get("/api/v1/models/a%20b/report"), 400)
    control.qualities.clear()
    assert "--records on" in _error(await client.get(URL), 409)
    control.failure = StoreError("the store is away")
    _error(await client.get(URL), 503)
    control.failure = NotFound("nothing of model 'fraud' is recorded in that time")
    assert "nothing" in _error(await client.get(URL), 404)


async def test_without_a_writer_there_is_json(control: FakeControl) -> None:
    """Another form is refused with a reason."""
    transport = httpx2.ASGITransport(create_app(control), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as client:
        assert (await client.get(URL)).status_code == 200
        assert "JSON alone" in _error(await client.get(f"{URL}?format=html"), 400)


async def test_the_document_tells_of_it(client: httpx2.AsyncClient) -> None:
    """Its parameters, its forms, and what the report holds."""
    document = (await client.get("/openapi.json")).json()
    route = document["paths"]["/api/v1/models/{model}/report"]["get"]
    names = {each["name"] for each in route["parameters"]}
    assert names == {"model", "since_seconds", "until", "versions", "by", "format"}
    kinds = route["responses"]["200"]["content"]
    assert set(kinds) == {"application/json", "text/html", "text/markdown"}
    assert kinds["application/json"]["schema"]["$ref"].endswith("/Quality")
    assert "differences" in document["components"]["schemas"]["Quality"]["properties"]
