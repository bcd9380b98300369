"""SIGTERM, SIGINT, SIGHUP and ``hotswap reload``, with requests in flight."""

from __future__ import annotations

import http.client
import json
import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e import tricks
from tests.e2e.conftest import Serve
from tests.e2e.harness import Response, Server, run_command, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def in_flight(server: Server, pool: ThreadPoolExecutor, seconds: float) -> Future[Response]:
    """A request that the model works on for so long, and has begun to."""
    future = pool.submit(server.predict, "m", (tricks.SLOW, seconds))
    wait_until(lambda: server.stats("m")["inflight"] == 1, "the request to be in flight")
    return future


def unready(server: Server) -> bool:
    """Whether ten new connections in a row, so every worker, say so."""
    return all(server.data("GET", "/v2/health/ready").status == 503 for _ in range(10))


def exit_status(server: Server, seconds: float = 45) -> int:
    """Of a server that was told to end."""
    assert server.process is not None
    server.note()
    status = server.process.wait(seconds)
    server.process = None
    server.expect_nobody()
    return status


def test_sigterm(folder: Path, serve: Serve, request: pytest.FixtureRequest) -> None:
    """Unready at once but still accepting, each answer closing its connection; what is in flight
    is answered; then exit status 0 and no process left.
    """
    write_trick(folder, "m", "v1")
    server = serve("--drain-seconds=5", "--grace-seconds=20")
    kept = http.client.HTTPConnection("127.0.0.1", server.data_port, timeout=30)
    request.addfinalizer(kept.close)
    kept.request("GET", "/v2/health/ready")
    assert kept.getresponse().read() == b'{"ready":true}'
    with ThreadPoolExecutor(1) as pool:
        slow = in_flight(server, pool, 7.0)
        server.note()
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: unready(server), "every worker to be unready", 5)
        answer = server.data("GET", "/v2/health/live")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert server.control("GET", "/readyz").status == 503
        kept.request("GET", "/v2/health/live")
        response = kept.getresponse()
        response.read()
        assert (response.status, response.getheader("connection")) == (200, "close")
        assert slow.result().status == 200
    assert exit_status(server) == 0


def test_sigterm_under_load(folder: Path, serve: Serve) -> None:
    """No request that was accepted fails, on connections that are kept and on new ones."""
    write_trick(folder, "m", "v1")
    server = serve("--drain-seconds=1")
    with Load(server.data_port, "m", 8) as load:
        server.note()
        os.kill(server.pid, signal.SIGTERM)
        load.wait(100)
        assert exit_status(server) == 0
    refused = [sent for sent in load.failures() if "ConnectionRefused" in sent.problem]
    others = [sent for sent in load.failures() if sent not in refused]
    assert not others, others[:5]
    first_refused = min((sent.start for sent in refused), default=float("inf"))
    assert all(sent.start < first_refused + 0.5 for sent in load.sent if sent.status == 200)


def test_sigterm_past_the_grace_time(folder: Path, serve: Serve) -> None:
    """What takes longer than the grace time is lost, and the server ends all the same."""
    write_trick(folder, "m", "v1")
    server = serve("--grace-seconds=2")
    with ThreadPoolExecutor(1) as pool:
        slow = in_flight(server, pool, 60.0)
        os.kill(server.pid, signal.SIGTERM)
        assert exit_status(server, 15) == 0
        assert slow.exception() is not None or slow.result().status in (500, 503, 504)


def test_sigterm_during_a_load(folder: Path, serve: Serve) -> None:
    """A version that is being loaded delays nothing."""
    write_trick(folder, "m", "v1")
    server = serve()
    write_trick(folder, "m", "v2", load=tricks.takes(60))
    wait_until(lambda: server.has_version("m", "v2"), "v2 to be registered")
    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(server.switch, "m", "v2")
        wait_until(lambda: server.version("m", "v2")["state"] == "LOADING", "v2 to load")
        os.kill(server.pid, signal.SIGTERM)
        assert exit_status(server, 15) == 0
        assert switching.exception() is not None or switching.result().status in (409, 503)
    assert "Traceback" not in server.log()


def test_sigterm_before_it_is_ready(folder: Path, serve: Serve) -> None:
    """A server that is still starting ends as well."""
    write_trick(folder, "m", "v1", load=tricks.takes(60))
    server = serve(ready=False)
    wait_until(lambda: '"serving"' in server.log(), "the server to listen")
    os.kill(server.pid, signal.SIGTERM)
    assert exit_status(server, 15) == 0


