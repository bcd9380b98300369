"""One column over time: a shift beyond the tolerance is found, one within it hardly ever."""

from __future__ import annotations

import doctest
import math

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import shift
from hotswap.stats.shift import (
    Reference,
    Watch,
    alarmed,
    categories,
    counted,
    counted_categories,
    distance,
    evidence,
    leading,
    numbers,
    start,
    threshold,
    update,
)

HALVES = Reference((0, 5000, 5000), ordered=True)


def _normal(rng: np.random.Generator, rows: int, mean: float = 0.0) -> npt.NDArray[np.float64]:
    return rng.normal(mean, 1.0, rows)


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(shift).failed == 0


def test_numbers_are_cut_at_their_deciles() -> None:
    """Ten bins of equal share, values that are missing apart, and one bin for each repeated value."""
    reference = numbers([*np.arange(1000.0), math.nan])
    assert reference.counts == (1, *[100] * 10)
    assert numbers([3.0] * 50).cuts == (3.0,)
    assert numbers([math.inf, -math.inf]).counts == (0, 1, 1)
    assert counted(reference, [-math.inf, 99.0, 99.5, math.inf, math.nan])[:3] == (1, 2, 1)


def test_categories_beyond_the_most_frequent_are_one() -> None:
    """Twenty by name, ties in their order; the rest and what is new are counted together."""
    reference = categories({f"c{at:02}": 100 - at // 2 for at in range(30)} | {None: 7})
    assert reference.names == tuple(f"c{at:02}" for at in range(20))
    assert reference.counts[0] == 7
    assert sum(reference.counts) == 7 + sum(100 - at // 2 for at in range(30))
    assert counted_categories(reference, {"c00": 2, "new": 3, None: 1})[-1] == 3


@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=60).filter(lambda v: not all(map(math.isnan, v))))  # fmt: skip
def test_every_value_is_in_one_bin(values: list[float]) -> None:
    """No row is lost, whatever the numbers, and its bin ends at or above it."""
    reference = numbers(values)
    assert sum(reference.counts) == len(values)
    for value in values:
        row = counted(reference, [value])
        assert sum(row) == 1
        if not math.isnan(value):
            at = row.index(1)
            assert at == len(reference.cuts) + 1 or value <= reference.cuts[at - 1]
            assert at == 1 or value > reference.cuts[at - 2]


def test_a_shift_is_found_and_named() -> None:
    """Larger numbers, smaller ones, a rarer category, a new one and missing values: each by name."""
    rng = np.random.default_rng(1)
    known = numbers(_normal(rng, 20_000))
    kinds = categories({"a": 5000, "b": 4000, "c": 1000})
    cases = [
        (known, counted(known, _normal(rng, 5000, 0.6)), ("above",)),
        (known, counted(known, _normal(rng, 5000, -0.6)), ("below",)),
        (known, counted(known, [*_normal(rng, 4000), *[math.nan] * 1000]), ("missing",)),
        (kinds, counted_categories(kinds, {"a": 5000, "b": 1000, "c": 1000}), ("more", "fewer")),
        (kinds, counted_categories(kinds, {"a": 50, "b": 40, "d": 60}), ("more",)),
    ]
    for reference, batch, said in cases:
        watch = start(reference)
        for _ in range(10):
            watch = update(watch, batch)
        found = leading(watch)
        assert alarmed(watch)
        assert found is not None
        assert found.said in said
    new = update(start(kinds), counted_categories(kinds, {"d": 100}))
    found = leading(new)
    assert found is not None
    assert found.at == 4, "the bin of all other values"


def test_delays_are_short() -> None:
    """A median that moved to the seventh decile: within 2,500 rows at a false alarm in a million."""
    rng = np.random.default_rng(2)
    reference = numbers(_normal(rng, 20_000))
    delays = []
    for _ in range(20):
        watch = start(reference, 0.1, 1e6)
        while not alarmed(watch):
            watch = update(watch, counted(reference, _normal(rng, 100, 0.524)))
        delays.append(watch.rows)
    assert 300 < float(np.mean(delays)) < 2500


@pytest.mark.parametrize("batch", [20, 100])
def test_false_alarms_are_as_rare_as_promised(batch: int) -> None:
    """With one rate at the very end of what is allowed, an alarm takes the ARL on average."""
    rng = np.random.default_rng(3)
    watch = start(HALVES, 0.1, 1500)
    baseline = watch.claims[1].baseline
    delays = []
    for _ in range(25):
        seen = watch
        while not alarmed(seen) and seen.rows < 15_000:
            below = int(rng.binomial(batch, baseline))
            seen = update(seen, (0, below, batch - below))
        delays.append(seen.rows)
    assert float(np.mean(delays)) >= 1500


def test_what_stays_within_the_tolerance_is_calm() -> None:
    """Of a hundred watches of a million rows each none is alarmed on, the reference drawn anew."""
    rng = np.random.default_rng(4)
    for _ in range(100):
        reference = Reference((0, *map(int, rng.multinomial(500, [0.2] * 5))), ordered=True)
        watch = start(reference, 0.05, 1e6)
        for counts in rng.multinomial(50_000, [0.22, 0.18, 0.2, 0.18, 0.22], 20).tolist():
            watch = update(watch, (0, *counts))
        assert not alarmed(watch)


def test_the_reference_is_seldom_misleading() -> None:
    """Its rows leave a true rate above some baseline without tolerance in under 5 % of draws."""
    rng = np.random.default_rng(5)
    shares = np.array([0.02, 0.48, 0.3, 0.2])
    below, misled = np.cumsum(shares), 0
    for _ in range(400):
        rows = rng.multinomial(300, shares).tolist()
        watch = start(Reference((0, *rows), ordered=True), 0.0)
        for claim in watch.claims[1:]:
            rate = float(below[claim.at - 1])
            misled += (rate if claim.said == "below" else 1 - rate) > claim.baseline
    assert misled / 400 <= 0.05


def test_a_watch_is_plain_numbers() -> None:
    """It survives being stored as JSON, with the same answers afterwards."""
    watch = update(start(categories({"a": 90, "b": 900})), (3, 20, 30, 0))
    assert msgspec.json.decode(msgspec.json.encode(watch), type=Watch) == watch
    assert leading(msgspec.json.decode(msgspec.json.encode(watch), type=Watch)) == leading(watch)


def test_an_alarm_stays_and_evidence_goes() -> None:
    """Whoever looks late still learns of the alarm; the evidence tells the present."""
    watch = update(start(HALVES, arl=10_000), (0, 0, 300))
    for _ in range(30):
        watch = update(watch, (0, 50, 50))
    assert alarmed(watch)
    assert evidence(watch) < threshold(watch)


def test_nothing_seen_changes_nothing() -> None:
    """An empty batch is none; one of missing values alone moves no other claim."""
    watch = start(HALVES)
    assert update(watch, (0, 0, 0)) == watch
    assert [bool(kept) for kept in update(watch, (5, 0, 0)).wealth] == [True, False, False]


def test_what_cannot_be_exceeded_is_not_claimed() -> None:
    """A tiny reference, and rates near 1, leave fewer claims; one of missing values has none."""
    tiny = start(Reference((1, 1, 1), ordered=True))
    assert tiny.claims == ()
    assert evidence(update(tiny, (9, 9, 9))) == 0.0
    assert start(Reference((100, 0, 0), ordered=True)).claims == ()
    said = [claim.said for claim in start(categories({"a": 99_000, "b": 1_000})).claims]
    assert said == ["missing", "fewer", "more", "more"]
    assert [c.said for c in start(Reference((0, 9999), ordered=True)).claims] == ["missing"]


def test_the_distance_is_described() -> None:
    """Numbers by Kolmogorov and Smirnov, categories by shares, and bounds that hold the truth."""
    seen = distance(HALVES, (0, 3000, 1000))
    assert seen.estimate == pytest.approx(0.25)
    assert 0 < seen.low < 0.25 < seen.high < 1
    kinds = Reference((0, 500, 500), ordered=False)
    seen = distance(kinds, (1000, 250, 750))
    assert seen.estimate == pytest.approx(0.25)
    assert 0 < seen.low < 0.25 < seen.high < 1
    assert (seen.missing, seen.missing_before) == (0.5, 0.0)
    assert seen.psi > 0.1
    assert 0 < seen.jensen_shannon < 1
    none = distance(kinds, (0, 0, 0))
    assert (none.estimate, none.low, none.high, none.missing) == (0.0, 0.0, 1.0, 0.0)


def test_impossible_values_are_refused() -> None:
    """References without rows or values, counts of other bins, and tolerances of 1 are errors."""
    for empty in (Reference((0, 0), ordered=True), Reference((5,), True), Reference((1, -1), True)):
        with pytest.raises(ValueError, match="A reference has rows"):
            start(empty)
    with pytest.raises(ValueError, match="no number"):
        numbers([math.nan])
    with pytest.raises(ValueError, match="no category"):
        categories({None: 5})
    for counts in ((1, 2), (0, -1, 5)):
        with pytest.raises(ValueError, match="3 counts"):
            update(start(HALVES), counts)
        with pytest.raises(ValueError, match="3 counts"):
            distance(HALVES, counts)
    for tolerance in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="tolerance"):
            start(HALVES, tolerance)
    for arl in (1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="ARL"):
            start(HALVES, arl=arl)
    with pytest.raises(ValueError, match="error probability"):
        distance(Reference((0, 5, 5), ordered=False), (0, 5, 5), alpha=0.0)
