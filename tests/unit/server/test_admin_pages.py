"""The status page, the offline API pages, and the OpenAPI document."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest

from hotswap.core.strategy import RolloutSpec, parse
from hotswap.errors import StoreError
from hotswap.server.admin import create_app
from hotswap.server.admin_page import CSP, STYLE
from hotswap.server.admin_system import ASSETS
from hotswap.testing.fake_control import FakeControl


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def client(control: FakeControl) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(control), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as c:
        yield c


async def test_the_status_page_shows_each_version_and_its_reason(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Version, state, role, traffic and what is wrong; it reloads itself without a script."""
    await control.register("fraud", "/m/x", version="v1")
    await control.switch("fraud", "v1")
    page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for text in ("fraud", "v1", "READY", "stable", "100 %", "8.0 MiB", "1 min", 'refresh" content'):
        assert text in page.text
    assert "<script" not in page.text


async def test_the_status_page_escapes_everything(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Names, reasons, warnings and addresses are text, not markup."""
    evil = "<img src=x onerror=alert(1)>\"'"
    await control.register("fraud", "/m/x", version="v1", runtime=evil)
    model = control.table["fraud"]
    version = msgspec.structs.replace(model.versions[0], version=evil, reason=evil, state=evil)
    control.table["fraud"] = msgspec.structs.replace(
        model, name=evil, active=evil, warnings=(evil,), versions=(version,)
    )
    control.details |= {"data": evil, "version": evil}
    control.unready = evil
    assert "<img" not in (await client.get("/")).text


async def test_the_status_page_stays_up_without_the_store(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """It says why there is no list."""
    control.failure = StoreError("the store is <locked>")
    page = await client.get("/")
    assert page.status_code == 200
    assert "the store is &lt;locked&gt;" in page.text
    assert "No model is registered" in (await _empty()).text


async def test_the_status_page_shows_running_rollouts(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Candidate, phase, step, weight and message, escaped; none when it is over."""
    for version in ("v1", "v2"):
        await control.register("fraud", "/m/x", version=version)
    await control.switch("fraud", "v1")
    assert "Rollouts" not in (await client.get("/")).text
    body = {"model": "fraud", "version": "v2", "strategy": "canary", "steps": [7.5]}
    view = await control.start_rollout(body)
    control.see(view.id, phase="Paused", message="<b>needs you")
    page = (await client.get("/")).text
    row = re.search(r"<h2>Rollouts.*?</tbody>", page)
    assert row is not None
    for text in ("fraud", "v2", "Paused", "2 of 5: hold 5 min", "7.5 %", "&lt;b&gt;needs you"):
        assert text in row[0], text
    await control.command_rollout(view.id, "abort")
    assert "Rollouts" not in (await client.get("/")).text


async def test_a_rollout_s_body_is_documented(client: httpx2.AsyncClient) -> None:
    """Every key that a start takes is in the document, and its example is one that is taken."""
    document = await _document(client)
    operation = document["paths"]["/api/v1/rollouts"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert parse(schema["examples"][0]).strategy == "canary"
    assert schema["additionalProperties"] is False
    for name, value in schema["properties"].items():
        body = {"model": "m", "version": "v", "strategy": "canary"}
        body |= {name: value["default"]} if "default" in value else {}
        assert parse(body).model == "m", name
    everything = {field.name for field in msgspec.structs.fields(RolloutSpec)}
    assert set(schema["properties"]) == everything | {"idempotency_key"}
    assert {"200", "201", "400", "409"} <= set(operation["responses"])


async def test_infinite_numbers_are_documented_as_null(client: httpx2.AsyncClient) -> None:
    """Evidence, proof and the ends of an interval may be null."""
    shown = (await _document(client))["components"]["schemas"]["MetricView"]["properties"]
    assert shown["evidence"]["type"] == ["number", "null"]
    (ends,) = [each for each in shown["interval"]["anyOf"] if each["type"] == "array"]
    assert ends["prefixItems"] == [{"type": ["number", "null"]}] * 2


async def _empty() -> httpx2.Response:
    transport = httpx2.ASGITransport(create_app(FakeControl()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get("/")


async def test_the_pages_policy_allows_its_own_style_alone(client: httpx2.AsyncClient) -> None:
    """The policy names the hash of the style that is in the page."""
    page = await client.get("/")
    assert page.headers.get_list("content-security-policy") == [CSP]
    assert "script-src" not in CSP
    assert f"<style>{STYLE}</style>" in page.text


async def test_the_api_page_and_all_it_loads_come_from_this_server(
    client: httpx2.AsyncClient,
) -> None:
    """No other server is asked for anything, so the page works without a network."""
    page = (await client.get("/docs")).text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(links) >= 5
    for link in links:
        assert link.startswith("/")
        answer = await client.get(link)
        assert answer.status_code == 200, link
        assert answer.content
    script = (await client.get("/docs/assets/docs.js")).text
    for document in ("/openapi.json", "/openapi-data.json"):
        assert f'"{document}"' in script
        assert (await client.get(document)).json()["openapi"].startswith("3.1")


def test_the_vendored_files_are_what_was_fetched() -> None:
    """Each file has the checksum that was written when it was vendored."""
    folder = ASSETS / "swagger-ui"
    listed = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(listed) == 7
    for line in listed:
        digest, name = line.split()
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == digest, name


async def _document(client: httpx2.AsyncClient) -> dict[str, Any]:
    content: dict[str, Any] = (await client.get("/openapi.json")).json()
    return content


async def test_the_document_names_every_route_of_the_contract(client: httpx2.AsyncClient) -> None:
    """Each control-plane route, with its method."""
    document = await _document(client)
    routes = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }
    assert routes == {
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /api/v1/info",
        "GET /api/v1/models",
        "GET /api/v1/models/{model}",
        "DELETE /api/v1/models/{model}",
        "POST /api/v1/models/{model}/versions",
        "GET /api/v1/models/{model}/versions/{version}",
        "DELETE /api/v1/models/{model}/versions/{version}",
        "POST /api/v1/models/{model}/versions/{version}/load",
        "POST /api/v1/models/{model}/versions/{version}/replay",
        "POST /api/v1/models/{model}/versions/{version}/unload",
        "POST /api/v1/models/{model}/switch",
        "POST /api/v1/models/{model}/rollback",
        "GET /api/v1/models/{model}/drift",
        "GET /api/v1/models/{model}/report",
        "POST /api/v1/models/{model}/drift/reset",
        "GET /api/v1/operations",
        "GET /api/v1/operations/{id}",
        "POST /api/v1/rollouts",
        "GET /api/v1/rollouts",
        "GET /api/v1/rollouts/{id}",
        "GET /api/v1/rollouts/{id}/journal",
        "POST /api/v1/rollouts/{id}/promote",
        "POST /api/v1/rollouts/{id}/pause",
        "POST /api/v1/rollouts/{id}/resume",
        "POST /api/v1/rollouts/{id}/abort",
        "POST /api/v1/rollouts/{id}/retry",
        "POST /api/v1/rollouts/{id}/skip",
        "GET /api/v1/events",
        "GET /api/v1/registry",
        "POST /api/v1/registry/webhook",
        "POST /api/v1/model-switching/models",
        "GET /api/v1/model-switching/models",
        "GET /api/v1/model-switching/models/{id}",
        "DELETE /api/v1/model-switching/models/{id}/versions/{version}",
        "POST /api/v1/model-switching/switch",
        "GET /api/v1/model-switching/switch/operations",
        "GET /api/v1/model-switching/switch/operations/{operation}",
        "POST /api/v1/model-switching/switch/operations/{operation}/abort",
        "GET /api/v1/model-switching/health/models",
        "GET /api/v1/model-switching/health/models/{id}",
        "GET /api/v1/model-switching/alerts",
        "GET /api/v1/model-switching/config",
        "GET /api/v1/model-switching/stats",
        "POST /admin/set-active-version",
        "GET /admin/models",
        "POST /admin/clear-cache",
        "GET /admin/health",
    }


async def test_the_document_is_whole_and_knows_no_422(client: httpx2.AsyncClient) -> None:
    """Every reference leads somewhere, every answer has a schema, errors are ours."""
    document = await _document(client)
    text = msgspec.json.encode(document).decode()
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in schemas
    assert "HTTPValidationError" not in schemas
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert "422" not in operation["responses"]
            for status, answer in operation["responses"].items():
                for content in answer["content"].values():
                    assert content["schema"], f"{method} {path} {status}"
                assert answer["content"], f"{method} {path} {status}"
    assert document["paths"]["/healthz"]["get"]["security"] == []


async def test_operation_ids_are_unique(client: httpx2.AsyncClient) -> None:
    """Generators of clients need them to be."""
    document = await _document(client)
    ids = [op["operationId"] for item in document["paths"].values() for op in item.values()]
    assert len(ids) == len(set(ids))
    assert {"switch", "rollback", "list_models", "admin_list_models"} <= set(ids)
