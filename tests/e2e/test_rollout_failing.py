"""Candidates that fail in every way, at a fifth of live traffic: users never see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.rollouts import FIFTH, Rollout, fell_back, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Model ``m``: v1 is active; each other version is the candidate of one test."""
    root = tmp_path_factory.mktemp("failing")
    write_version(root / "models", "m")
    with Server(root / "models", root / "state", workers=2) as server:
        server.wait_control()
        for case in CASES.values():
            write_version(
                root / "models", "m", case.version, predict=case.predict, settings=case.settings
            )
        for version, trick in OTHERS.items():
            write_version(root / "models", "m", version, **trick)
        for version in [*OTHERS, *(case.version for case in CASES.values())]:
            wait_until(lambda: server.has_version("m", version), "its versions")  # noqa: B023
        yield server


class Failing(NamedTuple):
    """A candidate; the headers' reasons and the rollout's that are right for it."""

    version: str
    predict: str
    fallbacks: set[str]
    reasons: tuple[str, ...] = ("tripwire",)
    settings: str = ""
    body: dict[str, Any] = {}


CASES = {
    "raises": Failing("v2", "raise ValueError('no such column')", {"error"}),
    "hangs": Failing(
        "v3", "time.sleep(3600)", {"timeout", "lost", "unavailable"}, ("tripwire", "guardrail"),
        settings="hang_seconds: 1\n", body={"budget_ms": 150},
    ),
    "aborts": Failing("v4", "os.abort()", {"lost", "unavailable"}),
    "exits": Failing("v5", "os._exit(3)", {"lost", "unavailable"}),
    "not a number": Failing("v6", "return np.full(len(X), np.nan)", {"invalid"}),
    "infinity": Failing("v7", "return np.full(len(X), -np.inf)", {"invalid"}),
    "too many rows": Failing("v8", "return np.zeros(len(X) + 1)", {"invalid", "error"}),
    "too few rows": Failing("v9", "return np.zeros(0)", {"invalid", "error"}),
    "other type": Failing("v10", "return np.array(['x'] * len(X))", {"invalid", "error"}),
    "other shape": Failing("v11", "return np.zeros((len(X), 2))", {"invalid", "error"}),
    "nothing": Failing("v12", "return None", {"invalid", "error"}),
    "often raises": Failing(
        "v13",
        "self.kept.append(1)\n            if len(self.kept) % 3 == 0: raise ValueError('third')",
        {"error"},
        ("guardrail",),
        body={"guardrails": [{"metric": "error_rate", "max_ratio": 1.5}]},
    ),
    "often not a number": Failing(
        "v14",
        "self.kept.append(1)\n            if len(self.kept) % 3 == 0: return X[:, 0] * np.nan",
        {"invalid"},
        ("guardrail",),
    ),
    "passes the limit": Failing(
        "v15",
        "self.kept.append(1)\n            if len(self.kept) % 2 == 0: raise ValueError('second')",
        {"error"},
        ("tripwire",),
        # Slow machines tick after few requests: evidence must not be there before the limit is.
        body={
            "guardrails": [
                {"metric": "error_rate", "max": 0.1, "weight": 1e-6}, {"metric": "latency"},
            ],
            "alpha": 1e-6,
        },
    ),
}  # fmt: skip

OTHERS: dict[str, dict[str, str]] = {
    "v20": {"predict": "self.kept.append(np.ones(8 << 17))", "settings": "memory_mb: 150\n"},
    "v21": {"predict": "time.sleep(0.02)"},
    "v22": {"load": "raise RuntimeError('no weights')"},
}


@pytest.mark.parametrize("name", CASES)
def test_fails(server: Server, name: str) -> None:
    """Stable answers in its place and says so; it is rolled back for the right reason."""
    case = CASES[name]
    limit = None if case.reasons == ("guardrail",) else 0.05
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(
            server, "m", case.version, "canary", FIFTH | {"max_error_rate_threshold": limit},
            **{"budget_ms": 2000} | case.body,
        )  # fmt: skip
        view = rollout.end("RolledBack", *case.reasons)
        load.wait(30)
        after = len(load.sent)
        load.wait(100)
    load.expect_no_failure()
    replaced = fell_back(load, case.version, "v1")
    assert {sent.fallback for sent in replaced} <= case.fallbacks | {"breaker"}
    assert replaced
    assert {sent.version for sent in load.sent[after:]} == {"v1"}
    counts = wait_until(  # those of its last windows come a little later
        lambda: c if (c := rollout.counts)["candidate_failures"] >= 5 else None, "its failures"
    )
    assert counts["fallbacks"] == counts["candidate_failures"] <= len(replaced)
    assert view["weights"] == {"v1": 100.0, case.version: 0.0}
    assert server.model("m")["active"] == "v1"


def test_leaks(server: Server) -> None:
    """A candidate that grows past its memory is ended, again and again, and then rolled back."""
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(server, "m", "v20", "canary", FIFTH)
        view = rollout.end("RolledBack", "tripwire", "guardrail")
        load.wait(100)
    load.expect_no_failure()
    fell_back(load, "v20", "v1")
    assert view["counts"]["candidate_failures"] > 0


def test_is_slow(server: Server) -> None:
    """Slower than stable by far, within its budget: the latency guardrail sees it."""
    with Load(server.data_port, "m", 8) as load:
        rollout = Rollout.start(server, "m", "v21", "canary", FIFTH, budget_ms=2000)
        view = rollout.end("RolledBack", "guardrail")
        load.wait(50)
    load.expect_no_failure()
    assert not fell_back(load, "v21", "v1")
    assert "latency" in view["message"]
    latency = next(m for m in view["metrics"] if m["name"] == "latency")
    assert latency["verdict"] == "fail"


def test_never_loads(server: Server) -> None:
    """A candidate that cannot be loaded is never exposed; the rollout says why."""
    with Load(server.data_port, "m", 4) as load:
        rollout = Rollout.start(server, "m", "v22", "canary", FIFTH)
        view = rollout.end("Failed", "load")
        load.wait(20)
    load.expect_no_failure()
    assert {sent.version for sent in load.sent} == {"v1"}
    assert "no weights" in view["message"]
    assert view["counts"]["candidate_requests"] == 0
