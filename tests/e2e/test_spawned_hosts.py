"""Hosts that are spawned instead of forked: here as elsewhere, and where Linux's own calls lack.

The second kind of server runs without what only Linux has: every process of it is started with
those calls taken out of the standard library.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import processes, tricks
from tests.e2e.conftest import Serve
from tests.e2e.harness import ROOT, Server, wait_until
from tests.e2e.load import Load, Switched
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

Start = Callable[..., Server]

_WITHOUT_LINUX = """
import os, select, signal
from pathlib import Path

for module, names in (
    (os, ("memfd_create", "pidfd_open", "waitid", "sched_getaffinity")),
    (signal, ("pidfd_send_signal",)),
    (select, [name for name in dir(select) if name.lower().startswith("epoll")]),
):
    for name in names:
        delattr(module, name)

import hotswap.app.platform as platform

platform.LINUX = False
platform._PROC = Path("/there-is-no-proc")
"""


@pytest.fixture(params=["linux", "elsewhere"])
def start(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> Start:
    """Starts a server whose hosts are spawned."""
    env = {}
    if request.param == "elsewhere":
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_WITHOUT_LINUX)
        env["PYTHONPATH"] = f"{site}{os.pathsep}{ROOT / 'src'}"

    def start(*flags: str) -> Server:
        return serve("--host-start=spawn", *flags, workers=2, env=env)

    return start


def hosts(server: Server) -> list[int]:
    """The spawned hosts' processes."""
    server.note()
    below = [each for each in processes.descendants(server.pid) if each.parent == server.pid]
    return [p.pid for p in below if "hotswap.app.host_process" in processes.command(p.pid)]


def test_switches_under_load(start: Start, folder: Path) -> None:
    """Switching back and forth fails no request and misroutes none, and there is no nursery."""
    write_trick(folder, "m", "v1")
    write_trick(folder, "m", "v2")
    server = start()
    wait_until(lambda: len(hosts(server)) == 1, "the active version's host")
    assert server.nursery_pids() == []
    first = server.model("m")["active"]
    switches = []
    with Load(server.data_port, "m", 8) as load:
        for version in ("v1", "v2", "v1", "v2", "v1"):
            asked = load.sent[-1].end
            answer = server.switch("m", version)
            assert answer.status == 200, answer
            load.wait(1)
            switches.append(Switched(asked, load.sent[-1].end, version))
            load.wait(100)
    load.expect_no_failure()
    load.expect_order(first, switches)
    assert {sent.version for sent in load.sent} == {"v1", "v2"}
    assert server.nursery_pids() == []


def replaced(pids: Callable[[], list[int]]) -> None:
    """Kill the first of these and wait until there are as many again."""
    before = pids()
    os.kill(before[0], signal.SIGKILL)

    def again() -> bool:
        now = pids()
        return len(now) == len(before) and before[0] not in now

    wait_until(again, "its successor")


def test_any_process_may_die(start: Start, folder: Path) -> None:
    """A killed host costs no request; control and a worker come back too."""
    write_trick(folder, "m", "v1")
    server = start("--limit-default-timeout=30")
    with Load(server.data_port, "m", 8) as load:
        for _ in range(2):
            (killed,) = wait_until(lambda: hosts(server), "the host")
            os.kill(killed, signal.SIGKILL)
            load.wait(100)
            assert killed not in hosts(server)
    load.expect_no_failure()
    for pids in (server.control_pids, server.worker_pids):
        replaced(pids)
    server.wait_control()
    assert server.predict("m").status == 200


def test_limits_are_kept(start: Start, folder: Path) -> None:
    """A call that hangs, a load that takes too long and a host that grows are ended."""
    limits = "hang_seconds: 0.5\nmemory_mb: 256\n"
    write_trick(folder, "m", "v1", settings=limits)
    server = start("--limit-default-timeout=30")
    (before,) = hosts(server)
    answer = server.predict("m", (tricks.HANG, 0.0))
    assert answer.status == 500, answer
    assert server.predict("m").status == 200
    (after,) = hosts(server)
    assert after != before
    write_trick(folder, "m", "v2", load=tricks.HANGS, settings="load_seconds: 2\n")
    wait_until(lambda: server.has_version("m", "v2"), "v2 to be registered")
    refused = server.switch("m", "v2")
    assert refused.status == 409, refused
    assert "took longer than 2 s" in refused.error
    assert server.predict("m").status == 200

    def outgrown() -> bool:
        server.predict("m", (tricks.LEAK, 64.0))
        return after not in hosts(server)

    wait_until(outgrown, "the host that grew to be ended", every=0.25)
    wait_until(lambda: server.predict("m").status == 200, "its successor")


def test_nothing_outlives_the_supervisor(start: Start, folder: Path, tmp_path: Path) -> None:
    """With the supervisor killed, every process ends: hosts that load or compute as well."""
    loading = tmp_path / "loading"
    write_trick(folder, "m", "v1")
    write_trick(folder, "busy", "v1", settings="hang_seconds: 3600\n")
    busy = f"open({str(loading)!r}, 'w').close(); time.sleep(3600)"
    server = start()
    write_trick(folder, "m", "v2", load=busy)
    wait_until(lambda: server.has_version("m", "v2"), "v2 to be registered")

    def ask(work: Callable[[], object]) -> None:
        def until_lost() -> None:
            with contextlib.suppress(OSError, ValueError):  # the server is killed meanwhile
                work()

        threading.Thread(target=until_lost, daemon=True).start()

    ask(lambda: server.predict("busy", (tricks.HANG, 0.0)))
    ask(lambda: server.switch("m", "v2"))
    wait_until(lambda: server.stats("busy")["inflight"] == 1, "a call that hangs")
    wait_until(loading.exists, "a load that hangs")
    assert len(hosts(server)) == 3
    supervisor = server.process
    assert supervisor is not None
    server.note()
    server.process = None
    supervisor.kill()
    supervisor.wait()
    server.expect_nobody(10)
