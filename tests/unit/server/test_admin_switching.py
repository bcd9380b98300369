"""The routes of ``/api/v1/model-switching``: switches and rollouts in one shape."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest

from hotswap.core.rollout_views import EventView, RolloutView
from hotswap.core.stats import ModelStats
from hotswap.core.strategy import DEFAULTS, parse
from hotswap.core.views import OperationView
from hotswap.server.admin import create_app
from hotswap.server.admin_switching_replies import alerts_of, of_rollout
from hotswap.testing.fake_control import FakeControl

URL = "/api/v1/model-switching"
CANARY = {"target_version": "v2", "strategy_type": "canary"}


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


def _error(response: httpx2.Response, status: int) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    return str(body["error"])


async def _switch(client: httpx2.AsyncClient, status: int, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{URL}/switch", json=body)
    assert answer.status_code == status, answer.text
    operation: dict[str, Any] = answer.json()
    return operation


async def test_models_are_registered_listed_shown_and_removed(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """The same as the routes of models, with the model's name in the body."""
    answer = await client.post(f"{URL}/models", json={"model": "churn", "uri": "/m/c"})
    assert (answer.status_code, answer.json()["version"]) == (201, "v1")
    assert answer.headers["location"] == "/api/v1/models/churn/versions/v1"
    body = {"model_id": "churn", "uri": "/m/d", "metadata": {"auc": 1}}
    assert (await client.post(f"{URL}/models", json=body)).json()["metadata"] == {"auc": 1}
    listed = (await client.get(f"{URL}/models")).json()
    assert listed == (await client.get("/api/v1/models")).json()
    assert (await client.get(f"{URL}/models/churn")).json() == listed["models"][0]
    removed = await client.delete(f"{URL}/models/churn/versions/v2")
    assert removed.json() == {"model": "churn", "version": "v2"}
    assert "has traffic" in _error(await client.delete(f"{URL}/models/fraud/versions/v1"), 409)


