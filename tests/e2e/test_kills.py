"""``kill -9`` of any process, under load: what is lost, and that everything comes back."""

from __future__ import annotations

import glob
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def server(folder: Path, serve: Serve) -> Server:
    """Two workers, model ``m`` with v1 and v2; v2 is active, v1 is cold."""
    write_trick(folder, "m", "v1")
    write_trick(folder, "m", "v2")
    return serve("--limit-default-timeout=30", workers=2)


def expect_counted(server: Server, load: Load, lost: int = 0) -> None:
    """The server's counters are what the clients saw, but for at most ``lost``."""
    answered = sum(sent.status == 200 for sent in load.sent)
    stats = wait_until(lambda: _at_rest(server), "no request to be in flight")
    assert answered <= stats["success"] <= answered + lost, (stats, answered)
    assert stats["fail"] <= lost, stats


def _at_rest(server: Server) -> dict[str, int] | None:
    stats = server.stats("m")
    return stats if stats["inflight"] == 0 else None


def test_control_may_die(server: Server) -> None:
    """Without control every request is answered, and its successor switches as before."""
    (before,) = server.control_pids()
    with Load(server.data_port, "m") as load:
        os.kill(before, signal.SIGKILL)
        load.wait(200)
        wait_until(lambda: before not in (server.control_pids() or [before]), "a new control")
        server.wait_control()
        answer = server.switch("m", "v1")
        assert answer.status == 200, answer
        load.wait(100)
    load.expect_no_failure()
    assert load.sent[-1].version == "v1"
    expect_counted(server, load)


def test_nursery_may_die(server: Server) -> None:
    """Without its nursery the server answers, and a version that is not loaded still loads."""
    with Load(server.data_port, "m") as load:
        killed = server.nursery_pids()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        answer = server.switch("m", "v1")
        assert answer.status == 200, answer
        load.wait(100)
        wait_until(lambda: set(server.nursery_pids()) - set(killed), "a new nursery")
    load.expect_no_failure()
    assert load.sent[-1].version == "v1"
    expect_counted(server, load)


def test_host_may_die(server: Server) -> None:
    """A host's death costs no request: what it held waits for its successor."""
    with Load(server.data_port, "m") as load:
        for _ in range(2):
            (before,) = server.host_pids("m", "v2")
            os.kill(before, signal.SIGKILL)
            wait_until(lambda: _others(server, before), "a new host")  # noqa: B023 - waited for here
            load.wait(100)
    load.expect_no_failure()
    expect_counted(server, load)
    assert server.version("m", "v2")["state"] == "READY"


def _others(server: Server, pid: int) -> list[int]:
    return [other for other in server.host_pids("m", "v2") if other != pid]


def test_worker_may_die(server: Server) -> None:
    """A worker's death breaks its own connections only, once each, and no count is lost."""
    with Load(server.data_port, "m") as load:
        load.wait(100)
        ports = {sent.port for sent in load.sent[-60:]}
        of = {port: server.worker_of(port) for port in ports}
        victim = of[load.sent[-1].port]
        assert victim is not None
        successes = server.stats("m")["success"]
        os.kill(victim, signal.SIGKILL)
        load.wait(200)
        wait_until(
            lambda: victim not in server.worker_pids() and len(server.worker_pids()) == 2,
            "a new worker",
        )
        load.wait(200)
        assert server.stats("m")["success"] > successes
    broken = [sent for sent in load.sent if sent.status == 0]
    assert broken, "nobody noticed"
    assert len(load.failures()) == len(broken)
    assert {of.get(sent.port) for sent in broken} == {victim}
    assert len(broken) == len({sent.port for sent in broken})
    expect_counted(server, load, lost=len(broken))


def test_everything_but_the_supervisor_may_die_together(server: Server) -> None:
    """All children killed at once: the tree is whole again and serves the active version."""
    first = server.control("GET", "/api/v1/models/m").json["active"]
    server.note()
    old = set(server.seen)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(server.is_ready, "readiness")
    assert server.predict("m").json["version"] == first == "v2"
    server.wait_control()
    assert server.switch("m", "v1").status == 200
    assert not old & set(server.worker_pids() + server.control_pids() + server.nursery_pids())


def test_supervisor_dies(folder: Path, serve: Serve) -> None:
    """Nothing outlives the supervisor, a restart serves what was active, and no litter stays."""
    write_trick(folder, "m", "v1")
    write_trick(folder, "m", "v2")
    server = serve()
    assert server.switch("m", "v1").status == 200
    runtime = runtime_folders(server)
    assert len(runtime) == 1
    server.note()
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.expect_nobody(5)
    server.seen.clear()
    server.start()
    answer = server.predict("m")
    assert (answer.status, answer.json["version"]) == (200, "v1")
    server.wait_control()
    assert server.model("m")["active"] == "v1"
    assert not Path(runtime[0]).exists(), "the dead server's runtime folder was not swept"
    assert server.stop() == 0
    assert not [f for f in runtime if Path(f).exists()]


def runtime_folders(server: Server) -> list[str]:
    """The runtime folders that the server's nursery was told of."""
    from tests.e2e import processes

    told = {
        part.partition("=")[2]
        for pid in server.nursery_pids()
        for part in processes.command(pid)
        if part.startswith("--runtime-dir=")
    }
    return sorted(folder for folder in told if glob.glob(folder))
