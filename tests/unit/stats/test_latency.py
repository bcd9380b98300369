"""A slower candidate is found from the routing coin alone, and an equal one is left in peace."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import latency
from hotswap.stats.buckets import BUCKETS, LOG_STEP, TIMEOUT, bucket
from hotswap.stats.latency import (
    LatencyCell,
    Reference,
    freeze,
    promotion_evidence,
    ratio_interval,
    rollback_evidence,
)

FOUND = math.log(20)
HISTOGRAMS = st.dictionaries(st.integers(0, TIMEOUT), st.integers(0, 1000), max_size=20)
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def _buckets(ns: Floats) -> Ints:
    """`buckets.bucket` of many times at once."""
    logs = (np.log(np.maximum(ns, 1.0)) - math.log(10_000)) / LOG_STEP
    finite = np.clip(np.floor(logs).clip(-1) + 1, 0, TIMEOUT - 1)
    return np.where(np.isinf(ns), TIMEOUT, finite).astype(np.int64)


def _sparse(dense: Ints) -> dict[int, int]:
    return {int(at): int(dense[at]) for at in np.flatnonzero(dense)}


def _lognormal(rng: np.random.Generator, n: int) -> Floats:
    return np.asarray(5e6 * np.exp(0.5 * rng.standard_normal(n)))


def _reference() -> Reference:
    times = _buckets(_lognormal(np.random.default_rng(0), 1000))
    return freeze(_sparse(np.bincount(times, minlength=BUCKETS)))


def _slower(ratio: float) -> Callable[[Floats], Floats]:
    return lambda times: times * ratio


@dataclass(frozen=True)
class Traffic:
    """Simulated requests: the candidate's share, and what it does to a request's time."""

    rho: float
    effect: Callable[[Floats], Floats]
    step: int
    looks: int

    def first(
        self, rng: np.random.Generator, found: Callable[[list[LatencyCell]], bool]
    ) -> int | None:
        """How many requests, looked at every ``step``, until it is found."""
        n = self.step * self.looks
        coin, times = rng.random(n) < self.rho, _lognormal(rng, n)
        at = _buckets(np.where(coin, self.effect(times), times))
        arms = np.zeros((2, BUCKETS), np.int64)
        for end in range(self.step, n + 1, self.step):
            part = slice(end - self.step, end)
            arms += np.bincount(at[part] + BUCKETS * coin[part], minlength=2 * BUCKETS).reshape(
                2, BUCKETS
            )
            if found([LatencyCell(self.rho, _sparse(arms[0]), _sparse(arms[1]))]):
                return end
        return None

    def runs(
        self, count: int, found: Callable[[list[LatencyCell]], bool], seed: int = 1
    ) -> list[int | None]:
        """That of so many runs."""
        rng = np.random.default_rng(seed)
        return [self.first(rng, found) for _ in range(count)]


def _flagged(delays: list[int | None]) -> float:
    return sum(delay is not None for delay in delays) / len(delays)


def _mean(delays: list[int | None]) -> float:
    assert None not in delays
    return float(np.mean([delay for delay in delays if delay is not None]))


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(latency).failed == 0


def test_the_simulated_buckets_are_the_real_ones() -> None:
    """The tests' vectorised buckets agree with the one that counts requests."""
    times = np.concatenate([_lognormal(np.random.default_rng(1), 500), [0.0, 9_999.0, 1e15]])
    assert _buckets(times).tolist() == [bucket(ns) for ns in times.tolist()]


@pytest.mark.parametrize(("rho", "step", "bound"), [(0.1, 25, 504), (0.5, 10, 183)])
def test_twenty_percent_slower_is_found_near_the_lower_bound(
    rho: float, step: int, bound: int
) -> None:
    """A candidate 1.2 times as slow is found within twice the requests that any test needs."""
    reference = _reference()
    delays = Traffic(rho, _slower(1.2), step, 6000 // step).runs(
        200, lambda cells: rollback_evidence(cells, reference) >= FOUND
    )
    assert bound < _mean(delays) < 2 * bound


def test_an_equal_candidate_is_seldom_rolled_back() -> None:
    """Of 2,000 equal candidates, each looked at twenty times, at most 5 % are flagged."""
    reference = _reference()
    delays = Traffic(0.1, _slower(1.0), 100, 20).runs(
        2000, lambda cells: rollback_evidence(cells, reference) >= FOUND
    )
    assert _flagged(delays) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(("effect", "ratio"), [(0.9, 1.0), (1.1, 1.2), (1.2, 1.2), (1.25, 1.25)])
