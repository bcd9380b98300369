"""The routes of rollouts: start, look, command."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest

from hotswap.core.rollout_views import RolloutView
from hotswap.errors import StoreError
from hotswap.server.admin import create_app
from hotswap.testing.fake_control import FakeControl

URL = "/api/v1/rollouts"
START = {"model": "fraud", "version": "v2", "strategy": "canary", "steps": [5, 25]}


@pytest.fixture
async def control() -> FakeControl:
    control = FakeControl()
    for version in ("v1", "v2", "v3"):
        await control.register("fraud", f"/m/{version}", version=version)
    await control.switch("fraud", "v1")
    control.calls.clear()
    return control


@pytest.fixture
async def client(control: FakeControl) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(control), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as c:
        yield c


async def _start(client: httpx2.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post(URL, json=START | more)
    assert answer.status_code == 201, answer.text
    view: dict[str, Any] = answer.json()
    return view


def _error(response: httpx2.Response, status: int) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    return str(body["error"])


async def test_a_rollout_is_started_shown_and_listed(client: httpx2.AsyncClient) -> None:
    """201 with the rollout and where it is; the same view from there and in the list."""
    answer = await client.post(URL, json=START)
    view = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{URL}/{view['id']}"
    assert (view["phase"], view["weights"]) == ("Progressing", {"v1": 95.0, "v2": 5.0})
    assert (await client.get(f"{URL}/{view['id']}")).json() == view
    assert (await client.get(URL)).json() == {"rollouts": [view]}
    assert (await client.get(URL, params={"model": "fraud"})).json() == {"rollouts": [view]}
    assert (await client.get(URL, params={"model": "other"})).json() == {"rollouts": []}


async def test_a_dry_run_starts_nothing(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """200 with the plan."""
    answer = await client.post(f"{URL}?dry_run=1", json=START)
    assert answer.status_code == 200
    labels = [step["label"] for step in answer.json()["steps"]]
    assert labels[0] == "candidate at 5 %"
    assert control.views == {}
    answer = await client.post(f"{URL}?dry_run=0", json=START)
    assert answer.status_code == 201


@pytest.mark.parametrize("query", ["dryrun=1", "dry_run=2", "dry_run=", "dry_run=1&dry_run=0"])
async def test_a_misspelt_dry_run_starts_nothing(
    client: httpx2.AsyncClient, control: FakeControl, query: str
) -> None:
    """An unknown or doubled query parameter is 400, so that nothing is started by mistake."""
    _error(await client.post(f"{URL}?{query}", json=START), 400)
    assert control.calls == []


async def test_infinite_and_unknown_numbers_are_null(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """The answer is valid JSON whatever the statistics say."""
    view = await _start(client)
    (metric,) = control.views[view["id"]].metrics
    odd = msgspec.structs.replace(metric, evidence=math.inf, estimate=math.nan, margin=-math.inf)
    control.see(view["id"], metrics=(odd,))
    (shown,) = (await client.get(f"{URL}/{view['id']}")).json()["metrics"]
    assert shown["interval"] == [0.0, None]
    assert (shown["evidence"], shown["estimate"], shown["margin"]) == (None, None, None)
    decoder = msgspec.json.Decoder()
    decoder.decode((await client.get(f"{URL}/{view['id']}")).content)


async def test_commands_move_a_rollout_and_are_journalled(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Pause, resume, skip, promote, with or without a body; who and why are kept."""
    url = f"{URL}/{(await _start(client))['id']}"
    paused = await client.post(f"{url}/pause", json={"why": "lunch", "generation": 1})
    assert (paused.json()["phase"], paused.json()["reason"]) == ("Paused", "user")
    assert (await client.post(f"{url}/resume")).json()["phase"] == "Progressing"
    assert (await client.post(f"{url}/skip", json={})).json()["step"] > 1
    promoted = await client.post(f"{url}/promote", json={"force": True})
    assert (promoted.json()["phase"], promoted.json()["weights"]) == ("Baking", {"v2": 100.0})
    assert control.table["fraud"].active == "v2"
    journal = (await client.get(f"{url}/journal")).json()["journal"]
    assert [entry["command"] for entry in journal] == ["", "pause", "resume", "skip", "promote"]
    assert (journal[1]["who"], journal[1]["why"]) == ("api", "lunch")
    assert [entry["number"] for entry in journal] == [1, 2, 3, 4, 5]


