"""Requests with a key: one version for each user, on every worker, whatever is started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load, Sent
from tests.e2e.rollouts import Rollout, add_version, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

USERS = 200
APPROVAL = {"approval": True}
CONFIG: dict[str, Any] = {"require_proof": False}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three workers; v1 of model ``m`` is active, v2 and v3 are there."""
    root = tmp_path_factory.mktemp("sticky")
    write_version(root / "models", "m")
    with Server(root / "models", root / "state", workers=3) as server:
        add_version(server, "m", "v2")
        add_version(server, "m", "v3")
        yield server


def arms(sent: Sequence[Sent]) -> dict[str, str]:
    """Each user's version; it must be one."""
    found: dict[str, set[str]] = {}
    for each in sent:
        if each.status == 200:
            found.setdefault(each.key, set()).add(each.version)
    changed = {key: versions for key, versions in found.items() if len(versions) > 1}
    assert not changed, changed
    return {key: versions.pop() for key, versions in found.items()}


def users(load: Load) -> dict[str, str]:
    """Each user's version, from requests that begin now: two rounds of all of them."""
    now = time.monotonic()
    load.wait(2 * USERS + 32)
    found = arms([sent for sent in load.sent if sent.start >= now])
    assert len(found) == USERS
    return found


def test_users_stay(server: Server) -> None:
    """On all workers, over restarts of all processes; a greater weight only adds users to it."""
    with Load(server.data_port, "m", 12, fresh=True, keys=USERS) as load:
        rollout = Rollout.start(
            server, "m", "v2", "canary", CONFIG, steps=[20, APPROVAL, 60, APPROVAL]
        )
        rollout.wait_exposed(20.0)
        first = users(load)
        assert USERS * 0.08 < list(first.values()).count("v2") < USERS * 0.36
        for pid in (*server.worker_pids()[:2], *server.control_pids()):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(server.worker_pids()) == 3 and server.is_ready(), "three workers")
        server.wait_control()
        rollout.wait_exposed(20.0)
        assert users(load) == first
        wait_until(lambda: rollout.view()["reason"] == "approval", "the wait for approval")
        rollout.give("resume")
        rollout.wait_exposed(60.0)
        second = users(load)
        assert {key for key in first if first[key] == "v2"} < {
            key for key in second if second[key] == "v2"
        }
        # A user is counted once, whichever workers it came by and however often.
        counts = wait_until(lambda: all_counted(rollout), "every user to be counted")
        assert counts["candidate_requests"] + counts["stable_requests"] == USERS
        rollout.give("abort")
        rollout.end("RolledBack", "aborted")
    assert {sent.status for sent in load.failures()} <= {0}


def all_counted(rollout: Rollout) -> dict[str, int] | None:
    """The counts once there are enough."""
    counts = rollout.counts
    return counts if counts["candidate_requests"] + counts["stable_requests"] >= USERS else None


def test_another_rollout_draws_anew(server: Server) -> None:
    """Other users are with the candidate of the next rollout, unless it is given the same seed."""
    seen = []
    for seed in (1, 1, 2):
        with Load(server.data_port, "m", 12, keys=USERS) as load:
            rollout = Rollout.start(
                server, "m", "v3", "canary", CONFIG, steps=[30, APPROVAL], seed=seed
            )
            rollout.wait_exposed(30.0)
            seen.append(users(load))
            rollout.give("abort")
            rollout.end("RolledBack", "aborted")
        load.expect_no_failure()
    assert seen[0] == seen[1] != seen[2]


def test_key_in_the_input(server: Server) -> None:
    """Without the header an input's value is the key, if the rollout says so."""
    rollout = Rollout.start(
        server, "m", "v3", "canary", CONFIG, steps=[50, APPROVAL], key_input="x"
    )
    rollout.wait_exposed(50.0)
    versions: dict[float, set[str]] = {}
    for number in range(120):
        user = float(1 + number % 24)
        answer = server.predict("m", (user, 2.0))
        assert answer.status == 200
        versions.setdefault(user, set()).add(answer.headers["x-hotswap-version"])
    assert all(len(found) == 1 for found in versions.values()), versions
    assert {v for found in versions.values() for v in found} == {"v1", "v3"}
    wait_until(
        lambda: sum(rollout.counts[f"{arm}_requests"] for arm in ("candidate", "stable")) == 24,
        "every user to be counted once",
    )
    rollout.give("abort")
    rollout.end("RolledBack", "aborted")