def test_a_candidate_within_the_margin_is_seldom_rolled_back(effect: float, ratio: float) -> None:
    """Up to the margin itself, also between two buckets' ratios, at most 5 % are flagged."""
    reference = _reference()
    delays = Traffic(0.5, _slower(effect), 200, 20).runs(
        300, lambda cells: rollback_evidence(cells, reference, ratio) >= FOUND
    )
    if effect < ratio:
        assert _flagged(delays) == 0.0
    assert _flagged(delays) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_a_slow_tail_is_found() -> None:
    """When only 2 % of the requests take five times as long, the exceedances find it."""
    reference = _reference()
    rng = np.random.default_rng(9)

    def effect(times: Floats) -> Floats:
        return np.where(rng.random(times.size) < 0.02, 5 * times, times)

    delays = Traffic(0.5, effect, 200, 50).runs(
        50, lambda cells: rollback_evidence(cells, reference) >= FOUND
    )
    assert _mean(delays) < 6000


def test_a_crossing_distribution_is_found_at_its_worse_end() -> None:
    """A candidate that is faster at the median and slower at p99 is still rolled back."""
    reference = _reference()

    def effect(times: Floats) -> Floats:
        return np.asarray(5e6 * 0.8 * (times / 5e6) ** 2)

    delays = Traffic(0.5, effect, 100, 60).runs(
        50, lambda cells: rollback_evidence(cells, reference) >= FOUND
    )
    assert _mean(delays) < 4000


def test_timeouts_are_longer_than_any_time() -> None:
    """One in fifty that never answers is found, whatever the margin; alike in both arms it is not."""
    reference = _reference()
    usual = {110: 500, 120: 480}
    broken = {**usual, TIMEOUT: 60}
    for ratio in (1.0, 1.2, 100.0):
        assert rollback_evidence([LatencyCell(0.5, usual, broken)], reference, ratio) > FOUND
    assert rollback_evidence([LatencyCell(0.5, broken, broken)], reference) < 0
    slower = rollback_evidence([LatencyCell(0.5, usual, {**usual, 140: 60})], reference, 100.0)
    assert slower < 0


def test_an_incident_in_both_arms_is_not_the_candidates() -> None:
    """Every request five times as slow for a while gives no evidence against either arm."""
    reference = _reference()
    rng = np.random.default_rng(4)
    flagged = 0
    for _ in range(200):
        times = _lognormal(rng, 3000) * np.repeat([1.0, 5.0, 1.0], 1000)
        coin, at = rng.random(3000) < 0.1, _buckets(times)
        for end in (1000, 1500, 2000, 3000):
            arms = [
                _sparse(np.bincount(at[:end][coin[:end] == arm], minlength=BUCKETS))
                for arm in (False, True)
            ]
            if rollback_evidence([LatencyCell(0.1, *arms)], reference) >= FOUND:
                flagged += 1
                break
    assert flagged / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(("quantile", "requests"), [("p50", 2000), ("p95", 4000), ("p99", 12_000)])
def test_an_equal_candidate_is_promoted(quantile: str, requests: int) -> None:
    """Equal latency proves the margin of 20 % at every quantile, in time."""
    reference = _reference()
    delays = Traffic(0.5, _slower(1.0), 100, 200).runs(
        40, lambda cells: promotion_evidence(cells, reference, quantile, 1.2) >= FOUND
    )
    assert _mean(delays) < requests


@pytest.mark.parametrize("quantile", ["p50", "p95", "p99"])
@pytest.mark.parametrize(("effect", "ratio"), [(1.2, 1.2), (1.25, 1.25), (1.0, 1.0)])
def test_a_candidate_at_the_margin_is_seldom_promoted(
    quantile: str, effect: float, ratio: float
) -> None:
    """Exactly at the margin at most 5 % are promoted, also between two buckets' ratios."""
    reference = _reference()
    delays = Traffic(0.5, _slower(effect), 250, 20).runs(
        200, lambda cells: promotion_evidence(cells, reference, quantile, ratio) >= FOUND
    )
    assert _flagged(delays) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


