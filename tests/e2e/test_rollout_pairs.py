"""Shadows and challengers: both versions see a request, and nobody waits for the other one."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.rollouts import Rollout, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

_TAGGED = """
import numpy as np


class Model:
    def load(self, path):
        self.file = open({note!r}, "a")

    def predict(self, X, shadow=False):
        if X[0, 0]:
            self.file.write(("shadow" if shadow else "real") * 1 + " " + str(len(X)) + chr(10))
            self.file.flush()
        return np.full(len(X), {number!r})
"""
#: An hour's guard against a candidate's errors alone.
ERRORS: dict[str, Any] = {"guardrails": [{"metric": "error_rate"}]}
CANARY = {
    "initial_percentage": 20, "max_percentage": 20, "evaluation_period_seconds": 0.5,
    "require_proof": False,
}  # fmt: skip


class Place(NamedTuple):
    """A server whose model ``m`` has v9 active; ``notes``: what v2 was asked."""

    server: Server
    notes: Path

    def asked(self) -> Counter[str]:
        """The rows that v2 was asked for, by how it was told they came."""
        found: Counter[str] = Counter()
        if self.notes.exists():
            for line in self.notes.read_text().splitlines():
                how, rows = line.split()
                found[how] += int(rows)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """v9 is the highest, so it is active; all others are candidates of one test each."""
    root = tmp_path_factory.mktemp("pairs")
    models, notes = root / "models", root / "notes"
    write_version(models, "m", "v9")
    for version, number in (("v2", 2.0), ("v6", 6.0)):
        write_version(models, "m", version)
        note = str(notes) if version == "v2" else "/dev/null"
        (models / "m" / version / "model.py").write_text(_TAGGED.format(note=note, number=number))
    write_version(models, "m", "v3", predict="os._exit(3)")
    write_version(models, "m", "v4", predict="time.sleep(3600)", settings="hang_seconds: 1\n")
    write_version(models, "m", "v5", predict="time.sleep(0.5)")
    write_version(models, "m", "v7", predict="time.sleep(0.3)")
    with Server(models, root / "state", workers=2) as server:
        wait_until(lambda: server.has_version("m", "v2"), "the versions")
        assert server.model("m")["active"] == "v9"
        yield Place(server, notes)


def seconds_of(load: Load, version: str) -> list[float]:
    """How long the answers of a version took."""
    return [sent.end - sent.start for sent in load.sent if sent.version == version]


def test_shadow_and_then_canary(place: Place) -> None:
    """Stable answers all; the shadow is asked copies that are marked; then it answers some."""
    server = place.server
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(
            server, "m", "v2", "canary", {"require_proof": False},
            steps=[{"shadow_percentage": 100}, {"requests": 50}, {"approval": True}, 20,
                   {"requests": 20}],
        )  # fmt: skip
        wait_until(lambda: rollout.view()["reason"] == "approval", "the shadow to have seen enough")
        asked = place.asked()
        assert asked["shadow"] >= 50
        assert asked["real"] == 0
        assert {sent.version for sent in load.sent} == {"v9"}
        assert rollout.seen["weights"] == {"v9": 100.0, "v2": 0.0}
        assert rollout.seen["counts"]["pairs"] >= 50
        rollout.give("resume")
        view = rollout.end("Healthy", "promoted")
        load.wait(20)
    load.expect_no_failure()
    assert not [sent for sent in load.sent if sent.fallback]
    assert place.asked()["real"] > 0
    assert load.sent[-1].version == "v2"
    counts = view["counts"]
    assert counts["pairs"] == counts["mirrored"]
    assert counts["pairs_candidate_failed"] == 0
    assert counts["candidate_requests"] >= 20
    assert server.switch("m", "v9").status == 200


def test_shadow_strategy(place: Place) -> None:
    """A shadow that nothing follows is over once it has seen enough; with 'then' it goes on."""
    server = place.server
    with Load(server.data_port, "m", 8) as load:
        config: dict[str, Any] = {"sample_percentage": 50, "min_requests": 40}
        view = Rollout.start(server, "m", "v6", "shadow", config).end("Completed")
        assert view["weights"] == {"v9": 100.0, "v6": 0.0}
        assert {sent.version for sent in load.sent} == {"v9"}
        counts = view["counts"]
        assert counts["pairs"] < counts["stable_requests"]
        config |= {"then": "canary", "then_config": CANARY}
        Rollout.start(server, "m", "v6", "shadow", config).end("Healthy", "promoted")
    load.expect_no_failure()
    assert server.switch("m", "v9").status == 200


@pytest.mark.parametrize(("version", "reasons"), [("v3", "dies"), ("v4", "hangs")])
def test_shadow_fails(place: Place, version: str, reasons: str) -> None:
    """Users never notice what happens to a shadow; it is over for it."""
    server = place.server
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(
            server, "m", version, "shadow", {"min_requests": 10**6}, budget_ms=200
        )
        view = rollout.end("RolledBack", "tripwire", "guardrail")
        load.wait(50)
    load.expect_no_failure()
    assert {(sent.version, sent.fallback) for sent in load.sent} == {("v9", "")}
    assert view["counts"]["pairs_candidate_failed"] > 0, reasons


def test_shadow_is_overloaded(place: Place) -> None:
    """A shadow that is too slow for its copies gets fewer: they are dropped, counted and not
    waited for.
    """
    server = place.server
    with Load(server.data_port, "m", 16, pause=0) as load:
        rollout = Rollout.start(
            server, "m", "v5", "shadow", {"min_requests": 10**6}, budget_ms=20_000, **ERRORS
        )
        wait_until(lambda: rollout.counts["dropped"] > 20, "copies to be dropped")
        rollout.give("abort")
        view = rollout.end("RolledBack", "aborted")
    load.expect_no_failure()
    assert statistics.median(seconds_of(load, "v9")) < 0.25
    assert view["counts"]["candidate_failures"] == 0
    metrics = server.control("GET", "/metrics").body.decode()
    dropped = [x for x in metrics.splitlines() if x.startswith("hotswap_shadow_dropped_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in dropped) >= view["counts"]["dropped"]


def test_challenger(place: Place) -> None:
    """Both are asked everything, one answers; pairs are compared, and promoted if told to."""
    server = place.server
    config = {"challenger_percentage": 30, "min_pairs": 60, "promote": False}
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(
            server, "m", "v6", "champion_challenger", config, budget_ms=2000,
            guardrails=[{"metric": "error_rate"}, {"metric": "disagreement", "max": 1.0}],
        )  # fmt: skip
        view = rollout.end("Completed")
    load.expect_no_failure()
    assert {sent.version for sent in load.sent} == {"v6", "v9"}
    counts = view["counts"]
    assert counts["pairs"] >= 60
    assert counts["pairs_candidate_failed"] == 0
    metric = next(each for each in view["metrics"] if each["name"] == "disagreement")
    # 9.0 and 6.0 never agree.
    assert metric["estimate"] == 1.0
    assert metric["n"] >= 60


def test_slow_challenger_delays_nobody_else(place: Place) -> None:
    """The answers of the champion do not wait for the challenger's."""
    server = place.server
    config = {"challenger_percentage": 20, "min_pairs": 30, "promote": False}
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(
            server, "m", "v7", "champion_challenger", config, budget_ms=5000, **ERRORS
        )
        rollout.end("Completed")
    load.expect_no_failure()
    assert min(seconds_of(load, "v7")) >= 0.3
    assert statistics.median(seconds_of(load, "v9")) < 0.15
