"""A store that cannot be written in the middle of a rollout: nothing is raised, all is lowered."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.rollouts import Rollout, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

STEPS: list[Any] = [20, {"requests": 60}, 40, {"hold_hours": 1}]
CALM: dict[str, Any] = {"require_proof": False}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Model ``m``: v9 is active; v2 is there, and v3, which always fails."""
    root = tmp_path_factory.mktemp("store")
    for version in ("v2", "v9"):
        write_version(root / "models", "m", version)
    write_version(root / "models", "m", "v3", predict="raise ValueError('broken')")
    with Server(root / "models", root / "state", workers=2) as server:
        wait_until(lambda: server.has_version("m", "v3"), "the versions")
        yield server


@contextlib.contextmanager
def unwritable(server: Server, how: str) -> Iterator[None]:
    """The store's file is locked by another program, or its disk is full."""
    if how == "locked":
        file = server.state_dir / "hotswap.db"
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")
        return
    (control,) = server.control_pids()
    before = resource.prlimit(control, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(control, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("how", ["locked", "full"])
def test_weights_are_frozen(server: Server, how: str) -> None:
    """Evidence for the next weight is there, and it waits until that can be written down."""
    with Load(server.data_port, "m", 8, pause=0.02) as load:
        rollout = Rollout.start(server, "m", "v2", "canary", CALM, steps=STEPS)
        rollout.wait_exposed(20.0)
        with unwritable(server, how):
            at = len(load.sent)
            wait_until(
                lambda: sum(s.version == "v2" for s in load.sent[at:]) > 80, "enough requests"
            )
            assert rollout.view()["weights"] == {"v9": 80.0, "v2": 20.0}
            assert not rollout.view()["final"]
            assert rollout.command("skip").status in (409, 503)
            assert rollout.view()["weights"] == {"v9": 80.0, "v2": 20.0}
        rollout.wait_exposed(40.0)
        rollout.give("abort")
        rollout.end("RolledBack", "aborted")
    load.expect_no_failure()


@pytest.mark.parametrize("how", ["locked", "full"])
def test_abort_works(server: Server, how: str) -> None:
    """An abort takes the candidate out at once, and is written down when that is possible."""
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(server, "m", "v2", "canary", CALM, steps=STEPS[:1])
        rollout.wait_exposed(20.0)
        with unwritable(server, how):
            with contextlib.suppress(TimeoutError):  # the answer may wait for the store
                server.control("POST", f"/api/v1/rollouts/{rollout.id}/abort", {}, seconds=1)
            wait_until(
                lambda: {sent.version for sent in load.sent[-100:]} == {"v9"},
                "the candidate to be out of the route",
            )
        rollout.end("RolledBack", "aborted")
        at = len(load.sent)
        load.wait(50)
        assert {sent.version for sent in load.sent[at:]} == {"v9"}
    load.expect_no_failure()


@pytest.mark.parametrize("how", ["locked", "full"])
def test_failing_candidate_goes(server: Server, how: str) -> None:
    """A candidate that fails is out at once although nothing can be written."""
    with Load(server.data_port, "m", 8, pause=0.02) as load:
        # It is let in by the second step, which is when the store is gone.
        rollout = Rollout.start(
            server, "m", "v3", "canary", CALM, steps=[{"shadow_percentage": 1}, {"approval": True}, 20],
            force=True, guardrails=[{"metric": "sample_ratio"}], budget_ms=2000,
        )  # fmt: skip
        wait_until(lambda: rollout.view()["reason"] == "approval", "the step that waits")
        rollout.give("resume")
        wait_until(
            lambda: any(sent.fallback for sent in load.sent), "its first failure", every=0.001
        )
        with unwritable(server, how):
            wait_until(
                lambda: not [s for s in load.sent[-100:] if s.fallback or s.version != "v9"],
                "the candidate to be out of the route",
            )
        rollout.end("RolledBack", "tripwire", "guardrail")
    load.expect_no_failure()
