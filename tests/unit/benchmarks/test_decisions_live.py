"""What is worked out from running servers: the same counters with and without the twin, and when the last request came."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.decisions import live, live_arms, live_load, live_tables
from benchmarks.decisions.live_load import Answer
from hotswap.core.evidence import Arm, Evidence, Reference, Stage
from hotswap.core.strategy import parse

WARM = {30: 60, 31: 30, 32: 10}
COLD = {34: 30, 35: 15, 36: 5}


def evidence(**more: Any) -> Evidence:
    """A stage at 10 % whose twin and candidate are as cold as one another."""
    stage = Stage(
        1, 1_000, 1_000, baseline=Arm(800, latency=WARM), twin=Arm(100, latency=COLD),
        candidate=Arm(100, latency=COLD),
    )  # fmt: skip
    return Evidence((stage,), **({"reference": Reference(COLD)} | more))


def test_without_the_twin_a_cold_host_looks_slow() -> None:
    """The same counters say nothing with the twin, and condemn the candidate without it."""
    assert live_arms.judged(evidence(), twin=True) <= 0.0
    assert live_arms.judged(evidence(), twin=False) > math.log(60)
    (cell,) = live_arms.cells(evidence(), twin=False)
    assert cell.rho == pytest.approx(1 / 3), "50 of 150 latencies are the candidate's"


def test_without_a_reference_nothing_is_judged() -> None:
    """As in a rollout that has seen too little."""
    assert live_arms.judged(evidence(reference=None), twin=False) == 0.0


def test_rollouts_that_would_have_gone_back_are_counted() -> None:
    """By the share of the level that latency has in the default set."""
    seen = {
        "phase": "Paused", "reason": "approval", "message": "", "failures": 0, "requests": 10,
        "with_twin": 0.0, "arms": {"10.0": {"baseline": 1.0, "twin": 2.0, "candidate": None}},
    }  # fmt: skip
    found = live_arms.concluded([seen | {"without_twin": 9.0}, seen | {"without_twin": 1.0}])
    assert (found["rollouts"], found["without_twin"], found["for_latency"]) == (2, 1, 0)
    assert live_tables.p50_of(found)[1] == ["10 %", "1.00 ms", "2.00 ms", "–"]


def test_the_last_request_that_reached_a_broken_candidate() -> None:
    """Times run from its first failure, and from the fifth; what the breaker kept away is none."""
    answers = [Answer(0.1 * k, 0.1 * k + 0.01, 200, "error") for k in range(1, 9)]
    answers.append(Answer(5.0, 5.1, 200, "breaker"))
    answers.append(Answer(6.0, 6.1, 503, ""))
    seen = live_load.summary(answers, evidence=5)
    assert (seen["failures"], seen["bad_answers"]) == (8, 1)
    assert seen["ms"] == pytest.approx(690)
    assert seen["beyond_ms"] == pytest.approx(290)
    assert live_load.summary([Answer(0.0, 0.1, 200, "")], evidence=5)["failures"] == 0


def test_the_rollouts_that_are_started_are_valid() -> None:
    """Their bodies are accepted as they are."""
    for body in (
        live_arms.body("m", (3.0, 2.0, 1.0)),
        live_load.steady("shadow"),
        live_load.steady("canary"),
    ):
        assert parse(body).version == "v2"


def test_promises_on_running_servers_are_judged() -> None:
    """Each row says whether it was kept, where something was promised."""
    rounds = [{"failures": 10, "ms": 500.0, "beyond_ms": 400.0, "bad_answers": 0}]
    groups: dict[str, Any] = {
        "broken": {"rounds": {"10": rounds}},
        "tails": {"p99_ratio": {"shadow": 1.04, "canary": 1.3}},
        "request": {"median_us": 12.0},
    }
    words = {row[0].partition(":")[0]: row[3] for row in live_tables.rows_of(groups)}
    assert words["broken candidate at 10 %"] == "**not kept**"
    assert words["p99 with a shadow of 100 %, against none (median of the rounds)"] == "kept"
    assert words["p99 with a healthy candidate at 50 %, against none"] == ""
    assert words["failed answers that users saw"] == "kept"


def test_an_unknown_group_is_refused() -> None:
    """The command says which groups there are."""
    with pytest.raises(SystemExit, match="there is no group 'nothing'"):
        live.main(["--only", "nothing"])
