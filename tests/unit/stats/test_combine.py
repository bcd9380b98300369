"""Many metrics, one decision."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import combine
from hotswap.stats.combine import WEIGHTS, named, promotion, rollback

FINITE = st.floats(-1e6, 1e6)


def test_examples() -> None:
    """The examples of the documentation run."""
    assert doctest.testmod(combine).attempted > 0
    assert doctest.testmod(combine).failed == 0


def test_default_weights_are_a_whole() -> None:
    """Four kinds, one budget."""
    assert math.fsum(WEIGHTS.values()) == pytest.approx(1.0)


def test_rollback_is_the_weighted_average() -> None:
    """With the weights normalised over the metrics that are given."""
    found = rollback({"errors": math.log(40), "latency": math.log(3)}, WEIGHTS)
    assert math.exp(found) == pytest.approx((0.4 * 40 + 0.3 * 3) / 0.7)


@given(st.dictionaries(st.sampled_from(sorted(WEIGHTS)), FINITE, min_size=1))
def test_rollback_lies_between(evidence: dict[str, float]) -> None:
    """An average is between the least and the most, and never overflows."""
    found = rollback(evidence, WEIGHTS)
    assert min(evidence.values()) - 1e-9 <= found <= max(evidence.values()) + 1e-9


def test_nothing_and_not_a_number() -> None:
    """No metrics are no evidence; what is not a number never rolls back nor promotes."""
    assert rollback({}, WEIGHTS) == promotion({}) == 0.0
    assert rollback({"errors": math.nan, "drift": 5.0}, WEIGHTS) == pytest.approx(5 + math.log(0.2))
    assert rollback({"errors": math.nan}, WEIGHTS) == -math.inf
    assert rollback({"errors": math.inf, "drift": 0.0}, WEIGHTS) == math.inf
    assert promotion({"errors": 9.0, "drift": math.nan}) == -math.inf
    assert promotion({"drift": math.nan, "errors": 9.0}) == -math.inf
    assert named({"errors": math.nan, "drift": 0.0}, WEIGHTS, 0.05) == ()


def test_promotion_is_the_weakest() -> None:
    """Every metric must prove its margin."""
    assert promotion({"errors": 4.0, "latency": 2.5, "labels": 9.0}) == 2.5


def test_a_metric_is_named_alone() -> None:
    """Those whose share of the average alone is enough, strongest first."""
    evidence = {"drift": 9.0, "errors": 8.0, "latency": 2.9}
    weights = {"drift": 1, "errors": 1, "latency": 1}
    assert named(evidence, weights, 0.05) == ("drift", "errors")


def test_otherwise_the_false_discovery_procedure_names_them() -> None:
    """All four at 25 reach e-BH's 20 while a weight of a quarter leaves each at 6.25."""
    evidence = dict.fromkeys(WEIGHTS, math.log(25))
    assert named(evidence, dict.fromkeys(WEIGHTS, 1.0), 0.05) == tuple(sorted(WEIGHTS))
    two = {"errors": math.log(45), "latency": math.log(41), "labels": 0.0, "drift": 0.0}
    assert named(two, dict.fromkeys(WEIGHTS, 1.0), 0.05) == ("errors", "latency")


def test_else_it_is_joint_evidence() -> None:
    """The average reaches the level although no metric can be named."""
    evidence = {"errors": math.log(30), "latency": math.log(15)}
    weights = {"errors": 1.0, "latency": 1.0}
    assert rollback(evidence, weights) >= math.log(20)
    assert named(evidence, weights, 0.05) == ()


def test_a_metric_without_weight_is_refused() -> None:
    """It would silently take no part."""
    for weights in ({}, {"errors": 0.0}, {"errors": math.nan}, {"errors": math.inf}):
        with pytest.raises(ValueError, match="'errors' needs a positive weight"):
            rollback({"errors": 1.0}, weights)
    with pytest.raises(ValueError, match="alpha"):
        named({}, {}, 0.0)
