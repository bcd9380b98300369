"""What an operator may do to a rollout under load, and what is refused without any effect."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.harness import Response, Server, wait_until
from tests.e2e.load import Load, Switched
from tests.e2e.rollouts import FIFTH, Rollout, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

#: Two weights that stay.
STEPS: list[Any] = [10, {"hold_hours": 1}, 30, {"hold_hours": 1}]
CALM: dict[str, Any] = {"require_proof": False}
COMMANDS = ("promote", "pause", "resume", "abort", "retry", "skip")


class Place(NamedTuple):
    """Model ``m``: v9 is active, v2 and v3 are as good; v4 fails while ``flag`` is there."""

    server: Server
    flag: Path


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all tests here."""
    root = tmp_path_factory.mktemp("commands")
    flag = root / "flag"
    for version in ("v2", "v3", "v9"):
        write_version(root / "models", "m", version)
    write_version(
        root / "models", "m", "v4", predict=f"if os.path.exists({str(flag)!r}): raise OSError"
    )
    with Server(root / "models", root / "state", workers=2) as server:
        wait_until(lambda: server.has_version("m", "v4"), "the versions")
        yield Place(server, flag)


@pytest.fixture
def server(module: Place) -> Iterator[Server]:
    """The server, with v9 active before and after."""
    yield module.server
    if module.server.model("m")["active"] != "v9":
        assert module.server.switch("m", "v9", force=True).status == 200


def begin(server: Server, version: str = "v2", **body: Any) -> Rollout:
    """At the first of two steps that stay."""
    rollout = Rollout.start(server, "m", version, "canary", CALM, steps=STEPS, **body)
    rollout.wait_exposed(10.0)
    wait_until(lambda: rollout.view()["step"] == 1, "the step that stays")
    return rollout


def refused(rollout: Rollout, command: str, **body: Any) -> Response:
    """A command that is refused, tells the state, and changes nothing."""
    before = rollout.view()
    answer = rollout.command(command, **body)
    assert answer.status == 409, (command, answer)
    after = rollout.view()
    for name in ("phase", "reason", "generation", "attempt", "step", "weights"):
        assert after[name] == before[name], (command, name)
    assert answer.json["rollout"]["generation"] == before["generation"]
    return answer


def test_immediate(server: Server) -> None:
    """At once, after which nobody is answered by the version before."""
    with Load(server.data_port, "m", 8) as load:
        asked = time.monotonic()
        rollout = Rollout.start(server, "m", "v2", "immediate")
        rollout.end("Healthy", "promoted")
        flip = Switched(asked, time.monotonic(), "v2")
        load.wait(50)
    load.expect_no_failure()
    load.expect_order("v9", [flip])


def test_gradual(server: Server) -> None:
    """In equal steps, each with more than the one before."""
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(
            server, "m", "v2", "gradual", {"duration_seconds": 2, "steps": 4} | CALM
        )
        view = rollout.end("Healthy", "promoted")
        load.wait(20)
    load.expect_no_failure()
    assert [step["weight"] for step in view["steps"] if step["kind"] == "set_weight"] == [
        25.0, 50.0, 75.0,
    ]  # fmt: skip
    assert {step["state"] for step in view["steps"]} == {"done"}
    assert load.sent[-1].version == "v2"


def test_steered(server: Server) -> None:
    """Held, let go, taken to the next step and promoted, all under load."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        generation = rollout.seen["generation"]
        refused(rollout, "pause", generation=generation - 1)
        refused(rollout, "resume")
        refused(rollout, "retry")
        view = rollout.give("pause", generation=generation, idempotency_key="p1")
        assert (view["phase"], view["reason"]) == ("Paused", "user")
        again = rollout.give("pause", idempotency_key="p1")
        assert again["generation"] == view["generation"]
        refused(rollout, "pause")
        refused(rollout, "skip")
        assert rollout.view()["weights"]["v2"] == 10.0
        rollout.give("resume", why="looked at it")
        rollout.give("skip")
        rollout.wait_exposed(30.0)
        wait_until(lambda: rollout.view()["step"] == 3, "the second step that stays")
        rollout.give("promote")
        view = rollout.end("Healthy", "promoted")
        load.wait(20)
    load.expect_no_failure()
    assert load.sent[-1].version == "v2"
    assert "skipped" in {step["state"] for step in view["steps"]}
    told = {(entry.command, entry.why) for entry in rollout.journal() if entry.kind == "commanded"}
    assert ("resume", "looked at it") in told
    for command in COMMANDS:
        refused(rollout, command)


def test_abort_and_retry(server: Server) -> None:
    """Back at once; again only if told to, from the first step and with fresh evidence."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        rollout.wait_counted(10)
        view = rollout.give("abort", why="changed my mind")
        assert view["weights"]["v2"] == 0.0 or view["phase"] == "RollingBack"
        first = rollout.end("RolledBack", "aborted")
        at = len(load.sent)
        load.wait(50)
        assert {sent.version for sent in load.sent[at + 8 :]} == {"v9"}
        for command in ("promote", "pause", "resume", "skip"):
            refused(rollout, command)
        assert rollout.give("abort")["generation"] == first["generation"]
        view = rollout.give("retry")
        assert (view["attempt"], view["step"]) == (2, 0)
        assert view["counts"]["candidate_requests"] < first["counts"]["candidate_requests"]
        rollout.wait_exposed(10.0)
        rollout.give("abort")
        rollout.end("RolledBack", "aborted")
    load.expect_no_failure()


