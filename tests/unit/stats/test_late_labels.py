"""Labels whose delay depends on what they are: counted when mature they decide nothing false."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hotswap.stats import auc, differences, losses, means
from hotswap.stats.auc import Blocks
from hotswap.stats.means import ValueCell

FOUND = math.log(20)
RUNS = 80
LIMIT = RUNS * 0.05 + 3 * math.sqrt(RUNS * 0.05 * 0.95)
#: Hours: what a label takes on average, and when its request counts as mature.
NEGATIVE, POSITIVE, WINDOW = 10.0, 100.0, 500.0
#: Share of positives, and how often either is wrong on positives and on negatives: the candidate
#: more often on positives and less often on negatives, with exactly the same accuracy.
SHARE, STABLE, CANDIDATE = 0.3, (0.2, 0.1), (0.2 + 0.05 * 7 / 3, 0.05)
HOURS = 240.0


class Traffic(NamedTuple):
    """Requests in order of arrival: when, their labels and when these come, and who was wrong."""

    arrived: npt.NDArray[np.float64]
    positive: npt.NDArray[np.bool_]
    labelled: npt.NDArray[np.float64]
    stable: npt.NDArray[np.float64]
    candidate: npt.NDArray[np.float64]


def _traffic(rng: np.random.Generator, rows: int = 12_000) -> Traffic:
    arrived = np.sort(rng.random(rows) * HOURS)
    positive = rng.random(rows) < SHARE
    labelled = arrived + rng.exponential(np.where(positive, POSITIVE, NEGATIVE))
    draw = rng.random((2, rows))
    stable, candidate = (
        (draw[at] < np.where(positive, *rates)).astype(np.float64)
        for at, rates in enumerate((STABLE, CANDIDATE))
    )
    return Traffic(arrived, positive, labelled, stable, candidate)


def _looks(seen: Traffic, *, mature: bool) -> Iterator[npt.NDArray[np.bool_]]:
    """At each look which requests are counted: those past the window, or whatever has a label."""
    for now in np.arange(24.0, HOURS + WINDOW, 24.0):
        known = seen.labelled <= now
        if mature:
            old = seen.arrived <= now - WINDOW
            yield old & (seen.labelled <= seen.arrived + WINDOW)
        else:
            yield known & (seen.arrived <= now)


def _paired(seen: Traffic, *, mature: bool) -> bool:
    """Whether the paired accuracy ever has a verdict, in either direction."""
    d = losses.scaled_difference(seen.candidate, seen.stable)
    return any(
        max(
            differences.rollback_evidence(differences.buckets(d[rows])),
            differences.promotion_evidence(differences.buckets(d[rows]), 0.0),
        )
        >= FOUND
        for rows in _looks(seen, mature=mature)
    )


def _unpaired(seen: Traffic, ours: npt.NDArray[np.bool_], *, mature: bool) -> bool:
    """The same with one answer a request, half of them the candidate's."""
    for rows in _looks(seen, mature=mature):
        cell = ValueCell(
            0.5,
            means.buckets(seen.candidate[rows & ours]),
            means.buckets(seen.stable[rows & ~ours]),
        )
        if (
            max(
                means.rollback_evidence([cell], 0.13),
                means.promotion_evidence([cell], 0.13, 0.0),
            )
            >= FOUND
        ):
            return True
    return False


def test_positives_ten_times_later_decide_nothing_false() -> None:
    """Versions of equal accuracy that fail on different classes: seldom a verdict, either way."""
    rng = np.random.default_rng(1)
    paired = unpaired = 0
    for _ in range(RUNS):
        seen = _traffic(rng)
        paired += _paired(seen, mature=True)
        unpaired += _unpaired(seen, rng.random(len(seen.arrived)) < 0.5, mature=True)
    assert paired <= LIMIT
    assert unpaired <= LIMIT


def test_counted_as_they_come_they_would() -> None:
    """What the window is for: labels counted on arrival favour whoever is good on the early class."""
    rng = np.random.default_rng(2)
    wrong = sum(_paired(_traffic(rng), mature=False) for _ in range(40))
    assert wrong > 30


def test_positives_ten_times_later_do_not_change_a_ranking() -> None:
    """Blocks of equally good rankings, fed in order of arrival when mature: seldom a verdict."""
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(RUNS):
        seen = _traffic(rng, 3000)
        scores = rng.standard_normal((2, len(seen.arrived))) + 1.2 * seen.positive
        state, last = Blocks(), np.zeros(len(seen.arrived), np.bool_)
        for rows in _looks(seen, mature=True):
            new = np.flatnonzero(rows & ~last)
            columns = seen.positive[new].tolist(), *scores[:, new].tolist()
            state, last = auc.feed(state, zip(*columns, strict=True)), rows
            if (
                max(
                    differences.rollback_evidence(state.counts),
                    differences.promotion_evidence(state.counts, 0.0),
                )
                >= FOUND
            ):
                found += 1
                break
        assert state.blocks > 100 or found
    assert found <= LIMIT
