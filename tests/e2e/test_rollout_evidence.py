"""What is counted is what was sent, once; and what hits both arms is no fault of the candidate."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.harness import Response, Server, wait_until
from tests.e2e.load import Load
from tests.e2e.rollouts import FIFTH, Rollout, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TENTH = "self.kept.append(1)\n            if len(self.kept) % 10 == 0: raise ValueError('tenth')"
#: What guards, and never acts here: no version gives answers that are none.
FREE: dict[str, Any] = {
    "guardrails": [{"metric": "sample_ratio"}, {"metric": "invalid_rate", "max": 0.9}],
    "budget_ms": 5000,
}
FIFTH_FREE = FIFTH | {"max_error_rate_threshold": None}


class Place(NamedTuple):
    """Several models, each with v9 active; both versions of ``both`` fail with ``flag``."""

    server: Server
    flag: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """v2 of ``m`` fails now and then, v2 of ``broken`` always; ``slow`` takes its time."""
    root = tmp_path_factory.mktemp("evidence")
    models, flag = root / "models", root / "flag"
    incident = f"if os.path.exists({str(flag)!r}): raise ConnectionError('no network')"
    for version in ("v2", "v9"):
        write_version(models, "good", version)
        write_version(models, "m", version, **({"predict": TENTH} if version == "v2" else {}))
        write_version(models, "slow", version, predict="time.sleep(0.5)")
        write_version(models, "both", version, predict=incident)
    write_version(models, "broken", "v9")
    write_version(models, "broken", "v2", predict="raise ValueError('broken')")
    names = ("good", "m", "slow", "both", "broken")
    with Server(models, root / "state", workers=2) as server:
        wait_until(
            lambda: all(server.predict(name, (0.0, 0.0)).status == 200 for name in names),
            "every model to be warm",
        )
        yield Place(server, flag)


def total(counts: dict[str, int]) -> int:
    """All that was assigned to an arm."""
    return counts["candidate_requests"] + counts["stable_requests"]


def settled(rollout: Rollout, least: int) -> dict[str, int]:
    """The counts once there are so many and none has come for a second."""
    view = wait_until(
        lambda: v if total((v := rollout.view())["counts"]) >= least else None,
        f"{least} requests to be counted",
    )
    later = view["elapsed_seconds"] + 1.0
    wait_until(lambda: rollout.view()["elapsed_seconds"] > later, "whatever else may come")
    counts: dict[str, int] = rollout.seen["counts"]
    return counts


def test_every_request_once(place: Place) -> None:
    """Those that toss a coin are counted once, for who was assigned; all others never."""
    server = place.server
    rollout = Rollout.start(server, "m", "v2", "canary", FIFTH_FREE, **FREE)
    rollout.wait_exposed(20.0)

    def ask(number: int) -> Response:
        if number % 10 == 0:
            return server.predict("m", version="v2" if number % 20 else "v9")
        if number % 10 == 1:
            body = {"features": [1.0, 2.0], "model": "m"}
            return server.data("POST", "/api/v1/predictions", body)
        if number % 10 == 2:
            return server.predict("m", headers={"x-hotswap-timeout-ms": "11"})
        if number % 10 == 3:
            rows = {"inputs": [{"name": "x", "shape": [3, 2], "datatype": "FP64", "data": [1] * 6}]}
            return server.data("POST", "/v2/models/m/infer", rows)
        return server.predict("m")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(600)))
    kinds = [[answer for n, answer in enumerate(answers) if n % 10 == kind] for kind in range(10)]
    split = [answer for kind in kinds[3:] for answer in kind]
    assert {answer.status for answer in split} == {200}
    counts = settled(rollout, len(split))
    assert total(counts) == len(split) == 420
    assert counts["excluded"] == len(kinds[2])
    replaced = [answer for answer in split if "x-hotswap-fallback" in answer.headers]
    ours = [answer for answer in split if answer.headers["x-hotswap-version"] == "v2"]
    assert counts["candidate_requests"] == len(ours) + len(replaced)
    assert counts["candidate_failures"] == counts["fallbacks"] == len(replaced) > 0
    assert counts["stable_failures"] == 0
    rollout.give("abort")
    view = rollout.end("RolledBack", "aborted")
    assert view["counts"] == counts


def test_clients_that_go_away(place: Place) -> None:
    """A request whose client has gone is counted all the same, by what became of it."""
    server = place.server
    rollout = Rollout.start(server, "slow", "v2", "canary", FIFTH_FREE, **FREE)
    rollout.wait_exposed(20.0)
    body = json.dumps({"features": [1.0, 2.0], "model": "slow"}).encode()
    head = b"POST /predict HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
    clients = []
    for _ in range(24):
        client = socket.create_connection(("127.0.0.1", server.data_port), 10)
        client.sendall(head + b"content-length: %d\r\n\r\n%s" % (len(body), body))
        clients.append(client)
    for client in clients:
        client.close()
    counts = settled(rollout, 24)
    assert total(counts) == 24
    assert counts["candidate_failures"] == counts["stable_failures"] == 0
    rollout.give("abort")
    rollout.end("RolledBack", "aborted")


def test_incident(place: Place) -> None:
    """Both versions fail together: the candidate is not rolled back for it."""
    server, flag = place
    with Load(server.data_port, "both", 8) as load:
        rollout = Rollout.start(server, "both", "v2", "canary", FIFTH, budget_ms=2000)
        rollout.wait_exposed(20.0)
        rollout.wait_counted(20)
        flag.touch()
        wait_until(lambda: rollout.counts["candidate_failures"] > 60, "an incident")
        assert rollout.counts["stable_failures"] > 120
        flag.unlink()
        counted = rollout.counts["candidate_requests"]
        rollout.wait_counted(counted + 40)
        view = rollout.view()
        assert (view["phase"], view["weights"]["v2"]) == ("Progressing", 20.0)
        rollout.give("abort")
        rollout.end("RolledBack", "aborted")
    assert {sent.status for sent in load.failures()} == {500}


def test_side_by_side(place: Place) -> None:
    """Rollouts of many models run beside each other and end each by itself."""
    server = place.server
    config = FIFTH | {"evaluation_period_seconds": 0.5}
    del config["evaluation_period_hours"]
    with Load(server.data_port, "good", 4) as good, Load(server.data_port, "broken", 4) as broken:
        one = Rollout.start(server, "good", "v2", "canary", config, budget_ms=2000)
        other = Rollout.start(server, "broken", "v2", "canary", FIFTH, budget_ms=2000)
        view = other.end("RolledBack", "tripwire", "guardrail")
        one.end("Healthy", "promoted")
        good.wait(10)
    good.expect_no_failure()
    broken.expect_no_failure()
    assert good.sent[-1].version == "v2"
    assert broken.sent[-1].version == "v9"
    listed = server.control("GET", "/api/v1/rollouts?model=broken").json["rollouts"]
    assert [each["id"] for each in listed] == [view["id"]]