async def test_a_switch_without_a_strategy_is_at_once(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """200 when flipped; the model may be left out when there is one."""
    done = await _switch(client, 200, target_version="v2")
    assert control.table["fraud"].active == "v2"
    assert control.calls == [("switch", "fraud", "v2", False, None)]
    named = {name: done[name] for name in ("model", "from", "to", "strategy", "state", "progress")}
    assert named == {
        "model": "fraud",
        "from": "v1",
        "to": "v2",
        "strategy": "immediate",
        "state": "completed",
        "progress": 100.0,
    }
    shown = (await client.get(f"{URL}/switch/operations/{done['operation_id']}")).json()
    assert (shown["operation_id"], shown["state"]) == (done["operation_id"], "completed")
    body = {"model_id": "fraud", "version": "v1", "strategy": "immediate", "config": {}}
    await _switch(client, 200, **body, force=True, idempotency_key="k")
    assert control.calls[-1] == ("switch", "fraud", "v1", True, "k")
    assert control.views == {}


LEVEL = {"metric": "error_rate", "max": 0.1}


async def test_a_switch_with_a_strategy_is_a_rollout(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """202, and the operation's id is the rollout's; every other key reaches the rollout."""
    config = {"initial_percentage": 10, "evaluation_period_minutes": 1}
    started = await _switch(
        client, 202, **CANARY, strategy_config=config, guardrails=[LEVEL], bake_minutes=2, seed=7
    )
    view = control.views[started["operation_id"]]
    assert control.calls[0][1:] == (
        {
            "model": "fraud",
            "version": "v2",
            "strategy": "canary",
            "config": config,
            "guardrails": [LEVEL],
            "bake_minutes": 2,
            "seed": 7,
        },
        "api",
    )
    assert (started["kind"], started["phase"], started["state"]) == (
        "rollout",
        "Progressing",
        "in_progress",
    )
    assert (started["weights"], view.bake_seconds) == ({"v1": 90.0, "v2": 10.0}, 120.0)
    assert 0 < started["progress"] < 100
    assert (await client.get(f"/api/v1/rollouts/{view.id}")).status_code == 200


async def test_an_immediate_switch_with_guardrails_is_a_rollout(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Something is to be watched after it, so it is more than a flip."""
    body = {"version": "v2", "guardrails": [{"metric": "error_rate"}]}
    started = await _switch(client, 202, **body)
    assert (started["strategy"], started["phase"]) == ("immediate", "Baking")
    assert control.table["fraud"].active == "v2"


async def test_operations_are_switches_and_rollouts_newest_first(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """In one shape; loads are no switches."""
    await control.load("fraud", "v3")
    rollout = await _switch(client, 202, **CANARY)
    control.done[0] = msgspec.structs.replace(control.done[0], created_at=1.7e9 + 5)
    listed = (await client.get(f"{URL}/switch/operations")).json()["operations"]
    assert [each["operation_id"] for each in listed] == ["op-1", rollout["operation_id"]]
    assert set(listed[0]) == set(listed[1]) == set(rollout)
    one = await client.get(f"{URL}/switch/operations/{rollout['operation_id']}")
    assert one.json() == listed[1]
    assert "is no switch" in _error(await client.get(f"{URL}/switch/operations/op-2"), 404)
    _error(await client.get(f"{URL}/switch/operations/op-9"), 404)
    _error(await client.get(f"{URL}/switch/operations/%00"), 400)


async def test_a_rollout_is_aborted_by_its_operation(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """With the body of a command; a second abort is 409 with the operation as it is."""
    id = (await _switch(client, 202, **CANARY))["operation_id"]
    url = f"{URL}/switch/operations/{id}/abort"
    stale = await client.post(url, json={"generation": 9})
    assert stale.status_code == 409
    assert stale.json()["operation"]["state"] == "in_progress"
    aborted = await client.post(url, json={"why": "no"})
    assert (aborted.status_code, aborted.json()["state"]) == (200, "aborted")
    assert control.journals[id][-1].why == "no"
    again = await client.post(url)
    assert again.status_code == 409
    assert set(again.json()) == {"error", "operation"}
    assert again.json()["operation"] == aborted.json()


async def test_a_switch_that_prepares_is_aborted(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """One that is over is 409; what a switch cannot honour is 400."""
    control.done.append(OperationView("op-x", "switch", "fraud", "v3", "preparing"))
    url = f"{URL}/switch/operations/op-x/abort"
    assert "without a body" in _error(await client.post(url, json={"why": "no"}), 400)
    assert (await client.post(url, json={})).json()["state"] == "aborted"
    over = await client.post(url)
    assert (over.status_code, over.json()["operation"]["state"]) == (409, "aborted")
    _error(await client.post(f"{URL}/switch/operations/op-9/abort"), 404)
    _error(await client.post(url, json={"wy": "no"}), 400)


async def test_a_switch_beside_a_rollout_is_409_with_it(client: httpx2.AsyncClient) -> None:
    """As for a start."""
    id = (await _switch(client, 202, **CANARY))["operation_id"]
    refused = await _switch(client, 409, version="v3", strategy="gradual")
    assert refused["rollout"]["id"] == id


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "this route needs a JSON body"),
        (b"[]", "must be a JSON object"),
        (b"{}", "the body needs 'target_version'"),
        (b'{"version": null}', "the body needs 'target_version'"),
        (b'{"version": 2}', "the version must be a string"),
        (b'{"version": "../x"}', "is not valid"),
        (b'{"version": "v2", "model": ["fraud"]}', "the model must be a string"),
        (b'{"version": "v2", "model": "-"}', "is not valid"),
        (b'{"version": "v2", "target_version": "v2"}', "either 'target_version' or 'version'"),
        (b'{"version": "v2", "model": "fraud", "model_id": "fraud"}', "either 'model' or"),
        (b'{"version": "v2", "strategy": "canary", "strategy_type": "canary"}', "either"),
        (b'{"version": "v2", "config": {}, "strategy_config": {}}', "either"),
        (b'{"version": "v2", "strategy": "magic"}', "strategy_type must be one of immediate,"),
        (b'{"version": "v2", "strategy": ["canary"]}', "strategy_type must be one of"),
        (b'{"version": "v2", "config": 5}', "strategy_config must be an object"),
        (b'{"version": "v2", "config": {"steps": 4}}', "unknown key 'steps'"),
        (b'{"version": "v2", "force": 1}', "force must be true or false"),
        (b'{"version": "v2", "idempotency_key": 1}', "idempotency_key must be a string"),
        (b'{"version": "v2", "fource": false}', "unknown key 'fource'"),
        (b'{"version": "v2", "strategy": "canary", "bake_seconds": -1}', "bake_seconds must be"),
        (b'{"version": "v2", "seed": %d}' % 10**30, "more than 64 bits"),
    ],
)
async def test_a_bad_switch_is_400_and_switches_nothing(
    client: httpx2.AsyncClient, control: FakeControl, body: bytes, says: str
) -> None:
    """Nothing unknown, doubled or of another type is ignored."""
    assert says in _error(await client.post(f"{URL}/switch", content=body), 400)
    assert control.table["fraud"].active == "v1"
    assert control.views == {}


async def test_a_switch_must_say_which_of_several_models(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Also with a strategy."""
    await control.register("churn", "/m/c")
    answer = await client.post(f"{URL}/switch", json=CANARY)
    assert _error(answer, 400) == "say which model: there are 2"
    await _switch(client, 202, **CANARY, model="fraud")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"uri": "/m"}, "the body needs either 'model' or 'model_id'"),
        ({"uri": "/m", "model": "a", "model_id": "a"}, "the body needs either"),
        ({"uri": "/m", "model": "../a"}, "'model' is refused"),
        ({"uri": "/m", "model": "a", "name": "b"}, "unknown keys: 'name'"),
        ({"model": "a"}, "the body needs 'uri'"),
    ],
)
async def test_a_bad_registration_is_400(
    client: httpx2.AsyncClient, control: FakeControl, body: dict[str, Any], says: str
) -> None:
    """And registers nothing."""
    assert says in _error(await client.post(f"{URL}/models", json=body), 400)
    assert set(control.table) == {"fraud"}