@given(st.lists(HISTOGRAMS, max_size=6), st.sampled_from([1.0, 1.2, 2.0]))
def test_merging_in_any_order_gives_the_same_bits(
    parts: list[dict[int, int]], ratio: float
) -> None:
    """Counters merged forwards or backwards decide with the same statistic to the last bit."""
    reference = _reference()

    def merged(order: list[dict[int, int]]) -> list[LatencyCell]:
        arms: list[dict[int, int]] = [{}, {}]
        for part in order:
            for at, count in part.items():
                arm = arms[parts.index(part) % 2]
                arm[at] = arm.get(at, 0) + count
        return [LatencyCell(0.1, *arms)]

    one, other = merged(parts), merged(parts[::-1])
    assert rollback_evidence(one, reference, ratio) == rollback_evidence(other, reference, ratio)
    assert promotion_evidence(one, reference, "p99", ratio) == promotion_evidence(
        other, reference, "p99", ratio
    )


@given(HISTOGRAMS, HISTOGRAMS, st.integers(0, TIMEOUT - 1), st.integers(1, 100))
def test_a_slower_request_is_never_in_the_candidates_favour(
    stable: dict[int, int], candidate: dict[int, int], at: int, by: int
) -> None:
    """Had one of the candidate's requests taken longer, there were no less evidence against it."""
    reference = _reference()
    later = min(at + by, TIMEOUT)
    faster = {**candidate, at: candidate.get(at, 0) + 1}
    slower = {**candidate, later: candidate.get(later, 0) + 1}
    before, after = (
        rollback_evidence([LatencyCell(0.3, stable, arm)], reference) for arm in (faster, slower)
    )
    assert after >= before - 1e-9 * max(1.0, abs(before))


def test_stages_are_not_pooled() -> None:
    """Equal arms in a slow stage with more canaries are no evidence; pooled, they would be."""
    reference = _reference()
    early = LatencyCell(0.1, {110: 900, 120: 900}, {110: 100, 120: 100})
    late = LatencyCell(0.5, {120: 500, 130: 500}, {120: 500, 130: 500})
    assert rollback_evidence([early, late], reference) < 0
    pooled = LatencyCell(
        1200 / 4000, {110: 900, 120: 1400, 130: 500}, {110: 100, 120: 600, 130: 500}
    )
    assert rollback_evidence([pooled], reference) > FOUND