def test_sigint(folder: Path, serve: Serve) -> None:
    """Ctrl-C does not wait for a load balancer, but for what is in flight; a second signal for
    nothing at all.
    """
    write_trick(folder, "m", "v1")
    server = serve("--drain-seconds=30")
    with ThreadPoolExecutor(1) as pool:
        slow = in_flight(server, pool, 2.0)
        os.kill(server.pid, signal.SIGINT)
        assert slow.result().status == 200
    assert exit_status(server, 15) == 0
    server.start()
    with ThreadPoolExecutor(1) as pool:
        slow = in_flight(server, pool, 60.0)
        os.kill(server.pid, signal.SIGINT)
        wait_until(lambda: server.log().count('"stopping"') == 2, "the first signal to be heard")
        os.kill(server.pid, signal.SIGINT)
        exit_status(server, 5)
        assert slow.exception() is not None


def test_ctrl_c_in_a_terminal(folder: Path, serve: Serve) -> None:
    """A terminal sends Ctrl-C to its foreground group: only the supervisor acts, and in order."""
    write_trick(folder, "m", "v1")
    server = serve()
    with ThreadPoolExecutor(1) as pool:
        slow = in_flight(server, pool, 1.0)
        server.note()
        os.killpg(server.pid, signal.SIGINT)
        assert slow.result().status == 200
    assert exit_status(server, 15) == 0
    assert "Traceback" not in server.log()


def test_sighup_under_load(folder: Path, serve: Serve, tmp_path: Path) -> None:
    """New workers with the settings that the file has now; no request fails meanwhile."""
    write_trick(folder, "m", "v1")
    write_trick(folder, "m", "v2")
    config = tmp_path / "config.yaml"
    config.write_text("limits: {rows: 3}\n")
    server = serve(f"--config={config}", workers=2)
    four = {"features": [[1, 2]] * 4, "model": "m"}
    assert server.data("POST", "/predict", four).status == 413
    with Load(server.data_port, "m", 8) as kept, Load(server.data_port, "m", 4, fresh=True) as new:
        old = set(server.worker_pids())
        hosts = server.host_pids("m")
        config.write_text("limits: {rows: 5}\n")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(
            lambda: len(server.worker_pids()) == 2 and not old & set(server.worker_pids()),
            "the old workers to be gone",
        )
        assert server.switch("m", "v1").status == 200
        kept.wait(50)
        new.wait(50)
        assert server.data("POST", "/predict", four).status == 200
        assert set(hosts) <= set(server.host_pids("m")), "a reload replaced a host"
    kept.expect_no_failure()
    new.expect_no_failure()
    answered = sum(sent.status == 200 for sent in kept.sent + new.sent)
    wait_until(lambda: server.stats("m")["success"] == answered + 1, "the counters to agree")


def test_reload_command_and_bad_settings(folder: Path, serve: Serve, tmp_path: Path) -> None:
    """``hotswap reload`` is that signal; a file that is wrong now changes nothing and is told."""
    write_trick(folder, "m", "v1")
    config = tmp_path / "config.yaml"
    config.write_text("limits: {rows: 3}\n")
    server = serve(f"--config={config}", workers=1)
    url = f"http://127.0.0.1:{server.control_port}"
    (old,) = server.worker_pids()
    done = run_command("reload", "--url", url, "--json")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["pid"] == server.pid
    wait_until(lambda: server.worker_pids() not in ([], [old]) and len(server.worker_pids()) == 1,
               "the new worker")  # fmt: skip
    (new,) = server.worker_pids()
    config.write_text("limits: {rows: none at all}\n")
    assert run_command("reload", "--url", url).returncode == 0
    wait_until(lambda: "the settings were not reloaded" in server.log(), "the refusal")
    assert server.worker_pids() == [new]
    assert server.predict("m").status == 200


def test_restart_keeps_what_was_active(folder: Path, serve: Serve) -> None:
    """A server that was stopped and started serves the version that was switched to, at once."""
    for number in (1, 2, 3):
        write_trick(folder, "m", f"v{number}")
    server = serve()
    assert server.switch("m", "v1").status == 200
    before = server.model("m")
    assert server.stop() == 0
    write_trick(folder, "m", "v4")
    server.start()
    answer = server.predict("m")
    assert answer.headers["x-hotswap-version"] == "v1"
    wait_until(lambda: server.control_answers() and server.has_version("m", "v4"), "v4")
    after = server.model("m")
    assert (after["active"], after["previous"]) == (before["active"], before["previous"])
    assert [v["digest"] for v in after["versions"][:3]] == [v["digest"] for v in before["versions"]]
    assert server.version("m", "v4")["weight"] == 0
    back = server.control("POST", "/api/v1/models/m/rollback", {})
    assert (back.status, back.json["to"]) == (200, "v3")
