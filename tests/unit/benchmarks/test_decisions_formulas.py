"""The array forms that simulations use are the production formulas, to 1e-9."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from benchmarks.decisions import alarms, delays, falsealarms, margins, sticky, vectors
from benchmarks.decisions.chunks import generator
from hotswap.core.analysis import analyse
from hotswap.core.evidence import REFERENCE, Arm, Evidence, Stage, folded, opened
from hotswap.core.strategy import parse
from hotswap.core.windows import ArmCounts, Window
from hotswap.stats import buckets, change, differences, latency, margin, pairs, power, rate, split

CLOSE = pytest.approx


def seeded(number: int) -> np.random.Generator:
    """A test's own chance."""
    return generator(1_000, number)


@pytest.mark.parametrize("rho", [0.01, 0.1, 0.5])
def test_rates_are_the_production_formulas(rho: float) -> None:
    """F1 over arrays says what `stats.rate` says of each cell, in both directions."""
    rng = seeded(1)
    for _ in range(50):
        ours, stable = int(rng.integers(0, 80)), int(rng.integers(0, 400))
        cell = [rate.RateCell(rho, ours + stable, ours)]
        found = vectors.rate_rollback(rho, np.array([ours * 1.0]), np.array([stable * 1.0]))[0]
        assert found == CLOSE(rate.rollback_evidence(cell), abs=1e-9)
        found = vectors.rate_promotion(rho, np.array([ours * 1.0]), np.array([stable * 1.0]), 1.5)[0]  # fmt: skip
        assert found == CLOSE(rate.promotion_evidence(cell, 1.5), abs=1e-9)


def test_stages_multiply_as_in_production() -> None:
    """Log wealth of several stages adds up to the evidence of all cells together."""
    rng = seeded(2)
    cells = [rate.RateCell(rho, 60, int(rng.integers(0, 40))) for rho in (0.01, 0.1, 0.5)]
    wealth = sum(
        vectors.rate_wealth(rho, np.array(1.0 * k), np.array(1.0 * (n - k)), 1.0, rate.GRID)
        for rho, n, k in cells
    )
    found = vectors.log_mean(np.asarray(wealth))
    assert found == CLOSE(rate.rollback_evidence(cells), abs=1e-9)


def test_differences_are_the_production_formula() -> None:
    """F6 row by row adds up to what `stats.differences` says of the histogram."""
    rng = seeded(9)
    d = np.round(rng.uniform(-1.0, 1.0, 200), 3)
    for delta in (0.0, 0.02):
        places = np.array([differences.bucket(each) for each in d.tolist()])
        found = vectors.log_mean(vectors.difference_gains(places, delta).sum(axis=0))
        counts = differences.buckets(d)
        assert found == CLOSE(differences.rollback_evidence(counts, delta), abs=1e-7)


def test_margins_and_splits_are_the_production_formulas() -> None:
    """F2 and F10 over arrays are `stats.margin` and `stats.split`."""
    rng = seeded(3)
    for _ in range(50):
        rho, mean = float(rng.uniform(0.01, 0.9)), float(rng.uniform(0.001, 0.5))
        counts = rng.integers(0, 300, size=4)
        cell, row = margin.MeanCell(rho, *(int(n) for n in counts)), counts.astype(np.float64)
        found = vectors.log_mean(vectors.margin_wealth(rho, row, mean, 0.0))
        assert found == CLOSE(margin.rollback_evidence([cell], mean), abs=1e-9)
        found = vectors.log_mean(vectors.margin_promotion_wealth(rho, row, mean, 0.005))
        assert found == CLOSE(margin.promotion_evidence([cell], mean, 0.005), abs=1e-9)
        ours, stable = int(counts[0]), int(counts[1])
        found = vectors.log_mean(vectors.split_wealth(rho, row[0], row[1]))
        asked = [split.SplitCell(rho, ours + stable, ours)]
        assert found == CLOSE(split.evidence(asked), abs=1e-9)


def test_buckets_are_the_production_buckets() -> None:
    """Times fall into the buckets that `stats.buckets` says."""
    ns = np.exp(seeded(4).uniform(math.log(10_001), math.log(1e11), 2_000))
    assert [buckets.bucket(int(each)) for each in ns] == vectors.buckets_of(np.floor(ns)).tolist()


