"""``kill -9`` of any process in the middle of a rollout, under load: it goes on where it was."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import processes
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.rollouts import Rollout, add_version, fell_back, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

#: A step that lasts until someone skips it, and then the end.
STEPS: list[Any] = [20, {"hold_hours": 1}, 40, {"requests": 40}]
BODY: dict[str, Any] = {"steps": STEPS, "budget_ms": 2000, "force": True}
CONFIG: dict[str, Any] = {"require_proof": False, "max_error_rate_threshold": None}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers; v1 of model ``m`` is active and v2 is there."""
    root = tmp_path_factory.mktemp("kills")
    write_version(root / "models", "m")
    with Server(root / "models", root / "state", "--limit-default-timeout=30") as server:
        add_version(server, "m", "v2")
        yield server


def begin(server: Server) -> Rollout:
    """A rollout at its first step, with some evidence."""
    rollout = Rollout.start(server, "m", "v2", "canary", CONFIG, **BODY)
    rollout.wait_exposed(20.0)
    rollout.wait_counted(20)
    wait_until(lambda: rollout.view()["step"] == 1, "the step that lasts")
    return rollout


def go_on(rollout: Rollout, load: Load, before: dict[str, Any]) -> None:
    """At the same step with the same evidence, of which there is more and more; then aborted."""
    view = rollout.wait("Progressing")
    assert (view["step"], view["attempt"]) == (before["step"], before["attempt"])
    assert view["weights"]["v2"] in (0.0, 20.0)
    expect_grown(before["counts"], view["counts"], load)
    rollout.wait_exposed(20.0)
    more = view["counts"]["candidate_requests"] + 15
    expect_grown(view["counts"], rollout.wait_counted(more), load)
    rollout.give("abort")
    rollout.end("RolledBack", "aborted")
    at = len(load.sent)
    load.wait(20)
    assert {sent.version for sent in load.sent[at + 8 :]} <= {"v1"}


def expect_grown(before: dict[str, int], after: dict[str, int], load: Load) -> None:
    """No counter went down, and nothing was counted twice: at most what was ever sent."""
    for name in ("candidate_requests", "stable_requests", "candidate_failures", "fallbacks"):
        assert after[name] >= before[name], (name, before, after)
    candidates = sum(1 for s in list(load.sent) if s.version == "v2" or s.fallback)
    lost = sum(1 for s in list(load.sent) if s.status == 0)
    assert after["candidate_requests"] <= candidates + lost + 16
    assert after["candidate_requests"] + after["stable_requests"] <= len(load.sent) + lost + 16


def killed(pids: list[int]) -> list[int]:
    """Kill them."""
    assert pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


def test_control_dies(server: Server) -> None:
    """Its successor has the counters up to the last that were saved, and those since."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        before = rollout.view()
        for _ in range(2):
            (old,) = killed(server.control_pids())
            at = len(load.sent)
            load.wait(50)
            assert {sent.version for sent in load.sent[at:]} == {"v1", "v2"}
            wait_until(lambda: old not in (server.control_pids() or [old]), "a new control")  # noqa: B023
            server.wait_control()
        go_on(rollout, load, before)
    load.expect_no_failure()


def test_control_hangs(server: Server) -> None:
    """Stopped for a while: the split stays, and what was counted meanwhile is not lost."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        before = rollout.view()
        (control,) = server.control_pids()
        os.kill(control, signal.SIGSTOP)
        at = len(load.sent)
        load.wait(200)
        seen = sum(1 for sent in load.sent[at:] if sent.version == "v2")
        assert seen > 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(control, signal.SIGCONT)
        server.wait_control()
        rollout.wait_counted(before["counts"]["candidate_requests"] + seen - 16)
        go_on(rollout, load, before)
    load.expect_no_failure()


@pytest.mark.parametrize("who", ["candidate", "stable", "twin", "all"])
def test_hosts_die(server: Server, who: str) -> None:
    """A host's death costs no request, whosever it is; it is started again and counted on."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        before = rollout.view()
        pids = hosts(server)
        # While it is away the candidate fails: no more than a few times, or the breaker trips.
        load.pause = 0.5
        load.wait(16)
        killed(sorted(pids.values()) if who == "all" else [pids[who]])
        wait_until(
            lambda: len(now := hosts(server)) == 3 and not set(now.values()) & dead(pids, who),
            "all hosts to be back",
        )
        rollout.wait_exposed(20.0)
        load.pause = 0.004
        go_on(rollout, load, before)
    load.expect_no_failure()
    lost = fell_back(load, "v2", "v1")
    assert {sent.fallback for sent in lost} <= {"lost", "unavailable"}, who
    if who in ("stable", "twin"):
        assert not lost


def test_candidate_dies_under_heavy_load(server: Server) -> None:
    """While its host is started again all of its requests fail: the breaker takes it out."""
    with Load(server.data_port, "m", 16, pause=0) as load:
        rollout = begin(server)
        killed(server.host_pids("m", "v2"))
        view = rollout.end("RolledBack", "tripwire", "guardrail")
        assert view["counts"]["candidate_failures"] >= 5
        load.wait(20)
    load.expect_no_failure()
    assert {sent.fallback for sent in fell_back(load, "v2", "v1")} <= {
        "lost", "unavailable", "breaker",
    }  # fmt: skip


def hosts(server: Server) -> dict[str, int]:
    """The process of the candidate, of stable and of stable's twin."""
    found = {
        "candidate": server.host_pids("m", "v2"),
        "stable": server.host_pids("m", "v1", twin=False),
        "twin": server.host_pids("m", "v1", twin=True),
    }
    return {who: pids[0] for who, pids in found.items() if len(pids) == 1}


