"""A detector of change finds a worse rate soon, and a false alarm is far away."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest

from hotswap.stats import change
from hotswap.stats.change import Detector, alarmed, evidence, start, threshold, update


def _delay(rng: np.random.Generator, detector: Detector, rate: float, batch: int) -> int:
    seen = 0
    while not alarmed(detector):
        detector = update(detector, int(rng.binomial(batch, rate)), batch)
        seen += batch
    return seen


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(change).failed == 0


@pytest.mark.parametrize(("before", "after", "requests"), [(0.01, 0.02, 2066), (0.001, 0.01, 667)])
def test_delays_are_near_the_published(before: float, after: float, requests: int) -> None:
    """With a false alarm every 100,000 requests a doubled rate is found in about 2,000."""
    rng = np.random.default_rng(1)
    delays = [_delay(rng, start(before, 100_000, 100), after, 100) for _ in range(300)]
    assert float(np.mean(delays)) == pytest.approx(requests, rel=0.25)


@pytest.mark.parametrize("batch", [1, 10, 50])
def test_false_alarms_are_as_rare_as_promised(batch: int) -> None:
    """However the requests are cut into batches, a false alarm takes the ARL on average."""
    rng = np.random.default_rng(2)
    delays = [_delay(rng, start(0.05, 500, 10), 0.05, batch) for _ in range(40)]
    assert float(np.mean(delays)) >= 500


def test_an_old_calm_does_not_hide_a_change() -> None:
    """A long good stretch, and a rate below the baseline, delay an alarm by nothing."""
    fresh = start(0.01, 10_000, 100)
    calm = fresh
    for _ in range(500):
        calm = update(calm, 0, 100)
    for _ in range(3):
        fresh, calm = update(fresh, 5, 100), update(calm, 5, 100)
    assert evidence(calm) == pytest.approx(evidence(fresh))


def test_the_usual_batch_is_only_a_unit() -> None:
    """The evidence is told in it; when there is an alarm does not depend on it."""
    for usual in (1, 7, 400):
        rng = np.random.default_rng(8)
        assert _delay(rng, start(0.01, 10_000, usual), 0.03, 20) == _delay(
            np.random.default_rng(8), start(0.01, 10_000, 20), 0.03, 20
        )


def test_an_alarm_stays_and_evidence_goes() -> None:
    """Whoever looks late still learns of the alarm; the evidence tells the present."""
    detector = start(0.01, 10_000, 100)
    for events in (30, *[0] * 50):
        detector = update(detector, events, 100)
    assert alarmed(detector)
    assert evidence(detector) < threshold(detector)


def test_nothing_seen_changes_nothing() -> None:
    """An empty batch is no batch, and a fresh detector has no evidence."""
    detector = start(0.01)
    assert update(detector, 0, 0) == detector
    assert evidence(detector) == 0.0


def test_a_detector_is_plain_numbers() -> None:
    """It survives being saved as JSON, with the same answer afterwards."""
    detector = update(start(0.01, batch=50), 3, 50)
    baseline, arl, batch, wealth, peak = json.loads(json.dumps(detector))
    assert Detector(baseline, arl, batch, tuple(wealth), peak) == detector


def test_huge_counts_stay_finite() -> None:
    """A trillion failures at a baseline of nothing overflow nothing."""
    detector = update(start(0.0), 10**12, 10**12)
    assert alarmed(detector)
    assert np.isfinite(evidence(detector))


def test_bad_numbers_are_refused() -> None:
    """More events than requests, a rate of 1 and an ARL below a batch are errors."""
    with pytest.raises(ValueError, match="3 events of 2"):
        update(start(0.01), 3, 2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        start(1.0)
    with pytest.raises(ValueError, match="ARL"):
        start(0.01, arl=10, batch=100)