@pytest.mark.parametrize("slow", [1.0, 1.3])
def test_latency_paths_are_the_production_formulas(slow: float) -> None:
    """F3 after each request is `stats.latency` of the histograms so far."""
    rng = seeded(5)
    ours = rng.random(900) < 0.5
    ns = 5e6 * np.exp(0.5 * rng.standard_normal(900)) * np.where(ours, slow, 1.0)
    at = vectors.buckets_of(ns)
    path = vectors.latency_path(vectors.freeze(at[:100]), at[100:], ours[100:])
    reference = latency.freeze(Counter(at[:100].tolist()))
    at, ours = at[100:], ours[100:]
    for end in (1, 7, 150, 431, 800):
        cell = latency.LatencyCell(
            0.5,
            Counter(at[:end][~ours[:end]].tolist()),
            Counter(at[:end][ours[:end]].tolist()),
        )
        expected = latency.rollback_evidence([cell], reference)
        assert math.log(path[end - 1]) == CLOSE(expected, abs=1e-9)


@pytest.mark.parametrize("quantile", ["p50", "p95", "p99"])
def test_latency_proofs_are_the_production_formulas(quantile: str) -> None:
    """The proof by exceedances is `stats.latency.promotion_evidence`."""
    rng = seeded(6)
    ours = rng.random(3_000) < 0.5
    at = vectors.buckets_of(5e6 * np.exp(0.5 * rng.standard_normal(3_000)))
    reference = vectors.freeze(at[:100])
    threshold = int(reference.thresholds[vectors.QUANTILE_AT[quantile]])
    mine = float((at[ours] > threshold + buckets.shift(1.2)).sum())
    theirs = float((at[~ours] > threshold).sum())
    found = vectors.log_mean(vectors.latency_promotion_wealth(np.array(mine), np.array(theirs)))
    cell = latency.LatencyCell(0.5, Counter(at[~ours].tolist()), Counter(at[ours].tolist()))
    frozen = latency.freeze(Counter(at[:100].tolist()))
    assert found == CLOSE(latency.promotion_evidence([cell], frozen, quantile, 1.2), abs=1e-9)


def _as_seen(drawn: falsealarms.Drawn, end: int) -> Evidence:
    """What control would know after the first ``end`` requests, each in a window of its own
    until the reference is frozen.
    """
    evidence = Evidence()
    for number, rho in enumerate(falsealarms.RAMP):
        weight = round(rho * 10_000)
        twin = weight if rho < 0.5 else 0
        evidence = opened(evidence, Stage(number, weight, twin))
    of = falsealarms.compared(drawn)
    cut = int(of[REFERENCE - 1]) + 1
    for first, last in ((0, cut), (cut, end)):
        for number, rho in enumerate(falsealarms.RAMP):
            weight = round(rho * 10_000)
            arms = {}
            for arm, name in enumerate(("baseline", "twin", "candidate")):
                mask = (drawn.arm[first:last] == arm) & (drawn.stage[first:last] == number)
                outcome = drawn.outcome[first:last][mask]
                answered = drawn.bucket[first:last][mask][outcome != 1]
                arms[name] = ArmCounts(
                    int(mask.sum()),
                    int((outcome == 1).sum()),
                    0,
                    int((outcome == 2).sum()),
                    dict(Counter(answered.tolist())),
                )
            twin = weight if rho < 0.5 else 0
            window = Window("r.1", number, "w", 0, weight, twin, arms)
            evidence = folded(evidence, [window])
    return evidence


@pytest.mark.parametrize("end", [40_000, 85_000, 90_001])
def test_the_combined_path_is_what_a_rollout_would_see(end: int) -> None:
    """A simulated rollout's evidence is that of `core.analysis` on the same counters."""
    drawn = falsealarms.draw(seeded(7), 31_000)
    assert isinstance(drawn, falsealarms.Drawn)
    at, path = falsealarms.evidence_path(drawn)
    place = int(np.searchsorted(at, end, "left")) - 1
    spec = parse({"model": "m", "version": "v2", "strategy": "canary"})
    analysis = analyse(spec, _as_seen(drawn, end), {}, {})
    assert analysis.against == CLOSE(math.log(path[place]), abs=1e-9)
    weights = {"error_rate": 0.4, "invalid_rate": 0.2, "latency": 0.3}
    assert weights == falsealarms.WEIGHTS