def dead(pids: dict[str, int], who: str) -> set[int]:
    """Those that were killed."""
    return set(pids.values()) if who == "all" else {pids[who]}


def test_worker_dies(server: Server) -> None:
    """What it had accepted breaks; its open windows are lost for both arms, nothing else is."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        before = rollout.view()
        for _ in range(2):
            old = server.worker_pids()
            killed(old[:1])
            wait_until(lambda: len(set(server.worker_pids()) - {old[0]}) == 2, "a new worker")  # noqa: B023
            load.wait(50)
        go_on(rollout, load, before)
    broken = [sent for sent in load.sent if sent.status == 0]
    assert len(load.failures()) == len(broken) <= 16


def test_everything_dies(server: Server) -> None:
    """All children of the supervisor at once: the rollout goes on at its step."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        before = rollout.view()
        killed([each.pid for each in processes.descendants(server.pid)])
        server.wait_control()
        go_on(rollout, load, before)
    assert {sent.status for sent in load.failures()} <= {0, 503}


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_server_restarts(server: Server, how: str) -> None:
    """The whole server ends, and is started on the same state: the same step and evidence."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        first = load
    time_before = saved(rollout)
    before = rollout.seen
    if how == "SIGTERM":
        assert server.stop() == 0
    else:
        server.kill()
    server.start()
    server.wait_control()
    view = rollout.wait("Progressing", "Paused")
    assert (view["step"], view["attempt"]) == (before["step"], before["attempt"])
    assert view["elapsed_seconds"] >= time_before - 3
    for name, count in before["counts"].items():
        assert view["counts"][name] >= count, (name, before["counts"], view["counts"])
    rollout.wait_exposed(20.0)
    with Load(server.data_port, "m", 8) as load:
        counted = view["counts"]["candidate_requests"]
        rollout.wait_counted(counted + 15)
        rollout.give("skip")
        rollout.end("Healthy", "promoted")
        load.wait(20)
    first.expect_no_failure()
    load.expect_no_failure()
    assert load.sent[-1].version == "v2"
    assert server.switch("m", "v1").status == 200


def saved(rollout: Rollout) -> float:
    """Once the counters were saved that are seen now: how long it has lasted."""
    since = rollout.view()["elapsed_seconds"]
    counts = rollout.seen["counts"]

    def later() -> bool:
        same = rollout.view()["counts"] == counts
        return not same or rollout.seen["elapsed_seconds"] > since + 2.5

    wait_until(later, "counters to be saved")
    if rollout.seen["counts"] != counts:
        return saved(rollout)
    return float(rollout.seen["elapsed_seconds"])


@pytest.mark.parametrize("milliseconds", [0, 120])
def test_control_dies_while_it_promotes(server: Server, milliseconds: int) -> None:
    """Wherever a promotion was, it is finished, once, and nobody's request fails."""
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(server, "m", "v2", "immediate", force=True)
        time.sleep(milliseconds / 1000)  # that it is anywhere is what is tested
        (old,) = killed(server.control_pids())
        wait_until(lambda: old not in (server.control_pids() or [old]), "a new control")
        server.wait_control()
        view = rollout.end("Healthy", "promoted")
        at = len(load.sent)
        load.wait(30)
        assert {sent.version for sent in load.sent[at + 8 :]} == {"v2"}
    load.expect_no_failure()
    assert [line["phase"] for line in view["history"]].count("Promoting") == 1
    assert server.model("m")["active"] == "v2"
    assert server.switch("m", "v1").status == 200


def test_abort_outlives_the_supervisor(server: Server) -> None:
    """Once an abort was answered no restart shows the candidate to anybody."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        rollout.give("abort")
        server.kill()
        load.pause = 0.02
        server.start()
        at = len(load.sent)
        load.wait(50)
        server.wait_control()
        rollout.end("RolledBack", "aborted")
        load.wait(100)
        assert {sent.version for sent in load.sent[at + 8 :] if sent.status == 200} == {"v1"}


def test_capacity(server: Server) -> None:
    """A weight gets as many warm hosts as its share of stable's takes, and waits for them."""
    for version in ("v9", "v2"):
        assert server.models is not None
        write_version(server.models, "wide", version, settings="instances: 3\n")
    wait_until(lambda: server.has_version("wide", "v2"), "the versions")
    wait_until(lambda: server.has_version("wide", "v9"), "the versions")
    if server.model("wide")["active"] is None:
        assert server.switch("wide", "v9").status == 200
    if server.host_pids("wide", "v2"):
        assert server.switch("wide", "v9").status == 200
        path = "/api/v1/models/wide/versions/v2/unload"
        assert server.control("POST", path, {}).status == 200
        wait_until(lambda: not server.host_pids("wide", "v2"), "v2 to be cold")
    with Load(server.data_port, "wide", 8) as load:
        rollout = Rollout.start(
            server, "wide", "v2", "canary", CONFIG, budget_ms=2000,
            steps=[20, {"approval": True}, 60, {"approval": True}],
        )  # fmt: skip
        rollout.wait_exposed(20.0)
        wait_until(lambda: server.host_pids("wide", "v9", twin=True), "a twin, in the notes")
        assert server.host_pids("wide", "v2")
        wait_until(lambda: rollout.view()["reason"] == "approval", "the first approval")
        rollout.give("resume")
        rollout.wait_exposed(60.0)
        assert len(server.host_pids("wide", "v2")) >= 2
        wait_until(lambda: rollout.view()["reason"] == "approval", "the second approval")
        rollout.give("resume")
        rollout.end("Healthy", "promoted")
        assert len(server.host_pids("wide", "v2")) == 3
        load.wait(20)
    load.expect_no_failure()
    assert load.sent[-1].version == "v2"
