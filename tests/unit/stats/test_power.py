"""Forecasts: what a rollout can be expected to see."""

from __future__ import annotations

import doctest
import math
from itertools import pairwise

import numpy as np
import pytest

from hotswap.stats import power
from hotswap.stats.power import (
    boundary,
    chance_to_detect,
    false_alarm,
    information,
    latency_requests_to_detect,
    lower_bound,
    requests_to_detect,
    requests_to_prove,
)
from hotswap.stats.rate import RateCell, rollback_evidence


def test_examples() -> None:
    """The examples of the documentation run."""
    assert doctest.testmod(power).attempted > 0
    assert doctest.testmod(power).failed == 0


@pytest.mark.parametrize(
    ("rho", "p0", "p1", "expected"),
    [
        (0.01, 0.001, 0.01, 21_910),
        (0.1, 0.001, 0.01, 2_757),
        (0.5, 0.001, 0.01, 1_395),
        (0.01, 0.01, 0.02, 77_544),
        (0.5, 0.01, 0.02, 3_475),
        (0.1, 0.001, 0.002, 88_544),
        (0.01, 0.001, 0.5, 137),
    ],
)
def test_lower_bounds(rho: float, p0: float, p1: float, expected: float) -> None:
    """The reference table of Wald's bounds; the forecast is 1.4 times that."""
    assert lower_bound(rho, p0, p1) == pytest.approx(expected, abs=0.51)
    assert requests_to_detect(rho, p0, p1) == pytest.approx(1.4 * expected, rel=0.005)


def test_nothing_to_find() -> None:
    """Equal or better candidates, and stages without a coin, are never detected."""
    assert information(0.5, 0.1, 0.1) == 0.0
    assert lower_bound(0.5, 0.1, 0.1) == requests_to_detect(0.5, 0.1, 0.05) == math.inf
    assert lower_bound(0.0, 0.1, 0.2) == lower_bound(1.0, 0.1, 0.2) == math.inf
    assert chance_to_detect(1e6, 0.5, 0.1, 0.1) == chance_to_detect(1e6, 1.0, 0.1, 0.2) == 0.0
    assert latency_requests_to_detect(0.5, 1.0) == latency_requests_to_detect(0.0, 2.0) == math.inf


@pytest.mark.parametrize(
    ("rho", "ratio", "events"),
    [
        (0.1, 1.25, 1577),
        (0.5, 1.25, 582),
        (0.01, 1.5, 3557),
        (0.1, 1.5, 368),
        (0.5, 1.5, 146),
        (0.01, 2.0, 1029),
        (0.1, 2.0, 118),
        (0.5, 2.0, 55),
    ],
)
def test_requests_to_prove(rho: float, ratio: float, events: int) -> None:
    """The reference table within 15 %, divided by the rate."""
    assert requests_to_prove(rho, 0.01, ratio) == pytest.approx(100 * events, rel=0.15)


def test_what_cannot_be_proved() -> None:
    """No margin, no events or no coin: never."""
    assert requests_to_prove(0.5, 0.01, 1.0) == math.inf
    assert requests_to_prove(0.5, 0.0, 1.5) == math.inf
    assert requests_to_prove(1.0, 0.01, 1.5) == math.inf
    assert 1e6 < requests_to_prove(0.5, 0.01, 1.0001) < math.inf


@pytest.mark.parametrize(("events", "rho", "expected"), [(200, 0.1, 0.02652), (2000, 0.1, 0.03486)])
def test_false_alarm_golden(events: int, rho: float, expected: float) -> None:
    """The reference values of the exact type I error."""
    assert false_alarm(events, rho) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rho", [0.01, 0.1, 0.5])
def test_false_alarms_stay_below_alpha(rho: float) -> None:
    """Exactly, for 2,000 looks; and they only grow with the looks."""
    seen = [false_alarm(events, rho) for events in (0, 1, 10, 100, 1000, 2000)]
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] < 0.05 == false_alarm(2001, rho)
    assert false_alarm(10, 0.0) == false_alarm(10, 1.0) == 0.0


@pytest.mark.parametrize("rho", [0.01, 0.5])
def test_the_boundary_is_where_the_evidence_suffices(rho: float) -> None:
    """At the boundary the test fires, one below it does not."""
    for events, fewest in enumerate(boundary(300, rho)):
        if fewest <= events:
            assert rollback_evidence([RateCell(rho, events, fewest)]) >= math.log(20)
        assert rollback_evidence([RateCell(rho, events, min(fewest - 1, events))]) < math.log(20)