def test_abort_beats_promote(server: Server) -> None:
    """Commands at once: one wins, the others are told, and nobody's request fails."""
    with Load(server.data_port, "m", 8) as load, ThreadPoolExecutor(6) as pool:
        rollout = begin(server)
        names = ["promote", "abort", "skip", "pause", "promote", "abort"]
        answers = list(pool.map(rollout.command, names))
        assert {answer.status for answer in answers} <= {200, 409}
        assert [a.status for a, name in zip(answers, names, strict=True) if name == "abort"] == [
            200, 200,
        ]  # fmt: skip
        rollout.end("RolledBack", "aborted")
        load.wait(20)
    load.expect_no_failure()
    assert load.sent[-1].version == "v9"


def test_another_rollout(server: Server) -> None:
    """Beside a running one it is refused, waits, or replaces it: as it says."""
    with Load(server.data_port, "m", 8) as load:
        first = begin(server)
        answer = Rollout.ask(server, "m", "v3", "canary", FIFTH)
        assert answer.status == 409
        assert answer.json["rollout"]["id"] == first.id
        waiting = Rollout.start(server, "m", "v3", "canary", FIFTH, on_running="queue")
        assert (waiting.seen["phase"], waiting.seen["reason"]) == ("Preparing", "queued")
        first.give("abort")
        first.end("RolledBack", "aborted")
        waiting.wait_exposed(20.0)
        last = Rollout.start(server, "m", "v2", "canary", FIFTH, on_running="replace")
        waiting.end("RolledBack", "superseded")
        last.wait_exposed(20.0)
        last.give("abort")
        last.end("RolledBack", "aborted")
    load.expect_no_failure()


def test_switch_beside_a_rollout(server: Server) -> None:
    """A switch is refused and says why; forced, it ends the rollout."""
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server)
        for version in ("v2", "v3"):
            answer = server.switch("m", version)
            assert answer.status == 409, answer
            assert rollout.id in answer.error
        for version in ("v2", "v9"):
            path = f"/api/v1/models/m/versions/{version}"
            assert server.control("DELETE", path).status == 409
        assert rollout.view()["weights"] == {"v9": 90.0, "v2": 10.0}
        answer = server.switch("m", "v3", force=True)
        assert answer.status == 200, answer
        rollout.end("RolledBack", "superseded")
        at = len(load.sent)
        load.wait(50)
        assert {sent.version for sent in load.sent[at + 8 :]} == {"v3"}
    load.expect_no_failure()


def test_rollback_while_it_bakes(server: Server) -> None:
    """One request goes back to the version before, which was kept warm."""
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(server, "m", "v2", "immediate", bake_seconds=3600)
        rollout.wait("Baking")
        assert server.model("m")["active"] == "v2"
        answer = server.control("POST", "/api/v1/models/m/rollback", {})
        assert (answer.status, answer.json["to"]) == (200, "v9"), answer
        at = len(load.sent)
        load.wait(50)
        assert {sent.version for sent in load.sent[at + 8 :]} == {"v9"}
        rollout.end("RolledBack", "aborted")
    load.expect_no_failure()


def test_fails_while_it_bakes(module: Place, server: Server) -> None:
    """It answers everything and breaks: the version before answers for it, and takes over."""
    module.flag.unlink(missing_ok=True)
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(
            server, "m", "v4", "immediate", bake_seconds=3600, budget_ms=2000,
        )  # fmt: skip
        rollout.wait("Baking")
        wait_until(lambda: load.sent[-1].version == "v4", "the candidate to answer")
        module.flag.touch()
        rollout.end("RolledBack", "bake")
        at = len(load.sent)
        load.wait(50)
        assert {sent.version for sent in load.sent[at + 8 :]} == {"v9"}
    load.expect_no_failure()
    assert {sent.fallback for sent in load.sent if sent.fallback} <= {"error", "breaker"}
    assert server.model("m")["active"] == "v9"
    answer = Rollout.ask(server, "m", "v4", "canary", FIFTH)
    assert answer.status == 409
    assert "force" in answer.error
