"""The breaker: trips on a candidate that fails outright, never on one that is as good as stable."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.serving.breaker import LEAST, Breaker

SECOND = 1_000_000_000


def fed(requests: int, failures: int, now: int = 0) -> Breaker:
    """A breaker that has seen stable do so much."""
    breaker = Breaker()
    for at in range(requests):
        breaker.stable(at < failures, now)
    return breaker


def run_of_failures(breaker: Breaker, stable_between: int) -> int:
    """How many requests an outright broken candidate gets; stable answers in between."""
    for number in range(1, 1000):
        if breaker.candidate(True):
            return number
        for _ in range(stable_between):
            breaker.stable(False, 0)
    raise AssertionError("it never tripped")


@pytest.mark.parametrize(("before", "between"), [(0, 1), (0, 99), (100, 9), (10_000, 1)])
def test_a_broken_candidate_trips_within_nine_of_its_requests(before: int, between: int) -> None:
    """At any split, even if every answer of stable came in the candidate's place."""
    assert LEAST <= run_of_failures(fed(before, 0), between) <= 9


def test_it_trips_once_and_a_success_begins_the_count_anew() -> None:
    """Four failures, a success, four failures: nothing. Then one more: once."""
    breaker = fed(1000, 0)
    for _ in range(2):
        for _ in range(4):
            assert not breaker.candidate(True)
            breaker.stable(False, 0)
        last = breaker.candidate(False)
        assert not last
    for _ in range(4):
        breaker.candidate(True)
        breaker.stable(False, 0)
    assert breaker.candidate(True)
    assert breaker.tripped
    assert not breaker.candidate(True)


def test_an_incident_that_hits_both_does_not_trip_it() -> None:
    """While stable fails in half of its requests or more, the candidate's failures prove nothing."""
    breaker = fed(10_000, 0)
    for _ in range(200):
        assert not breaker.candidate(True)
        breaker.stable(True, 0)
        breaker.stable(False, 0)


def test_without_any_word_of_stable_it_waits() -> None:
    """Failures alone, with nothing to compare them to, do not trip it."""
    breaker = fed(1000, 0)
    breaker.candidate(False)
    assert not any(breaker.candidate(True) for _ in range(50))


def test_what_stable_did_long_ago_is_forgotten_where_there_is_enough_since() -> None:
    """A bad hour of stable does not protect a broken candidate for ever."""
    breaker = fed(1000, 900)
    assert breaker.needed() is None
    for second in range(200):
        for _ in range(20):
            breaker.stable(False, (100 + second) * SECOND)
    assert breaker.needed() == LEAST


def test_little_traffic_is_remembered_for_longer() -> None:
    """One request a second: thousands of them are kept, not thirty."""
    breaker = Breaker()
    for second in range(400):
        breaker.stable(second % 4 == 0, second * SECOND)
    needed = breaker.needed()
    assert needed is not None
    assert needed >= 14


@given(requests=st.integers(0, 5_000), share=st.floats(0, 1))
def test_the_number_needed_is_such_that_chance_does_not_reach_it(
    requests: int, share: float
) -> None:
    """p to the power of k is below 1e-9, k is 5 to 60; from one half on there is none."""
    failures = int(requests * share)
    needed = fed(requests, failures).needed()
    rate = (failures + 1) / (requests + 2)
    if needed is None:
        assert rate >= 0.5
    else:
        assert rate**needed <= 1.000001e-9
        assert 5 <= needed <= 60


def odds(rate: float, needed: int, requests: int) -> float:
    """An upper bound on the probability of a run of ``needed`` failures among so many requests."""
    return requests * (1 - rate) * rate**needed


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(0.001, 0.3), seen=st.integers(2_000, 50_000), seed=st.integers(0, 2**32 - 1))
def test_a_candidate_as_good_as_stable_is_left_alone(rate: float, seen: int, seed: int) -> None:
    """At 0.1 to 30 % on both sides: below 1e-4 in 100,000 requests, averaged over what was seen."""
    draws = np.random.default_rng(seed).binomial(seen, rate, size=200)
    found = []
    for failures in draws:
        estimate = (failures + 1) / (seen + 2)
        needed = max(LEAST, int(np.ceil(np.log(1e-9) / np.log(estimate))))
        found.append(odds(rate, needed, 100_000))
    assert np.mean(found) < 1e-4


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_from_the_first_request_on_equal_arms_do_not_trip_it(weight: float) -> None:
    """Two hundred rollouts at 30 % failures, from nothing seen: none trips."""
    chance = random.Random(7)
    for _ in range(200):
        breaker = Breaker()
        for _ in range(500):
            failed = chance.random() < 0.3
            if chance.random() < weight:
                assert not breaker.candidate(failed)
                if failed:
                    breaker.stable(chance.random() < 0.3, 0)  # the baseline answers instead
            else:
                breaker.stable(failed, 0)
