"""Figures and phases in words."""

from __future__ import annotations

import math

import pytest

from hotswap.core.rollout_views import ArmView, PairView
from hotswap.web import phrases
from tests.unit.web.samples import metric, rollout, running


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        (None, "–"),
        ((None, None), "–"),
        ((0.5, 2.0), "0.5 to 2 ×"),
        ((0.5, None), "at least 0.5 ×"),
        ((0.5, math.inf), "at least 0.5 ×"),
        ((None, 2.0), "at most 2 ×"),
        ((-math.inf, 2.0), "at most 2 ×"),
        ((2.0, 2.0), "2 to 2 ×"),
        ((0.0, None), "–"),
    ],
)
def test_an_interval_may_be_open(
    ends: tuple[float | None, float | None] | None, shown: str
) -> None:
    """Its closed end is named, and nothing if there is none."""
    assert phrases.interval(metric(interval=ends)) == shown


def test_a_difference_has_a_sign_and_percentage_points() -> None:
    """A rate's difference is not a percentage of anything."""
    view = metric(comparison="difference", interval=(-0.001, 0.02))
    assert phrases.compared(view, 0.0041) == "+0.41 pt"
    assert phrases.interval(view) == "−0.1 to +2 pt"
    latency = metric("latency_p99", comparison="difference")
    assert phrases.compared(latency, -1.5) == "−1.5 ms"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (math.nan, "–"), (0.0, "0:1"), (0.4, "0.4:1"), (9.96, "10:1"), (12345.6, "12,346:1")],
)  # fmt: skip
def test_odds_are_readable(value: float | None, shown: str) -> None:
    """Two digits below ten, whole numbers above."""
    assert phrases.odds(value) == shown


def test_an_arm_without_requests_has_no_value() -> None:
    """Zero of nothing is not a rate."""
    view = metric(arms={"candidate": ArmView("v2", 0, 0, 0.0)})
    assert phrases.arm(view, "candidate") == "–"
    assert phrases.arm(view, "stable") == "–"


@pytest.mark.parametrize("phase", phrases.PHASES)
def test_each_phase_has_a_sentence_of_its_own(phase: str) -> None:
    """That names the candidate."""
    view = rollout(phase=phase, final=False)
    sentence = phrases.verdict_sentence(view)
    assert "fraud/v2" in sentence
    assert "is in phase" not in sentence
    assert phrases.tone(phase) != "quiet"


def test_what_did_not_happen_is_not_told() -> None:
    """Counts of zero are left out; thousands are grouped."""
    sentences = phrases.seen(
        rollout(counts={"stable_requests": 12034, "fallbacks": 0, "dropped": 1})
    )
    assert sentences == [
        "v1 was assigned 12,034 requests.",
        "For lack of room, 1 copy went unsent.",
    ]


def test_what_both_said_to_the_same_requests_is_told() -> None:
    """How many agree, by how much numbers differ, and which labels were mixed up most."""
    pairs = PairView(
        110, 100, 97, 8, 1, 1, 0.25, 3.5, {"0": {"0": 60, "1": 2}, "1": {"1": 37, "0": 1}}
    )
    assert phrases.seen(rollout(counts={}, pairs=pairs)) == [
        "97 of the 100 that both answered got the same answer (97 %).",
        "Numbers differed by 0.25 a request on average, and by 3.5 at most.",
        "For 2 rows stable said 0 and the candidate 1.",
        "For 1 row stable said 1 and the candidate 0.",
    ]


def test_a_step_beyond_the_last_is_shown_as_the_last() -> None:
    """And none once it is over."""
    assert phrases.position(running(step=99)) == "step 7 of 7"
    assert phrases.position(rollout()) == ""