async def test_an_aborted_rollout_is_retried_from_the_first_step(
    client: httpx2.AsyncClient,
) -> None:
    """Abort takes the candidate out; retry is a new attempt."""
    url = f"{URL}/{(await _start(client))['id']}"
    aborted = (await client.post(f"{url}/abort")).json()
    assert (aborted["phase"], aborted["reason"], aborted["final"]) == (
        "RolledBack",
        "aborted",
        True,
    )
    again = (await client.post(f"{url}/retry")).json()
    assert (again["phase"], again["attempt"], again["weights"]["v2"]) == ("Progressing", 2, 5.0)


async def test_an_idempotency_key_carries_nothing_out_twice(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Neither a start nor a command."""
    first = await _start(client, idempotency_key="a")
    assert (await _start(client, idempotency_key="a"))["id"] == first["id"]
    assert len(control.views) == 1
    url = f"{URL}/{first['id']}/skip"
    once = await client.post(url, json={"idempotency_key": "b"})
    assert (await client.post(url, json={"idempotency_key": "b"})).json() == once.json()


async def test_what_is_stale_or_illegal_is_409_with_the_current_state(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """The rollout comes along beside the reason, and nothing has changed."""
    view = await _start(client)
    url = f"{URL}/{view['id']}"
    for command, body in (("resume", {}), ("pause", {"generation": 7}), ("retry", {})):
        answer = await client.post(f"{url}/{command}", json=body)
        assert answer.status_code == 409
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {"error": answer.json()["error"], "rollout": view}
        assert view["id"] in answer.json()["error"]
    assert (await client.get(url)).json() == view


async def test_a_second_start_is_409_with_the_running_rollout(client: httpx2.AsyncClient) -> None:
    """So is its dry run; without a running one there is only the reason."""
    view = await _start(client)
    answer = await client.post(URL, json=START | {"version": "v3"})
    assert (answer.status_code, answer.json()["rollout"]) == (409, view)
    await client.post(f"{URL}/{view['id']}/abort")
    assert "was rolled back" in _error(await client.post(URL, json=START), 409)
    assert "was rolled back" in _error(await client.post(f"{URL}?dry_run=1", json=START), 409)
    await _start(client, force=True)
    replaced = await _start(client, version="v3", on_running="replace")
    assert replaced["weights"] == {"v1": 95.0, "v3": 5.0}


async def test_a_refusal_is_told_even_if_the_state_cannot_be(
    client: httpx2.AsyncClient, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is worth more than the state beside it."""
    await _start(client)

    async def gone(model: str | None = None) -> list[RolloutView]:
        raise StoreError("gone")

    monkeypatch.setattr(control, "rollouts", gone)
    assert "is running" in _error(await client.post(URL, json=START), 409)


async def test_unknown_rollouts_and_commands_are_404(client: httpx2.AsyncClient) -> None:
    """Whatever is asked of them; ids are checked first."""
    assert "no rollout 'r-9'" in _error(await client.get(f"{URL}/r-9"), 404)
    _error(await client.get(f"{URL}/r-9/journal"), 404)
    _error(await client.post(f"{URL}/r-9/abort"), 404)
    _error(await client.post(f"{URL}/r-9/explode"), 404)
    _error(await client.get(f"{URL}/%00"), 400)
    _error(await client.get(f"{URL}/{'x' * 129}/journal"), 400)
    _error(await client.get(URL, params={"model": "../x"}), 400)
    _error(await client.get(URL, params={"modle": "fraud"}), 400)
    _error(await client.post(URL, json=START | {"version": "v9"}), 404)
    _error(await client.get(f"{URL}/r-9/abort"), 405)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not valid JSON"),
        (b"", "this route needs a JSON body"),
        (b"[]", "must be a JSON object"),
        (b"{}", "'model'"),
        (b'{"model": 1}', "'model'"),
        (b'{"fource": 1}', "unknown key 'fource'"),
        (b'{"strategy": "magic"}', "strategy must be one of immediate, gradual"),
        (b'{"config": {"initial_percentage": 101}}', "initial_percentage must be a number"),
        (b'{"config": {"initial_percentage": "5"}}', "initial_percentage must be a number"),
        (b'{"config": {"initial": 5}}', "unknown key 'initial'"),
        (b'{"bake_seconds": -1}', "bake_seconds must be a number from 0"),
        (b'{"bake_seconds": 1e300}', "bake_seconds must be a number from 0"),
        (b'{"bake_seconds": 1, "bake_hours": 1}', "twice"),
        (b'{"bake": 1}', "unknown key 'bake'"),
        (b'{"bake_seconds": 1e999}', "must not hold NaN or infinity"),
        (b'{"bake_seconds": NaN}', "must not hold NaN or infinity"),
        (b'{"bake_seconds": %d}' % 10**400, "more than 64 bits"),
        (b'{"seed": %d}' % 2**64, "more than 64 bits"),
        (b'{"seed": %s}' % (b"9" * 5000), ""),
        (b'{"model": "\\ud800"}', "must hold valid Unicode text"),
        (b'{"\\ud800": 1}', ""),
        (b'{"steps": %s}' % (b"[" * 40 + b"]" * 40), "nested deeper"),
        (b'{"steps": %s}' % (b"[" * 100_000 + b"]" * 100_000), ""),
        (b'{"steps": [50, 25]}', "weights must grow"),
        (b'{"steps": [5, {"hold_seconds": -3}]}', "hold_seconds must be a number from 0"),
        (b'{"guardrails": [{"metric": "nope"}]}', "there is no metric 'nope'"),
        (b'{"alpha": true}', "alpha must be a number"),
        (b'{"on_running": ["queue"]}', "on_running must be one of"),
        (b'{"idempotency_key": 5}', "idempotency_key must be a string"),
        (b'{"idempotency_key": ["a"]}', "idempotency_key must be a string"),
        (b'{"idempotency_key": ""}', "idempotency_key must be a string"),
    ],
)
@pytest.mark.parametrize("query", ["", "?dry_run=1"])
async def test_a_bad_start_is_400_in_a_sentence(
    client: httpx2.AsyncClient, control: FakeControl, body: bytes, says: str, query: str
) -> None:
    """Wrong types, unknown keys and numbers without measure: one sentence, and no rollout."""
    if body.startswith(b'{"') and not body.startswith((b'{"model', b'{"strategy')):
        body = b'{"model": "fraud", "version": "v2", "strategy": "canary", ' + body[1:]
    elif body.startswith(b'{"strategy'):
        body = b'{"model": "fraud", "version": "v2", ' + body[1:]
    answer = await client.post(URL + query, content=body)
    assert says in _error(answer, 400)
    assert control.views == {}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "must be a JSON object"),
        (b'{"generation": "1"}', "'generation' is refused"),
        (b'{"generation": 1.0}', "'generation' is refused"),
        (b'{"generation": true}', "'generation' is refused"),
        (b'{"generation": -1}', "'generation' is refused"),
        (b'{"generation": %d}' % 2**63, "'generation' is refused"),
        (b'{"force": 1}', "'force' is refused"),
        (b'{"why": 1}', "'why' is refused"),
        (b'{"why": "%s"}' % (b"x" * 2001), "'why' is refused"),
        (b'{"idempotency_key": ""}', "'idempotency_key' is refused"),
        (b'{"reason": "x", "who": "y"}', "unknown keys: 'reason', 'who'"),
    ],
)
async def test_a_bad_command_is_400_and_does_nothing(
    client: httpx2.AsyncClient, control: FakeControl, body: bytes, says: str
) -> None:
    """Types are strict and unknown keys are refused."""
    view = await _start(client)
    answer = await client.post(f"{URL}/{view['id']}/abort", content=body)
    assert says in _error(answer, 400)
    assert control.views[view["id"]].phase == "Progressing"


async def test_a_version_that_cannot_be_loaded_is_a_failed_rollout(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """The rollout says so itself; the start was one."""
    await control.register("fraud", "/m/broken", version="v4")
    view = await _start(client, version="v4")
    assert (view["phase"], view["final"]) == ("Failed", True)
    assert "not a model" in view["message"]
