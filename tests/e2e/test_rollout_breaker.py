"""A candidate that begins to fail outright is taken out of every worker, without control."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load, Sent
from tests.e2e.rollouts import FIFTH, Rollout, fell_back, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


class Place(NamedTuple):
    """A server with v1 to v9 of model ``m``, all but v1 failing while ``flag`` is there."""

    server: Server
    flag: Path


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests here."""
    root = tmp_path_factory.mktemp("breaker")
    flag = root / "flag"
    write_version(root / "models", "m")
    with Server(root / "models", root / "state", workers=2) as server:
        for version in ("v2", "v3", "v4", "v5"):
            predict = f"if os.path.exists({str(flag)!r}): raise ValueError('broken')"
            write_version(root / "models", "m", version, predict=predict)
        wait_until(lambda: server.has_version("m", "v5"), "the versions")
        yield Place(server, flag)


@pytest.fixture
def place(module: Place) -> Place:
    """Nothing fails yet."""
    module.flag.unlink(missing_ok=True)
    return module


def exposed(load: Load, since: int) -> list[Sent]:
    """The requests that the candidate got, or was assigned."""
    return [sent for sent in list(load.sent)[since:] if sent.version != "v1" or sent.fallback]


def wait_closed(load: Load, seconds: float = 10.0) -> float:
    """Until a hundred requests in a row never touched the candidate; when the last one did began."""

    def closed() -> bool:
        return len(load.sent) >= 100 and not exposed(load, len(load.sent) - 100)

    wait_until(closed, "the candidate to be out of the route", seconds)
    return max(sent.start for sent in load.sent if sent.fallback)


def begin(server: Server, version: str) -> Rollout:
    """At a fifth, answering well."""
    rollout = Rollout.start(server, "m", version, "canary", FIFTH, budget_ms=2000)
    rollout.wait_exposed(20.0)
    rollout.wait_counted(10)
    return rollout


def test_control_is_stopped(place: Place) -> None:
    """All workers send nothing to it any more while control stands still, whatever is started
    again; control then rolls it back.
    """
    server, flag = place
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server, "v2")
        (control,) = server.control_pids()
        os.kill(control, signal.SIGSTOP)
        try:
            flag.touch()
            wait_closed(load)
            at = len(load.sent)
            worker = server.worker_pids()[0]
            os.kill(worker, signal.SIGKILL)
            for host in server.host_pids("m"):
                os.kill(host, signal.SIGKILL)
            wait_until(
                lambda: len(set(server.worker_pids()) - {worker}) == 2 and server.is_ready(),
                "another worker",
            )
            load.wait(200)
            assert not [sent for sent in exposed(load, at) if sent.status]
            # Control wakes up to a new version, and makes new tables: none with the candidate.
            add = "v20"
            assert server.models is not None
            write_version(server.models, "m", add)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(control, signal.SIGCONT)
        server.wait_control()
        rollout.end("RolledBack", "tripwire")
        wait_until(lambda: server.has_version("m", add), "the new version")
        load.wait(100)
        assert not [sent for sent in exposed(load, at) if sent.status]
    broken = [sent for sent in load.sent if sent.status == 0]
    assert len(load.failures()) == len(broken) <= 8
    assert {sent.fallback for sent in fell_back(load, "v2", "v1")} <= {"error", "breaker"}


def test_control_dies(place: Place) -> None:
    """What tripped while there was no control is told to its successor."""
    server, flag = place
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server, "v3")
        flag.touch()
        (control,) = server.control_pids()
        os.kill(control, signal.SIGKILL)
        wait_closed(load)
        at = len(load.sent)
        wait_until(lambda: control not in (server.control_pids() or [control]), "a new control")
        server.wait_control()
        rollout.end("RolledBack", "tripwire", "guardrail")
        wait_until(lambda: rollout.counts["candidate_failures"] > 0, "its failures to be counted")
        load.wait(100)
        assert not exposed(load, at)
    load.expect_no_failure()
    assert fell_back(load, "v3", "v1")


def test_nothing_puts_it_back(place: Place) -> None:
    """New tables while and after it is taken out never give it a request again."""
    server, flag = place
    assert server.models is not None
    with Load(server.data_port, "m", 8) as load:
        rollout = begin(server, "v4")
        flag.touch()
        for number in range(30, 36):  # each registration makes a table
            write_version(server.models, "m", f"v{number}")
            server.control("POST", f"/api/v1/models/m/versions/v{number}/load", {})
        wait_closed(load)
        at = len(load.sent)
        rollout.end("RolledBack", "tripwire", "guardrail")
        wait_until(lambda: server.has_version("m", "v35"), "the versions")
        load.wait(100)
        assert not exposed(load, at)
    load.expect_no_failure()


def test_how_long_it_takes(place: Place) -> None:
    """From its first failure the candidate is out of every worker within the time that a few
    failures in a row take, and a little; printed for those who want to know.
    """
    server, flag = place
    with Load(server.data_port, "m", 16, pause=0.002) as load:
        rollout = begin(server, "v5")
        flag.touch()
        last = wait_closed(load)
        rollout.end("RolledBack", "tripwire", "guardrail")
    load.expect_no_failure()
    failed = sorted(sent.start for sent in load.sent if sent.fallback)
    assert len(failed) < 200
    enough = failed[min(len(failed), 9) - 1]
    print(  # noqa: T201 - a measurement
        f"{len(failed)} failures; out {1000 * (last - failed[0]):.0f} ms after the first and "
        f"{1000 * (last - enough):.0f} ms after the ninth; {time.monotonic() - last:.1f} s ago"
    )
