"""The control API: routes, bodies, answers and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from hotswap.errors import OutOfMemory, StoreError, Unavailable
from hotswap.server.admin import create_app
from hotswap.testing.fake_control import FakeControl


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def client(control: FakeControl) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(control), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as c:
        yield c


async def _add(client: httpx2.AsyncClient, **body: Any) -> httpx2.Response:
    return await client.post("/api/v1/models/fraud/versions", json={"uri": "/m/x"} | body)


def _error(response: httpx2.Response, status: int) -> str:
    """The sentence of an error, which is all that its body holds."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    return str(body["error"])


async def test_a_version_is_registered_switched_to_and_rolled_back_from(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """The whole way of a version through the API, with the contract's keys."""
    first = await _add(client, version="v1", metadata={"auc": 0.9}, changelog="first")
    assert first.status_code == 201
    assert first.headers["location"] == "/api/v1/models/fraud/versions/v1"
    assert first.json()["digest"].startswith("sha256:")
    assert (await _add(client, uri="/m/y")).json()["version"] == "v2"

    switched = await client.post("/api/v1/models/fraud/switch", json={"version": "v1"})
    answer = switched.json()
    assert (answer["from"], answer["to"], answer["revision"]) == (None, "v1", 1)
    assert (answer["operation_id"], answer["prepare_ms"], answer["flip_ms"]) == ("op-1", 12.5, 0.25)
    await client.post("/api/v1/models/fraud/switch", json={"version": "v2", "force": True})
    back = await client.post("/api/v1/models/fraud/rollback")
    assert (back.json()["from"], back.json()["to"]) == ("v2", "v1")
    assert control.calls[3] == ("switch", "fraud", "v2", True, None)

    model = (await client.get("/api/v1/models/fraud")).json()
    assert (model["active"], model["previous"]) == ("v1", "v2")
    roles = {version["version"]: version["role"] for version in model["versions"]}
    assert roles == {"v1": "stable", "v2": "previous"}
    assert (await client.get("/api/v1/models")).json() == {"models": [model]}
    version = await client.get("/api/v1/models/fraud/versions/v1")
    assert version.json()["metadata"] == {"auc": 0.9}


async def test_a_version_is_loaded_and_unloaded(client: httpx2.AsyncClient) -> None:
    """Load and unload answer with their operation, which can be asked for again."""
    await _add(client, version="v1")
    loaded = await client.post("/api/v1/models/fraud/versions/v1/load")
    assert (loaded.status_code, loaded.json()["state"]) == (200, "done")
    unloaded = (await client.post("/api/v1/models/fraud/versions/v1/unload")).json()
    listed = (await client.get("/api/v1/operations")).json()["operations"]
    assert [operation["kind"] for operation in listed] == ["unload", "load"]
    assert (await client.get(f"/api/v1/operations/{unloaded['id']}")).json() == unloaded


async def test_a_version_and_a_model_are_removed(client: httpx2.AsyncClient) -> None:
    """What has traffic is kept: 409."""
    await _add(client, version="v1")
    await _add(client, version="v2")
    await client.post("/api/v1/models/fraud/switch", json={"version": "v1"})
    _error(await client.delete("/api/v1/models/fraud/versions/v1"), 409)
    _error(await client.delete("/api/v1/models/fraud"), 409)
    removed = await client.delete("/api/v1/models/fraud/versions/v2")
    assert removed.json() == {"model": "fraud", "version": "v2"}


async def test_who_registered_a_version_is_kept(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """The claimed name is shown with the address; what is no name is left out."""
    url = "/api/v1/models/fraud/versions"
    await client.post(url, json={"uri": "/m"}, headers={"x-hotswap-user": "ada"})
    await client.post(url, json={"uri": "/m"}, headers={"x-hotswap-user": "<b>"})
    assert [call[-1] for call in control.calls] == ["ada (127.0.0.1)", "127.0.0.1"]


async def test_an_idempotency_key_gives_the_first_answer_again(client: httpx2.AsyncClient) -> None:
    """The same key again switches nothing."""
    await _add(client, version="v1")
    body = {"version": "v1", "idempotency_key": "k"}
    first = await client.post("/api/v1/models/fraud/switch", json=body)
    again = await client.post("/api/v1/models/fraud/switch", json=body)
    assert again.json() == first.json()


async def test_the_simple_admin_routes_are_the_same_service(client: httpx2.AsyncClient) -> None:
    """Set the active version without naming the only model; list; clear; health."""
    await _add(client, version="v1")
    await _add(client, version="v2")
    answer = await client.post("/admin/set-active-version", json={"version": "v1"})
    assert answer.json()["to"] == "v1"
    await client.post("/admin/set-active-version", json={"model": "fraud", "version": "v2"})
    assert (await client.get("/admin/models")).json() == (await client.get("/api/v1/models")).json()
    cleared = await client.post("/admin/clear-cache")
    assert cleared.json() == {"cleared": [{"model": "fraud", "version": "v1"}]}
    health = await client.get("/admin/health")
    fraud = {"active": "v2", "state": "READY", "reason": ""}
    assert health.json() == {"ready": True, "models": {"fraud": fraud}}


async def test_health_says_why_the_node_is_not_ready(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Live while it runs; unready with the reason and 503."""
    assert (await client.get("/healthz")).json() == {"live": True}
    assert (await client.get("/readyz")).json() == {"ready": True}
    assert (await client.head("/readyz")).status_code == 200
    control.unready = "model 'fraud' is loading"
    assert (await client.get("/healthz")).status_code == 200
    for path in ("/readyz", "/admin/health"):
        unready = await client.get(path)
        assert unready.status_code == 503
        assert unready.json()["error"] == "model 'fraud' is loading"


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("switch", b"{", "the body is not valid JSON"),
        ("switch", b"[" * 100_000, ""),
        ("switch", b"", "this route needs a JSON body"),
        ("switch", b"[]", "the body must be a JSON object"),
        ("switch", b"{}", "the body needs 'version'"),
        ("switch", b'{"version": 2}', "'version' is refused: input should be a valid string"),
        ("switch", b'{"version": "../x"}', "the version name '../x' is not valid"),
        ("switch", b'{"version": "v\\ud800"}', "'version' is refused"),
        ("switch", b'{"version": "v1", "fource": 1}', "the body has unknown keys: 'fource'"),
        ("switch", b'{"version": "v1", "\\ud800": 1}', "with valid Unicode keys"),
        ("switch", b'{"version": "v1", "force": "yes"}', "'force' is refused"),
        ("switch", b'{"version": "v1", "strategy": "canary"}', "to POST /api/v1/rollouts"),
        ("rollback", b'{"version": "v1"}', "the body has unknown keys: 'version'"),
        ("versions", b'{"version": "v1"}', "the body needs 'uri'"),
        ("versions", b'{"uri": "s3://bucket"}', "names a whole bucket"),
        ("versions", b'{"uri": "models:/fraud"}', "names no registered version"),
        ("versions", b'{"uri": "http://x/y"}', "http: URIs are not supported"),
        ("versions", b'{"uri": "file://host/y"}', "needs three slashes"),
        ("versions", b'{"uri": "a\\u0000b"}', "must be the path of a file or a folder"),
        ("versions", b'{"uri": "/m", "metadata": {"a": NaN}}', "must not hold NaN"),
        ("versions", b'{"uri": "/m", "metadata": {"a": "\\ud800"}}', "must hold valid Unicode"),
        ("versions", b'{"uri": "/m", "metadata": {"a": 1e999}}', "must not hold NaN or infinity"),
        ("versions", b'{"uri": "/m", "metadata": {"a": [%d]}}' % 10**30, "more than 64 bits"),
        ("versions", b'{"uri": "/m", "metadata": %s1%s}' % (b'{"a":' * 40, b"}" * 40), "nested"),
    ],
)
async def test_a_bad_body_is_400_in_a_sentence(
    client: httpx2.AsyncClient, control: FakeControl, path: str, body: bytes, says: str
) -> None:
    """Nothing unsupported is ignored, and 422 is not used."""
    headers = {"content-type": "application/json"}
    answer = await client.post(f"/api/v1/models/fraud/{path}", content=body, headers=headers)
    assert says in _error(answer, 400)
    assert control.calls == []


async def test_a_file_uri_is_a_path(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """file:///… reaches control as the path it means."""
    await _add(client, uri="file:///m/a%20b")
    assert control.calls[0][2] == "/m/a b"


async def test_a_body_needs_no_content_type_but_may_have_no_other(
    client: httpx2.AsyncClient,
) -> None:
    """Absent: JSON. Anything else than plain UTF-8 JSON: 415 naming it."""
    await _add(client, version="v1")
    url, body = "/api/v1/models/fraud/switch", b'{"version": "v1"}'
    assert (await client.post(url, content=body)).status_code == 200
    good = {"content-type": 'application/json; charset="UTF-8"'}
    assert (await client.post(url, content=body, headers=good)).status_code == 200
    for bad in (
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-encoding": "gzip"},
    ):
        _error(await client.post(url, content=body, headers=bad), 415)


@pytest.mark.parametrize("name", ["..%2fetc", "%00", "a b", "-x", "é", "x" * 129, "a..b"])
async def test_a_bad_name_in_a_path_is_400(client: httpx2.AsyncClient, name: str) -> None:
    """Names are checked before control is asked; a slash is no part of a name."""
    answer = await client.get(f"/api/v1/models/{name}")
    assert "error" in answer.json()
    assert answer.status_code == (404 if "2f" in name else 400)


async def test_unknown_things_are_404(client: httpx2.AsyncClient) -> None:
    """Models, versions, operations and routes; a trailing slash is another route."""
    await _add(client, version="v1")
    assert "no model 'x'" in _error(await client.get("/api/v1/models/x"), 404)
    missing = await client.get("/api/v1/models/fraud/versions/v9")
    assert "it has: v1" in _error(missing, 404)
    _error(await client.get("/api/v1/operations/op-9"), 404)
    assert "no route /nowhere" in _error(await client.get("/nowhere"), 404)
    _error(await client.get("/api/v1/models/"), 404)
    _error(await client.get("/docs/assets/LICENSE"), 404)


async def test_a_wrong_method_is_405_and_names_the_right_one(client: httpx2.AsyncClient) -> None:
    """405 with Allow, unknown methods included."""
    answer = await client.request("BREW", "/api/v1/models/fraud/switch")
    assert "POST" in _error(answer, 405)
    assert answer.headers["allow"] == "POST"


async def test_controls_errors_become_their_status(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Each error has one status; those that pass say when to come back."""
    await _add(client, version="v1", uri="/m/broken")
    loaded = await client.post("/api/v1/models/fraud/versions/v1/load")
    assert "ValueError: not a model" in _error(loaded, 409)
    control.failure = StoreError("the store is locked")
    assert _error(await client.get("/api/v1/models"), 503) == "the store is locked"
    control.failure = OutOfMemory()
    _error(await client.get("/api/v1/models"), 507)
    control.failure = Unavailable("starting", retry_after=2.5)
    answer = await client.get("/api/v1/models")
    assert _error(answer, 503) == "starting"
    assert answer.headers["retry-after"] == "3"


async def test_an_unexpected_error_is_500_and_tells_nothing(
    client: httpx2.AsyncClient, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong is in the log, not in the answer."""

    async def explode() -> None:
        raise RuntimeError("secret /etc/passwd")

    monkeypatch.setattr(control, "operations", explode)
    assert "secret" not in _error(await client.get("/api/v1/operations"), 500)


async def test_info_is_what_control_says(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """Addresses and versions."""
    assert (await client.get("/api/v1/info")).json() == control.details
