"""What may reach the control API at all."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from hotswap.server.admin import create_app
from hotswap.server.guard import Guard
from hotswap.testing.fake_control import FakeControl

TOKEN = "t0k3n"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]


def _client(**options: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(
        create_app(FakeControl(), **options), raise_app_exceptions=False
    )
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081")


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with _client(allowed_hosts=["models.example"]) as c:
        yield c


def _error(response: httpx2.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["error"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8081", 200),
        ("localhost", 200),
        ("LOCALHOST.:1", 200),
        ("[::1]:8081", 200),
        ("models.example", 200),
        ("evil.example", 421),
        ("10.0.0.1", 421),
        ("127.0.0.1.evil.example", 421),
        ("a/b?x", 400),
        ("user@localhost", 400),
        ("localhost:x", 400),
        ("", 400),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/models", "/healthz", "/"])
async def test_only_known_hosts_are_answered(
    client: httpx2.AsyncClient, host: str, status: int, path: str
) -> None:
    """Loopback and the operator's names; others 421; what is no host 400."""
    answer = await client.get(path, headers={"host": host})
    assert answer.status_code == status
    if status != 200:
        assert "error" in answer.json()


async def test_two_host_headers_are_400(client: httpx2.AsyncClient) -> None:
    """A request that names two hosts is understood by nobody."""
    headers = [("host", "localhost"), ("host", "evil.example")]
    _error(await client.get("/api/v1/models", headers=headers), 400)


async def test_a_server_on_every_address_answers_any_address_but_no_unknown_name() -> None:
    """DNS rebinding needs a name: an address in Host is safe."""
    async with _client(allowed_hosts=["0.0.0.0"]) as client:
        for host, status in (("10.0.0.7:8081", 200), ("[fe80::1]", 200), ("evil.example", 421)):
            answer = await client.get("/api/v1/models", headers={"host": host})
            assert answer.status_code == status


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8080"},
        {"origin": "http://127.0.0.1:8081@evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example", "x-http-method-override": "DELETE"},
    ],
)
async def test_other_sites_pages_are_refused_with_every_method(
    client: httpx2.AsyncClient, method: str, headers: dict[str, str]
) -> None:
    """403 for what a browser sends from elsewhere, whatever the method."""
    answer = await client.request(method, "/api/v1/models/fraud", headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:8081", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "https://models.example", "host": "models.example"},
        {"origin": "https://models.example", "host": "models.example:443"},
    ],
)
async def test_this_servers_own_pages_are_answered(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    """Same origin, also behind a proxy that ends TLS."""
    assert (await client.get("/api/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
async def test_a_method_override_is_refused(client: httpx2.AsyncClient, name: str) -> None:
    """An override is not honoured, so it is not ignored either."""
    answer = await client.post("/api/v1/models/fraud", headers={name: "DELETE"})
    assert name.lower() in _error(answer, 400)


async def test_a_token_is_asked_for_everywhere_but_on_health_routes() -> None:
    """401 without the right token, on unknown routes too; health is open."""
    async with _client(token=TOKEN) as client:
        for path in ("/api/v1/models", "/", "/docs", "/metrics", "/openapi.json", "/nowhere"):
            answer = await client.get(path)
            assert "Authorization: Bearer TOKEN" in _error(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/healthz/../api/v1/models")).status_code == 401


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN} ", 200),
        (_basic(f"me:{TOKEN}"), 200),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer", 401),
        ("Bearer é", 401),
        (TOKEN, 401),
        (_basic(TOKEN), 401),
        ("Basic !!", 401),
        ("Digest x", 401),
    ],
)
async def test_the_token_is_bearer_or_a_browsers_password(authorization: str, status: int) -> None:
    """The right token under a known scheme, and nothing else."""
    async with _client(token=TOKEN) as client:
        headers = [(b"authorization", authorization.encode())]
        answer = await client.get("/api/v1/models", headers=headers)
        assert answer.status_code == status


async def test_a_browser_is_asked_for_a_password() -> None:
    """Where HTML is wanted, the challenge is one that browsers know."""
    async with _client(token=TOKEN) as client:
        answer = await client.get("/", headers={"accept": "text/html,*/*"})
        assert answer.headers["www-authenticate"].startswith("Basic")


async def test_two_authorization_headers_are_refused() -> None:
    """One of two tokens being right is not enough."""
    async with _client(token=TOKEN) as client:
        headers = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer x")]
        _error(await client.get("/api/v1/models", headers=headers), 401)


async def test_a_large_body_is_413_declared_or_not(client: httpx2.AsyncClient) -> None:
    """1 MiB at most, by Content-Length or by what arrives."""
    url = "/api/v1/models/fraud/switch"
    answer = await client.post(url, content=b" " * (1024 * 1024 + 1))
    assert "1048576 bytes" in _error(answer, 413)
    assert answer.headers["connection"] == "close"

    async def drip() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 65536

    _error(await client.post(url, content=drip()), 413)
    _error(await client.post(url, content=b" " * 1024 * 1024), 400)


async def test_a_body_that_never_comes_is_408() -> None:
    """A slow sender holds no request for ever."""
    import asyncio

    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the application was called")

    guard = Guard(app, receive_seconds=0.01)
    scope = {"type": "http", "path": "/", "headers": [(b"host", b"localhost")]}
    await guard(scope, receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_answers_carry_security_headers_and_the_requests_id(
    client: httpx2.AsyncClient,
) -> None:
    """On every answer, refusals included."""
    for path, headers in (("/healthz", {}), ("/nowhere", {}), ("/", {"origin": "null"})):
        answer = await client.get(path, headers=headers | {"x-request-id": "abc"})
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-request-id"] == "abc"
    fresh = await client.get("/healthz", headers={"x-request-id": "not an id"})
    assert len(fresh.headers["x-request-id"]) == 32