def test_the_evidence_is_the_product_of_the_bets() -> None:
    """Bet by bet and request by request, as the definition has it, the wealth is the same."""
    reference = _reference()
    cells = [
        LatencyCell(0.1, {100: 9, 115: 20, 140: 1}, {101: 1, 120: 2, TIMEOUT: 1}),
        LatencyCell(0.5, {0: 1, 110: 5}, {118: 4, 130: 2}),
    ]

    def score(at: int) -> float:
        logs = math.log(10_000) + (at - 0.5) * LOG_STEP if at < TIMEOUT else math.inf
        return round(min(3.0, max(-3.0, (logs - reference.mu) / reference.sigma)), 1)

    def wealth(stake: Callable[[int, float], float]) -> float:
        product = 1.0
        for rho, stable, candidate in cells:
            for at, count in candidate.items():
                product *= (stake(at, rho) / rho) ** count
            for at, count in stable.items():
                product *= ((1 - stake(at, rho)) / (1 - rho)) ** count
        return product

    total = sum(count for _, count in reference.counts)

    def tilt(a: float) -> float:
        norm = sum(n / total * math.exp(a * score(at)) for at, n in reference.counts)

        def stake(at: int, rho: float) -> float:
            odds = rho * math.exp(a * score(at)) / norm
            return odds / (odds + 1 - rho)

        return wealth(stake)

    def exceed(threshold: int, ratio: float) -> float:
        return wealth(
            lambda at, rho: rho * ratio / (rho * ratio + 1 - rho) if at > threshold else rho
        )

    tilts = [tilt(a) for a in (0.1, 0.2, 0.4, 0.8, 1.6)]
    exceedances = [
        exceed(threshold, ratio)
        for threshold in reference.thresholds[1:]
        for ratio in (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
    ]
    expected = math.log((float(np.mean(tilts)) + float(np.mean(exceedances))) / 2)
    assert rollback_evidence(cells, reference) == pytest.approx(expected, abs=1e-9)


def test_the_reference_describes_the_baseline() -> None:
    """Mean and spread of the logarithm, and thresholds at the quantiles' buckets."""
    reference = _reference()
    assert reference.mu == pytest.approx(math.log(5e6), abs=0.05)
    assert reference.sigma == pytest.approx(0.5, abs=0.05)
    assert list(reference.thresholds) == sorted(reference.thresholds)
    assert freeze({7: 5, TIMEOUT: 5}).thresholds == (7, *[TIMEOUT] * 4)
    assert freeze({TIMEOUT: 5}).sigma > 0
    with pytest.raises(ValueError, match="needs requests"):
        freeze({})


def test_a_baseline_of_one_bucket_or_of_timeouts_can_still_judge() -> None:
    """A reference without spread gives finite evidence, and against a slower candidate."""
    for reference in (freeze({100: 50}), freeze({TIMEOUT: 50})):
        cell = LatencyCell(0.5, {100: 100}, {110: 50, TIMEOUT: 50})
        assert FOUND < rollback_evidence([cell], reference) < math.inf


def test_the_ratio_has_bounds() -> None:
    """The estimate is the ratio of the quantiles, inside bounds that narrow to a few buckets."""
    stable = dict.fromkeys(range(100, 160), 200)
    candidate = {at + 8: 200 for at in range(100, 160)}
    estimate, low, high = ratio_interval([LatencyCell(0.5, stable, candidate)], 0.5)
    assert estimate == pytest.approx(1.44)
    assert 1.1 < low < 1.44 < high < 1.8


def test_the_ratio_pools_only_equal_probabilities() -> None:
    """A stage of another probability, during which everything was slow, moves nothing."""
    stable = dict.fromkeys(range(100, 160), 200)
    quiet = LatencyCell(0.5, stable, stable)
    slow = LatencyCell(0.01, {at + 20: 2000 for at in stable}, {at + 20: 20 for at in stable})
    assert ratio_interval([slow, quiet, quiet], 0.5) == ratio_interval([quiet, quiet], 0.5)
    assert ratio_interval([quiet, slow], 0.5)[0] == pytest.approx(1.0)


def test_bounds_of_the_ratio_hold_at_all_times() -> None:
    """Looked at twenty times, the true ratio of 1.2 is outside in under 5 % of runs."""
    missed = Traffic(0.5, _slower(1.2), 200, 20).runs(
        150, lambda cells: not (lambda r: r[1] <= 1.2 <= r[2])(ratio_interval(cells, 0.9))
    )
    assert _flagged(missed) <= 0.05


def test_the_ratio_without_data_is_unknown() -> None:
    """No stage, no requests in an arm, and timeouts only: no number is made up."""
    for cells in (
        [],
        [LatencyCell(0.5, {}, {})],
        [LatencyCell(0.5, {100: 5}, {})],
        [LatencyCell(0.5, {TIMEOUT: 500}, {TIMEOUT: 500})],
    ):
        estimate, low, high = ratio_interval(cells, 0.5)
        assert math.isnan(estimate)
        assert (low, high) == (0.0, math.inf)


def test_no_data_is_no_evidence() -> None:
    """Without a request the evidence is exactly 0, on either side."""
    reference = _reference()
    for cells in ([], [LatencyCell(0.1, {}, {})]):
        assert rollback_evidence(cells, reference) == 0.0
        assert promotion_evidence(cells, reference, "p99", 1.2) == 0.0


def test_huge_counts_stay_finite() -> None:
    """A trillion requests overflow nothing."""
    reference = _reference()
    cells = [LatencyCell(0.01, {100: 10**12}, {TIMEOUT: 10**12}), LatencyCell(0.5, {}, {0: 10**12})]
    assert math.isfinite(rollback_evidence(cells, reference, 1.2))
    assert math.isfinite(promotion_evidence(cells, reference, "p50", 1.2))


def test_bad_input_is_refused() -> None:
    """A missing coin, an unknown quantile, bucket or ratio are errors that say what to give."""
    reference, cell = _reference(), LatencyCell(0.5, {1: 1}, {1: 1})
    with pytest.raises(ValueError, match="needs a coin"):
        rollback_evidence([cell._replace(rho=1.0)], reference)
    with pytest.raises(ValueError, match="p50, p95, p99"):
        promotion_evidence([cell], reference, "p42", 1.2)
    with pytest.raises(ValueError, match=r"buckets\.bucket"):
        rollback_evidence([cell._replace(candidate={TIMEOUT + 1: 1})], reference)
    with pytest.raises(ValueError, match=r"give 1\.2"):
        rollback_evidence([cell], reference, 0.0)
