"""The registry's page of the control API, and its webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator

import httpx2
import pytest

from hotswap.core.registry_views import FollowedView, RegistryView
from hotswap.errors import Unauthorized
from hotswap.server.admin import create_app
from hotswap.server.admin_registry import WebhookDoor
from hotswap.testing.clock import ManualClock
from hotswap.testing.fake_control import FakeControl

SECRET = "whsec-of-a-test"
BODY = b'{"entity": "model_version_alias", "action": "created"}'
PATH = "/api/v1/registry/webhook"


def signed(
    body: bytes = BODY, *, delivery: str = "d-1", at: float = 1.7e9, secret: str = SECRET
) -> dict[str, str]:
    """Headers as MLflow makes them."""
    stamp = str(int(at))
    digest = hmac.new(secret.encode(), f"{delivery}.{stamp}.".encode() + body, hashlib.sha256)
    return {
        "X-MLflow-Signature": "v1," + base64.b64encode(digest.digest()).decode(),
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Delivery-Id": delivery,
        "Content-Type": "application/json",
    }


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall=1.7e9)


@pytest.fixture
async def client(control: FakeControl, clock: ManualClock) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(control, token="a-token", webhook=WebhookDoor(SECRET, clock.wall))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as c:
        yield c


async def test_a_signed_webhook_is_a_hint(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """Without the token; the same delivery again changes nothing."""
    first = await client.post(PATH, content=BODY, headers=signed())
    assert (first.status_code, first.json()) == (202, {"accepted": True, "repeated": False})
    again = await client.post(PATH, content=BODY, headers=signed())
    assert (again.status_code, again.json()["repeated"]) == (202, True)
    assert control.hints == 1
    await client.post(PATH, content=BODY, headers=signed(delivery="d-2"))
    assert control.hints == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-MLflow-Signature", ""),
        ("X-MLflow-Signature", "v1,AAAA"),
        ("X-MLflow-Signature", "v2," + "A" * 44),
        ("X-MLflow-Timestamp", ""),
        ("X-MLflow-Timestamp", "1700000001"),
        ("X-MLflow-Timestamp", "-1"),
        ("X-MLflow-Timestamp", "9" * 40),
        ("X-MLflow-Delivery-Id", ""),
        ("X-MLflow-Delivery-Id", "d-2"),
        ("X-MLflow-Delivery-Id", "d" * 300),
    ],
)
async def test_any_other_signature_is_refused(
    client: httpx2.AsyncClient, control: FakeControl, name: str, value: str
) -> None:
    """401, a sentence, and nothing is asked."""
    answer = await client.post(PATH, content=BODY, headers=signed() | {name: value})
    assert answer.status_code == 401
    assert "signature" in answer.json()["error"]
    assert control.hints == 0


async def test_what_was_signed_is_bound(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """Another body, another secret, and the bearer token in its place: refused."""
    for content, headers in (
        (BODY + b" ", signed()),
        (BODY, signed(secret="other")),
        (BODY, {"Authorization": "Bearer a-token", "Content-Type": "application/json"}),
    ):
        assert (await client.post(PATH, content=content, headers=headers)).status_code == 401
    assert control.hints == 0


async def test_a_signature_is_good_for_five_minutes(
    client: httpx2.AsyncClient, clock: ManualClock
) -> None:
    """Before and after its time by our clock; a delivery is remembered for longer than that."""
    for at, status in (
        (1.7e9 - 301, 401),
        (1.7e9 - 299, 202),
        (1.7e9 + 299, 202),
        (1.7e9 + 301, 401),
    ):
        headers = signed(delivery=f"d{at}", at=at)
        assert (await client.post(PATH, content=BODY, headers=headers)).status_code == status
    clock.advance(590)
    answer = await client.post(
        PATH, content=BODY, headers=signed(delivery="d1700000299.0", at=1.7e9 + 299)
    )
    assert answer.json() == {"accepted": True, "repeated": True}


def test_deliveries_are_remembered_within_bounds(clock: ManualClock) -> None:
    """Old ones are forgotten; a flood of signed ones cannot fill the memory."""
    door = WebhookDoor(SECRET, clock.wall)
    for number in range(10_050):
        headers = signed(delivery=str(number))
        assert door.take(headers["X-MLflow-Signature"], "1700000000", str(number), BODY)
    assert len(door._taken) == 10_000
    clock.advance(700)
    late = signed(delivery="late", at=clock.wall())
    assert door.take(late["X-MLflow-Signature"], late["X-MLflow-Timestamp"], "late", BODY)
    assert list(door._taken) == ["late"]
    with pytest.raises(Unauthorized):
        door.take("é", "1700000000", "x", BODY)


async def test_without_a_secret_there_is_no_such_route(control: FakeControl) -> None:
    """404, with or without a signature."""
    transport = httpx2.ASGITransport(create_app(control), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as plain:
        answer = await plain.post(PATH, content=BODY, headers=signed())
    assert answer.status_code == 404
    assert "registry_webhook_secret" in answer.json()["error"]


async def test_the_status_needs_the_token(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """404 where no registry is followed; else what is read and what was done."""
    assert (await client.get("/api/v1/registry")).status_code == 401
    headers = {"Authorization": "Bearer a-token"}
    assert (await client.get("/api/v1/registry", headers=headers)).status_code == 404
    followed = FollowedView("fraud", "fraud", "alias", "3", "4", "3", "4", "r1", "3", notes=("x",))
    control.followed = RegistryView(
        "mlflow",
        "http://mlflow",
        "champion",
        "challenger",
        30.0,
        False,
        1.7e9,
        None,
        "",
        (followed,),
    )
    shown = (await client.get("/api/v1/registry", headers=headers)).json()
    assert shown["models"][0]["candidate"] == "4"
    assert (shown["uri"], shown["down_since"]) == ("http://mlflow", None)
