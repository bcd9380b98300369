"""Switching under load: nothing fails, nothing mixes, nothing old after a switch returned."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load, Switched
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def switch(server: Server, version: str) -> Switched:
    """Switch ``m`` and say when."""
    asked = time.monotonic()
    answer = server.switch("m", version)
    answered = time.monotonic()
    assert answer.status == 200, answer
    assert answer.json["to"] == version
    return Switched(asked, answered, version)


def test_two_hundred_switches(folder: Path, serve: Serve) -> None:
    """200 switches under 16 keep-alive connections: no failure, no answer that mixes versions."""
    write_trick(folder, "m", "v1")
    write_trick(folder, "m", "v2")
    server = serve(workers=2)
    with Load(server.data_port, "m", 16) as load:
        switches = [switch(server, ("v1", "v2")[number % 2]) for number in range(200)]
        load.wait(64)
    load.expect_no_failure()
    load.expect_order("v2", switches)
    assert {sent.version for sent in load.sent} == {"v1", "v2"}
    assert server.model("m")["revision"] >= 200
    assert len(server.host_pids("m")) == 2


def test_no_old_answer_after_a_switch(folder: Path, serve: Serve) -> None:
    """With four workers, on fresh and keep-alive connections, no request that began after a switch
    returned, or after any client saw the new version, is answered by the old one.
    """
    write_trick(folder, "m", "v1")
    write_trick(folder, "m", "v2")
    server = serve(workers=4)
    with Load(server.data_port, "m", 8) as kept, Load(server.data_port, "m", 8, fresh=True) as new:
        switches = []
        for number in range(60):
            switches.append(switch(server, ("v1", "v2")[number % 2]))
            # One after the other from many new sockets, so from every worker.
            answers = [server.predict("m") for _ in range(4)]
            assert {a.headers["x-hotswap-version"] for a in answers} == {switches[-1].version}
            kept.wait(8)
            new.wait(4)
    for load in (kept, new):
        load.expect_no_failure()
    together = Load(0, "m")
    together.sent = kept.sent + new.sent
    together.expect_order("v2", switches)


def test_loading_and_rolling_back_under_load(folder: Path, serve: Serve) -> None:
    """Cold versions load beside traffic; rolling back needs no load and skips what was left."""
    for number in (1, 2, 3):
        write_trick(folder, "m", f"v{number}")
    server = serve(workers=2)
    with Load(server.data_port, "m", 8) as load:
        assert server.switch("m", "v1").json["from"] == "v3"
        assert server.switch("m", "v2").json["from"] == "v1"
        back = server.control("POST", "/api/v1/models/m/rollback", {})
        assert (back.status, back.json["to"]) == (200, "v1")
        further = server.control("POST", "/api/v1/models/m/rollback", {})
        assert (further.status, further.json["to"]) == (200, "v3")
        none = server.control("POST", "/api/v1/models/m/rollback", {})
        assert none.status == 409
        assert "no version to roll back to" in none.error
        load.wait(50)
    load.expect_no_failure()
    assert load.sent[-1].version == "v3"


def test_switches_that_race(folder: Path, serve: Serve) -> None:
    """Switches asked for at once: each is done or superseded, and the tree agrees on the last."""
    for number in range(1, 6):
        write_trick(folder, "m", f"v{number}")
    server = serve(workers=2)
    with Load(server.data_port, "m", 8) as load, ThreadPoolExecutor(5) as pool:
        for _ in range(4):
            versions = [f"v{number}" for number in range(1, 6)]
            answers = list(pool.map(lambda version: server.switch("m", version), versions))
            assert {answer.status for answer in answers} <= {200, 409}, answers
            done = [answer.json for answer in answers if answer.status == 200]
            assert done
            assert all("superseded" in a.error for a in answers if a.status == 409)
            last = max(done, key=lambda each: each["revision"])["to"]
            assert server.model("m")["active"] == last
            assert server.predict("m").headers["x-hotswap-version"] == last
    load.expect_no_failure()


def test_models_do_not_wait_for_each_other(folder: Path, serve: Serve) -> None:
    """While one model loads slowly, another one switches and answers."""
    write_trick(folder, "m", "v1")
    write_trick(folder, "m", "v2")
    write_trick(folder, "slow", "v1")
    server = serve(workers=2)
    write_trick(folder, "slow", "v2", load="time.sleep(4)")
    wait_until(lambda: server.has_version("slow", "v2"), "slow/v2 to be registered")
    with Load(server.data_port, "m", 8) as load, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.switch, "slow", "v2")
        for number in range(10):
            switch(server, ("v1", "v2")[number % 2])
        assert not slow.done()
        assert server.predict("slow").headers["x-hotswap-version"] == "v1"
        assert slow.result().status == 200
    load.expect_no_failure()
    assert server.predict("slow").headers["x-hotswap-version"] == "v2"


def test_idempotency_key_over_http(folder: Path, serve: Serve) -> None:
    """A repeated switch with the same key is answered as before and flips nothing."""
    write_trick(folder, "m", "v1")
    write_trick(folder, "m", "v2")
    server = serve(workers=1)
    first = server.switch("m", "v1", idempotency_key="k1")
    again = server.switch("m", "v1", idempotency_key="k1")
    assert first.status == again.status == 200
    assert first.json["operation_id"] == again.json["operation_id"]
    assert first.json["revision"] == again.json["revision"] == server.model("m")["revision"]
    other = server.switch("m", "v2", idempotency_key="k1")
    assert other.status == 409
    assert server.model("m")["active"] == "v1"