def test_the_arms_of_a_simulated_rollout_are_equal() -> None:
    """Twins have the candidate's share below one half; above it there are none."""
    drawn = falsealarms.draw(seeded(8), 20_000)
    for number, rho in enumerate(falsealarms.RAMP):
        shares = [float((drawn.arm[drawn.stage == number] == arm).mean()) for arm in (1, 2)]
        assert shares == [CLOSE(rho if rho < 0.5 else 0.0, abs=0.02), CLOSE(rho, abs=0.02)]


def test_boundaries_are_those_of_the_production_forecast() -> None:
    """The walk finds the boundary that `stats.power` computes for F1."""
    found = vectors.boundary(
        lambda total, ours: rate.rollback_evidence([rate.RateCell(0.1, total, ours)]),
        math.log(20),
        np.arange(201),
    )
    assert tuple(found.tolist()[1:]) == power.boundary(200, 0.1)[1:]


def test_few_outcomes_are_found_by_the_production_formula() -> None:
    """Below the lower boundary the sample ratio alarms; at one more it does not."""
    totals = np.array([1_000, 5_000, 20_000])
    for total, most in zip(totals.tolist(), alarms._fewest(0.1, totals).tolist(), strict=True):
        assert split.evidence([split.SplitCell(0.1, total, most)]) >= math.log(1000)
        assert split.evidence([split.SplitCell(0.1, total, most + 1)]) < math.log(1000)


def test_detectors_are_the_production_detector() -> None:
    """Many detectors side by side say what `stats.change` says of one."""
    detectors = alarms.Detectors(1, 0.01, 5)
    one = change.start(0.01, arl=alarms.ARL)
    for events in (0, 1, 0, 0, 3, 0, 0, 0, 0, 1, 2):
        shown = detectors.update(np.array([float(events)]), 5)[0]
        one = change.update(one, events, 5)
        assert shown == CLOSE(change.evidence(one), abs=1e-9)
    assert detectors.enough == CLOSE(change.threshold(one))


def test_first_events_are_those_of_the_production_set() -> None:
    """Counting each user's first error is what `core.units` does."""
    user = seeded(9).integers(0, 30, 200)
    assert sticky.first_of(user).tolist() == sticky.production_first(user).tolist()


def test_bounds_are_the_known_ones() -> None:
    """The latency bound is the mutual information's, which the forecast of `stats.power` scales."""
    for rho in (0.01, 0.1, 0.5):
        forecast = power.latency_requests_to_detect(rho, 1.2)
        assert forecast / delays.latency_bound(rho, 1.2) == CLOSE(1.7, rel=1e-3)


def test_paired_labels_fire_by_the_production_formula() -> None:
    """The fewest worse answers with which McNemar's e-process fires."""
    bounds = vectors.boundary(
        lambda total, ours: pairs.mcnemar_evidence(pairs.Pairs(ours, total - ours, 0)),
        delays.ALONE,
        np.arange(101),
    )
    fewest = int(bounds[100])
    assert pairs.mcnemar_evidence(pairs.Pairs(fewest, 100 - fewest, 0)) >= math.log(20)
    assert pairs.mcnemar_evidence(pairs.Pairs(fewest - 1, 101 - fewest, 0)) < math.log(20)


def test_error_proofs_follow_the_production_margin() -> None:
    """The greatest proof of a ramp cannot be less than the last, and needs data."""
    peak, last = margins.errors_peak(seeded(10), 0.01, 0.002)
    assert peak >= last
    assert peak > math.log(20)


def test_arms_are_counted_as_production_counts_them() -> None:
    """An arm of the evidence is the sum of its windows."""
    assert Arm(1, 1).plus(ArmCounts(2, 0, 1)).failed == 2
