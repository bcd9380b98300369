"""Losses row by row, and what a missing output costs."""

from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import differences, losses
from hotswap.stats.losses import (
    NATS,
    absolute_error,
    brier,
    freeze_scale,
    log_loss,
    places,
    scaled_difference,
    squared_error,
    wrong,
)

LOSSES = st.one_of(st.floats(0, 1e300), st.sampled_from((math.nan, math.inf, -math.inf)))
CHANCES = st.floats(0, 1)


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(losses).failed == 0


def test_labels_are_compared_as_what_they_are() -> None:
    """Numbers in the predictions' precision, texts exactly, and either with the other as written."""
    assert wrong(np.array([0.1, 1.0]), np.array([0.1, 1.0], np.float32)).tolist() == [0, 0]
    assert wrong(np.array([2.0, 3.0]), np.array([2, 4])).tolist() == [0, 1]
    assert wrong([True, False], [1, 1]).tolist() == [0, 1]
    assert wrong(["1", "01", "1.5"], ["1", "1", "1.5"]).tolist() == [0, 1, 0]
    assert wrong([1.0, 1.5, 2], ["1", "1.5", "3"]).tolist() == [0, 0, 1]
    assert wrong([1.0, 0.0, 1.0], ["true", "False", "no"]).tolist() == [0, 0, 1]
    assert wrong(["1.0", "2", "1e3"], ["1", "2.00", "1000"]).tolist() == [0, 0, 1]
    assert wrong(["cat", b"dog"], np.array([b"cat", b"dog"])).tolist() == [0, 0]
    assert wrong([], []).tolist() == []


def test_no_prediction_is_no_loss_known() -> None:
    """Absent, not a number and infinite ones are NaN, of numbers and of texts."""
    columns: list[list[Any]] = [[None, 1.0], [math.nan, 1.0], [math.inf, 1.0], [None, "1"]]
    for predictions in columns:
        lost = wrong([1, 1], predictions)
        assert math.isnan(lost[0])
        assert lost[1] == 0
    assert np.isnan(absolute_error([1.0], [math.nan])).all()
    assert np.isnan(squared_error([1.0], [-math.inf])).all()


@pytest.mark.parametrize(
    "row",
    [[math.nan, 0.5], [1.2, -0.2], [0.5, 0.6], [0.0, 0.0], [math.inf, 0.0]],
    ids=str,
)
def test_what_is_no_distribution_is_no_output(row: list[float]) -> None:
    """Probabilities outside [0, 1], or that do not add up, have no loss: they are missing."""
    assert np.isnan(log_loss([1, 1], [row, [0.5, 0.5]])).tolist() == [True, False]
    assert np.isnan(brier([1, 1], [row, [0.5, 0.5]])).tolist() == [True, False]


@given(st.lists(st.tuples(st.integers(0, 1), CHANCES), min_size=1, max_size=20))
def test_two_classes_told_by_one_or_both(rows: list[tuple[int, float]]) -> None:
    """The chance of class 1 and both chances are the same forecast, with losses in [0, 1]."""
    truth = [label for label, _ in rows]
    p = np.array([chance for _, chance in rows])
    both = np.stack([1 - p, p], axis=1)
    for loss in (log_loss, brier):
        lost = loss(truth, p)
        assert lost == pytest.approx(loss(truth, both))
        assert ((lost >= 0) & (lost <= 1)).all()
    assert brier(truth, p) == pytest.approx((p - np.array(truth)) ** 2, abs=1e-12)
    own = np.where(np.array(truth) == 1, p, 1 - p)
    assert log_loss(truth, p) * NATS == pytest.approx(-np.log(np.maximum(own, 0.01)))


def test_more_classes() -> None:
    """The label's class counts; one that the model does not know is lost."""
    rows = [[0.7, 0.2, 0.1]] * 4
    assert log_loss([0, 1, 2, -1], rows) == pytest.approx(
        np.array([math.log(1 / 0.7), math.log(5), math.log(10), NATS]) / NATS
    )
    assert brier([0, 1, 2, 7], rows) == pytest.approx([0.07, 0.57, 0.67, 0.77])
    assert places(["b", "a", "x"], np.array(["a", "b"])).tolist() == [1, 0, -1]
    assert places([3, 5], [5.0, 3.0]).tolist() == [1, 0]


@given(st.lists(st.tuples(LOSSES, LOSSES), max_size=20), st.floats(1e-6, 1e6))
def test_differences_are_bounded_and_mirror(rows: list[tuple[float, float]], scale: float) -> None:
    """Whatever the losses: within [-1, 1], fit for a histogram, and swapped they change sign."""
    ours, theirs = [a for a, _ in rows], [b for _, b in rows]
    d = scaled_difference(ours, theirs, scale)
    assert (np.abs(d) <= 1).all()
    assert (scaled_difference(theirs, ours, scale) == -d).all()
    assert sum(differences.buckets(d).values()) == len(rows)


def test_a_candidate_without_an_output_has_lost() -> None:
    """Even against stable's largest loss; stable alone is the mirror, both are a tie."""
    nothing = math.nan
    d = scaled_difference([nothing, 0.0, nothing, 0.5], [1.0, nothing, nothing, 0.25])
    assert d.tolist() == [1.0, -1.0, 0.0, 0.25]


def test_the_scale_is_robust() -> None:
    """A few wild losses move it little; missing ones are left out."""
    calm = np.random.default_rng(1).exponential(2.0, 10_000)
    wild = np.concatenate([calm, [1e12] * 5, [math.nan, math.inf]])
    assert freeze_scale(wild) == pytest.approx(freeze_scale(calm), rel=0.05)
    assert freeze_scale(np.zeros(100)) == 1.0


def test_impossible_values_are_refused() -> None:
    """Missing labels, unequal lengths, scales of 0, few losses and wrong shapes are errors."""
    missing: list[list[Any]] = [[None], [math.nan]]
    for labels in missing:
        with pytest.raises(ValueError, match="no label"):
            wrong(labels, [1])
        with pytest.raises(ValueError, match="no label"):
            absolute_error(np.array(labels, np.float64), [1.0])
    with pytest.raises(ValueError, match="no label"):
        places([None, "a"], ["a"])
    with pytest.raises(ValueError, match="one side"):
        squared_error([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="a row"):
        wrong(np.zeros((2, 2)), np.zeros((2, 2)))
    for shape in ((2, 2, 2), (2, 1)):
        with pytest.raises(ValueError, match="are \\(rows,\\)"):
            log_loss([0, 1], np.zeros(shape))
    with pytest.raises(ValueError, match="whole number"):
        brier([0.5], [0.5])
    assert brier([1.0], [0.5]).tolist() == [0.25]
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="above 0"):
            scaled_difference([1.0], [1.0], scale)
    with pytest.raises(ValueError, match="100 losses"):
        freeze_scale([1.0] * 99)
    with pytest.raises(ValueError, match="0 at least"):
        freeze_scale([-1.0] * 100)
