"""A/B tests and bandits: fixed and moving splits, their routes, and how they end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import Response, Server, wait_until
from tests.e2e.load import Load
from tests.e2e.rollouts import Rollout, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

THIRD = "self.kept.append(1)\n            if len(self.kept) % 3 == 0: raise ValueError('third')"
#: What guards, and never acts here: no version gives answers that are none.
FREE: dict[str, Any] = {
    "guardrails": [{"metric": "sample_ratio"}, {"metric": "invalid_rate", "max": 0.9}]
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Model ``m``: v9 is active and v2 as good; models ``bad`` and ``odd``: v9 fails now and then."""
    root = tmp_path_factory.mktemp("arms")
    for version in ("v9", "v2"):
        write_version(root / "models", "m", version)
    write_version(root / "models", "bad", "v9", predict=THIRD)
    write_version(root / "models", "bad", "v2")
    write_version(root / "models", "odd", "v9", predict=THIRD.replace("3", "40"))
    write_version(root / "models", "odd", "v2")
    with Server(root / "models", root / "state", workers=2) as server:
        for model in ("m", "bad", "odd"):
            wait_until(lambda: server.has_version(model, "v2"), "the versions")  # noqa: B023
            wait_until(lambda: server.predict(model).status in (200, 500), "a model")  # noqa: B023
        yield server


def versions(server: Server, path: str, requests: int, **body: Any) -> set[str]:
    """Who answers on a route."""
    found = set()
    for _ in range(requests):
        answer = server.data("POST", path, {"features": [1.0, 2.0]} | body)
        assert answer.status == 200, answer
        assert answer.json["version"] == answer.headers["x-hotswap-version"]
        found.add(answer.json["version"])
    return found


def test_routes_of_a_test(server: Server) -> None:
    """The split, each arm and the stable version have their routes; pins bypass the test."""
    rollout = Rollout.start(
        server, "m", "v2", "ab_test", {"traffic_percentage": 50, "test_duration_hours": 1}, **FREE
    )
    rollout.wait_exposed(50.0)
    name = {"model": "m"}
    assert versions(server, "/api/v1/ab/predictions", 40, **name) == {"v2", "v9"}
    assert versions(server, "/predict", 40, **name) == {"v2", "v9"}
    counted = 80
    assert versions(server, "/api/v1/models/m/predictions", 40) == {"v2", "v9"}
    counted += 40
    assert versions(server, "/api/v1/models/a/predictions", 10) == {"v9"}
    assert versions(server, "/api/v1/models/b/predictions", 10) == {"v2"}
    assert versions(server, "/api/v1/predictions", 20, **name) == {"v9"}
    assert versions(server, "/predict", 10, version="v2", **name) == {"v2"}
    assert versions(server, "/predict", 10, version="v9", **name) == {"v9"}

    def total() -> int:
        counts = rollout.counts
        return counts["candidate_requests"] + counts["stable_requests"]

    wait_until(lambda: total() >= counted, "the requests to be counted")
    assert total() == counted
    rollout.give("abort")
    rollout.end("RolledBack", "aborted")
    gone: Response = server.data("POST", "/api/v1/models/b/predictions", {"features": [1.0, 2.0]})
    assert gone.status in (400, 404), gone


def test_test_ends(server: Server) -> None:
    """An A/B test is over after its time, and says what it found; stable stays stable."""
    config = {"traffic_percentage": 50, "test_duration_seconds": 1}
    with Load(server.data_port, "m", 8) as load:
        view = Rollout.start(server, "m", "v2", "ab_test", config).end("Completed")
        load.wait(20)
    load.expect_no_failure()
    assert {sent.version for sent in load.sent} == {"v2", "v9"}
    assert load.sent[-1].version == "v9"
    assert "error_rate" in view["message"]
    assert view["weights"] == {"v9": 100.0, "v2": 0.0}
    assert server.model("m")["active"] == "v9"


def test_winner_is_promoted(server: Server) -> None:
    """The better arm takes over, if told to; the failures are stable's own."""
    config = {"traffic_percentage": 50, "test_duration_seconds": 0.5, "promote_winner": True}
    with Load(server.data_port, "bad", 8) as load:
        rollout = Rollout.start(server, "bad", "v2", "ab_test", config, **FREE)
        view = rollout.end("Healthy", "promoted")
        at = len(load.sent)
        load.wait(60)
    assert {sent.version for sent in load.failures()} == {"v9"}
    assert {sent.version for sent in load.sent[at + 8 :]} == {"v2"}
    assert view["counts"]["stable_failures"] > 0
    assert view["counts"]["candidate_failures"] == 0
    assert server.switch("bad", "v9").status == 200


def test_bandit(server: Server) -> None:
    """The weight follows the better arm, in steps whose share is known."""
    config = {"min_percentage": 10, "max_percentage": 90, "duration_hours": 1}
    with Load(server.data_port, "odd", 8, pause=0.05) as load:
        rollout = Rollout.start(server, "odd", "v2", "bandit", config, alpha=1e-6, **FREE)
        first = rollout.wait_exposed(50.0)
        wait_until(lambda: rollout.view()["weights"]["v2"] > 50.0, "the bandit to move")
        moved = rollout.seen
        assert first["weights"] == {"v9": 50.0, "v2": 50.0}
        assert moved["weights"]["v2"] <= 90.0
        assert sum(moved["weights"].values()) == 100.0
        rollout.give("abort")
        rollout.end("RolledBack", "aborted")
    assert {sent.version for sent in load.failures()} <= {"v9"}
