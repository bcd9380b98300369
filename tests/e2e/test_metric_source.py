"""A rollout that is guarded by a Prometheus query, while Prometheus comes and goes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import RAISE, write_trick
from tests.prometheus_server import Prometheus

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

# What hotswap cannot count itself; here it is the errors of another model, `shop`.
QUERY = 'sum(model_prediction_errors_total{model="shop"}) or vector(0)'
GUARDRAIL = {"metric": "shop_errors", "query": QUERY, "max": 2}
STEPS = [{"weight": 20}, {"hold_seconds": 3600}, {"weight": 50}, {"hold_seconds": 3600}]
BODY = {
    "model": "m", "version": "v2", "strategy": "canary", "steps": STEPS, "seed": 7,
    "guardrails": [GUARDRAIL],
}  # fmt: skip
ROLLOUTS = "/api/v1/rollouts"


def view(server: Server, id: str) -> dict[str, Any]:
    """The rollout as it is now."""
    answer = server.control("GET", f"{ROLLOUTS}/{id}")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json
    return found


def until(server: Server, id: str, phase: str, reason: str, weight: float) -> dict[str, Any]:
    """The rollout, once it is in this phase for this reason at this weight of v2."""
    seen: dict[str, Any] = {}

    def arrived() -> bool:
        seen.update(view(server, id))
        return (seen["phase"], seen["reason"]) == (phase, reason) and (
            seen["weights"]["v2"] == weight
        )

    try:
        wait_until(arrived, f"{phase} ({reason}) at {weight:g} %", every=0.05)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {seen}") from None
    return seen


def ticked(server: Server, id: str, seconds: float) -> dict[str, Any]:
    """The rollout, once it was decided upon for so many more seconds."""
    goal = view(server, id)["elapsed_seconds"] + seconds
    wait_until(lambda: view(server, id)["elapsed_seconds"] >= goal, "decisions", every=0.05)
    return view(server, id)


def shop_errors(view: dict[str, Any]) -> dict[str, Any]:
    """How the guardrail is shown."""
    found: dict[str, Any] = next(m for m in view["metrics"] if m["name"] == "shop_errors")
    return found


def test_an_outage_holds_and_a_level_takes_back(folder: Path, serve: Serve, tmp_path: Path) -> None:
    """Without Prometheus the weights stay, whoever skips and whatever is killed; when it is back
    the rollout goes on; when its number passes the level the rollout goes back. No request fails.
    """
    for model, version in (("m", "v1"), ("m", "v2"), ("shop", "v1")):
        write_trick(folder, model, version)
    with Prometheus(tmp_path / "prometheus") as prometheus:
        server = serve(f"--prometheus-url={prometheus.url}", workers=1)
        assert server.switch("m", "v1").status == 200
        prometheus.start(server.control_port)
        with Load(server.data_port, "m", 4, pause=0.02) as load:
            started = server.control("POST", ROLLOUTS, BODY)
            assert started.status == 201, started
            id = started.json["id"]
            seen = until(server, id, "Progressing", "step", 20)
            assert shop_errors(seen)["verdict"] == "pass"

            prometheus.kill()
            seen = until(server, id, "Paused", "metrics_outage", 20)
            assert shop_errors(seen)["verdict"] == "error"
            # No way on, not even an operator's, while nobody can see what it would do.
            assert server.control("POST", f"{ROLLOUTS}/{id}/skip", {}).status == 200
            seen = ticked(server, id, 2.0)
            assert (seen["phase"], seen["reason"]) == ("Paused", "metrics_outage")
            assert seen["weights"] == {"v1": 80.0, "v2": 20.0}
            # Nor does a control process that never saw the source take that for good.
            killed = server.control_pids()
            os.kill(killed[0], signal.SIGKILL)
            wait_until(lambda: server.control_pids() not in ([], killed), "another control")
            server.wait_control()
            path = f"{ROLLOUTS}/{id}"
            wait_until(lambda: server.control("GET", path).status == 200, "the store to be read")
            seen = ticked(server, id, 2.0)
            assert (seen["phase"], seen["reason"]) == ("Paused", "metrics_outage")
            assert seen["weights"] == {"v1": 80.0, "v2": 20.0}

            prometheus.start(server.control_port)
            until(server, id, "Progressing", "step", 50)

            for _ in range(3):
                assert server.predict("shop", (RAISE, 0.0)).status == 500
            seen = until(server, id, "RolledBack", "tripwire", 0)
            assert "shop_errors is 3 > 2" in seen["message"]
            assert server.model("m")["active"] == "v1"
            load.wait(20)
    load.expect_no_failure()
    assert {sent.version for sent in load.sent} == {"v1", "v2"}


def test_a_start_needs_a_good_query_and_no_present_prometheus(folder: Path, serve: Serve) -> None:
    """Nobody listens: a rollout begins and holds. Without a source at all it is refused."""
    for version in ("v1", "v2"):
        write_trick(folder, "m", version)
    server = serve("--prometheus-url=http://127.0.0.1:1", workers=1)
    assert server.switch("m", "v1").status == 200
    started = server.control("POST", ROLLOUTS, BODY)
    assert started.status == 201, started
    seen = until(server, started.json["id"], "Paused", "metrics_outage", 0)
    assert "http://127.0.0.1:1 cannot be reached" in json.dumps(shop_errors(seen))
    assert server.control("POST", f"{ROLLOUTS}/{seen['id']}/abort", {}).status == 200
    until(server, seen["id"], "RolledBack", "aborted", 0)