def _simulated(rho: float, p0: float, p1: float, requests: list[int]) -> list[float]:
    """The detected fraction of 1,000 simulated runs within so many requests."""
    rng = np.random.default_rng(21)
    rate = rho * p1 + (1 - rho) * p0
    most = int(1.3 * max(requests) * rate + 30)
    at = np.cumsum(rng.geometric(rate, (1000, most)), axis=1)
    count = np.cumsum(rng.random((1000, most)) < rho * p1 / rate, axis=1)
    bounds = np.array(boundary(most, rho)[1:])
    fired = count >= bounds
    first = np.where(fired.any(axis=1), at[np.arange(1000), fired.argmax(axis=1)], np.inf)
    return [float((first <= each).mean()) for each in requests]


@pytest.mark.parametrize(
    ("rho", "p0", "p1"),
    [
        (0.01, 0.001, 0.01),
        (0.1, 0.01, 0.02),
        (0.5, 0.01, 0.02),
        (0.01, 0.001, 0.5),
        (0.1, 0.05, 0.3),
    ],
)
def test_chance_to_detect_agrees_with_simulation(rho: float, p0: float, p1: float) -> None:
    """Exactly computed, so within a simulation's error of 0.05 everywhere."""
    requests = [round(share * requests_to_detect(rho, p0, p1)) for share in (0.2, 0.5, 1.0, 2.0)]
    for n, seen in zip(requests, _simulated(rho, p0, p1, requests), strict=True):
        assert chance_to_detect(n, rho, p0, p1) == pytest.approx(seen, abs=0.05)


@pytest.mark.parametrize(("rho", "p0", "p1"), [(0.1, 0.05, 0.06), (0.25, 0.01, 0.013)])
def test_the_approximation_agrees_with_the_exact_chance(rho: float, p0: float, p1: float) -> None:
    """Where both can be computed, from half of the forecast on: within 0.12 or on the safe side."""
    rate = rho * p1 + (1 - rho) * p0
    theta = rho * p1 / rate
    for events in (800, 1200, 1700):
        requests = events / rate
        exact = chance_to_detect(requests, rho, p0, p1)
        assert power._brownian(requests, rate, rho, theta, 0.05) == pytest.approx(exact, abs=0.12)


def test_chance_to_detect_is_a_probability() -> None:
    """Finite within [0, 1] for any amount of traffic, and growing with it."""
    for p1 in (0.0101, 0.011, 0.02, 1.0):
        amounts = [0, 1, 100, 1e4, 1.9e5, 2.1e5, 1e6, 1e9, math.inf]
        chances = [chance_to_detect(n, 0.1, 0.01, p1) for n in amounts]
        assert chances[0] == 0.0
        assert all(0.0 <= chance <= 1.0 for chance in chances)
        assert all(b >= a - 0.02 for a, b in pairwise(chances))
    assert chance_to_detect(math.inf, 0.1, 0.01, 0.02) == 1.0
    assert chance_to_detect(100, 0.5, 1.0, 1.0) == 0.0


@pytest.mark.parametrize(("rho", "bound"), [(0.01, 4558), (0.1, 504), (0.5, 183)])
def test_latency_forecast(rho: float, bound: int) -> None:
    """1.7 times the reference bounds for times 1.2 times as long, sigma 0.5."""
    assert latency_requests_to_detect(rho, 1.2) == pytest.approx(1.7 * bound, rel=0.002)


def test_impossible_values_are_refused() -> None:
    """A sentence that says what is wrong."""
    with pytest.raises(ValueError, match="no probabilities"):
        information(0.5, 0.1, 1.1)
    with pytest.raises(ValueError, match="no probabilities"):
        false_alarm(10, math.nan)
    with pytest.raises(ValueError, match="alpha"):
        lower_bound(0.5, 0.1, 0.2, alpha=0.0)
    with pytest.raises(ValueError, match="0 to 2000 events"):
        boundary(2001, 0.5)
    with pytest.raises(ValueError, match="not negative"):
        chance_to_detect(-1, 0.5, 0.1, 0.2)
    with pytest.raises(ValueError, match="not negative"):
        false_alarm(-1, 0.5)
    with pytest.raises(ValueError, match="are positive"):
        latency_requests_to_detect(0.5, 0.0)