async def test_health_is_of_each_model_and_version(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Healthy while the active version is ready; rates are null without requests."""
    control.counters = [
        ModelStats("fraud", "v1", "stable", 97, {"model": 3}, latency={2_000_000: 97}),
        ModelStats("fraud", "v1", "shadow", 0, {"model": 1000}),
        ModelStats("churn", "v1", "stable", 5),
    ]
    (fraud,) = (await client.get(f"{URL}/health/models")).json()["models"]
    assert (fraud["model"], fraud["healthy"], fraud["active"]) == ("fraud", True, "v1")
    assert (fraud["requests"], fraud["errors"]) == (100, 3)
    assert (fraud["error_rate"], fraud["p99_ms"]) == (0.03, 2.0)
    v1, v2, _ = fraud["versions"]
    assert (v1["state"], v1["error_rate"]) == ("READY", 0.03)
    assert (v2["state"], v2["error_rate"], v2["p99_ms"]) == ("REGISTERED", None, None)
    assert (await client.get(f"{URL}/health/models/fraud")).json() == fraud
    _error(await client.get(f"{URL}/health/models/x"), 404)

    model = control.table["fraud"]
    down = msgspec.structs.replace(model.versions[0], state="UNAVAILABLE", reason="it crashed")
    control.table["fraud"] = msgspec.structs.replace(model, versions=(down,))
    fraud = (await client.get(f"{URL}/health/models/fraud")).json()
    assert (fraud["healthy"], fraud["reason"]) == (False, "it crashed")
    await control.register("churn", "/m/c")
    churn = (await client.get(f"{URL}/health/models/churn")).json()
    assert (churn["healthy"], churn["reason"]) == (False, "no version is active")


async def test_alerts_are_what_a_person_should_know(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Alarms, rollbacks by evidence, and pauses that wait for somebody; newest first."""
    assert (await client.get(f"{URL}/alerts")).json() == {"alerts": []}
    id = (await _switch(client, 202, **CANARY))["operation_id"]
    assert (await client.get(f"{URL}/alerts")).json() == {"alerts": []}
    control.see(id, phase="RolledBack", reason="guardrail", message="errors doubled")
    data = {"severity": "critical", "rollout": id}
    control.happenings.emit("alert", "fraud", "the store is full", data)
    control.happenings.kept[-1] = msgspec.structs.replace(control.happenings.kept[-1], at=1.0)
    first, second = (await client.get(f"{URL}/alerts")).json()["alerts"]
    assert (first["severity"], first["reason"], first["message"], first["rollout"]) == (
        "critical",
        "guardrail",
        "errors doubled",
        id,
    )
    assert (second["severity"], second["message"], second["at"]) == (
        "critical",
        "the store is full",
        1.0,
    )


@pytest.mark.parametrize(
    ("phase", "reason", "state", "severity"),
    [
        ("Preparing", "", "in_progress", ""),
        ("Progressing", "", "in_progress", ""),
        ("Paused", "approval", "paused", "warning"),
        ("Paused", "insufficient", "paused", "warning"),
        ("Paused", "user", "paused", "info"),
        ("Paused", "metrics_outage", "paused", ""),
        ("Promoting", "", "in_progress", ""),
        ("Baking", "", "in_progress", ""),
        ("RollingBack", "guardrail", "in_progress", ""),
        ("RolledBack", "guardrail", "rolled_back", "critical"),
        ("RolledBack", "tripwire", "rolled_back", "critical"),
        ("RolledBack", "aborted", "aborted", "info"),
        ("RolledBack", "superseded", "aborted", "info"),
        ("Healthy", "", "completed", ""),
        ("Completed", "", "completed", ""),
        ("Failed", "load", "failed", "critical"),
        ("Degraded", "tripwire", "failed", "critical"),
    ],
)
async def test_every_phase_has_a_state_and_a_severity(
    control: FakeControl, phase: str, reason: str, state: str, severity: str
) -> None:
    """A rollout in each phase, as an operation and as an alert."""
    view = await control.start_rollout({"model": "fraud", "version": "v2", "strategy": "canary"})
    view = control.see(view.id, phase=phase, reason=reason)
    operation = of_rollout(view)
    assert operation.state == state
    assert (operation.progress == 100.0) == (state == "completed")
    assert (operation.finished_at is not None) == view.final
    assert [alert.severity for alert in alerts_of([], [view])] == [severity] * bool(severity)


async def test_a_promoted_version_that_is_still_watched_is_in_progress(
    control: FakeControl,
) -> None:
    """It is over when its rollout is."""
    view = await control.start_rollout({"model": "fraud", "version": "v2", "strategy": "canary"})
    watched: RolloutView = msgspec.structs.replace(view, phase="Healthy", final=False)
    assert of_rollout(watched).state == "in_progress"


def test_an_alert_without_details_is_a_warning() -> None:
    """Events of other kinds are none."""
    events = [EventView(1, 1.0, "switch", "m", "x"), EventView(2, 2.0, "alert", "m", "y")]
    (alert,) = alerts_of(events, [])
    assert (alert.severity, alert.message, alert.rollout) == ("warning", "y", None)


async def test_the_config_can_be_sent_back(client: httpx2.AsyncClient) -> None:
    """Each strategy's defaults, and those of a rollout, are a body that is accepted."""
    config = (await client.get(f"{URL}/config")).json()
    assert set(config["strategies"]) == set(DEFAULTS)
    for strategy, settings in config["strategies"].items():
        body = {"model": "m", "version": "v", "strategy": strategy, "config": settings}
        assert parse(body) == parse({**body, "config": {}})
    rollout = {**config["rollout"], "strategy": "canary", "model": "m", "version": "v"}
    rollout = {key: value for key, value in rollout.items() if value != []}
    assert parse(rollout) == parse({"model": "m", "version": "v", "strategy": "canary"})
    assert config["server"]["data"] == "http://127.0.0.1:1"


async def test_stats_count_switches_rollouts_and_requests(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """By result, by phase and reason, by version."""
    control.counters = [
        ModelStats("fraud", "v1", "stable", 7, {"model": 1}),
        ModelStats("fraud", "v1", "pinned", 2),
        ModelStats("fraud", "v2", "twin", 9),
    ]
    id = (await _switch(client, 202, **CANARY))["operation_id"]
    await control.command_rollout(id, "abort")
    await _switch(client, 202, version="v3", strategy="gradual")
    assert (await client.get(f"{URL}/stats")).json() == {
        "switches": {"fraud": {"done": 1}},
        "seconds": {"fraud": 0.0125},
        "rollouts": {
            "phases": {"RolledBack": 1, "Progressing": 1},
            "reasons": {"aborted": 1},
        },
        "requests": {"fraud": {"v1": {"requests": 10, "errors": 1}}},
    }
