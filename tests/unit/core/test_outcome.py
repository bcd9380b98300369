"""One outcome for both arms, by the first attempt alone."""

from __future__ import annotations

import numpy as np
import pytest

from hotswap.core.outcome import Array, fault, of_answer, of_exception
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import DeadlineExceeded

SIGNATURE = Signature((), (TensorSpec("y", "FP32", (-1, 2)), TensorSpec("label", "INT64", (-1,))))


def outputs(**other: Array) -> dict[str, Array]:
    good: dict[str, Array] = {"y": np.zeros((3, 2), np.float32), "label": np.zeros(3, np.int64)}
    return {**good, **other}


def test_a_valid_answer_has_no_fault() -> None:
    """All that was asked for, one entry a row, of the signature's types and shapes, and finite."""
    assert fault(outputs(), (), 3, SIGNATURE) is None
    assert fault({"label": np.zeros(3, np.int64)}, ("label",), 3, SIGNATURE) is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (np.full((3, 2), np.nan, np.float32), "not finite"),
        (np.full((3, 2), np.inf, np.float32), "not finite"),
        (np.zeros((3, 2), np.float64), "is float64, not FP32"),
        (np.zeros((3, 3), np.float32), "shape"),
        (np.zeros((4, 2), np.float32), "one entry a row"),
        (np.zeros((2, 2), np.float32), "one entry a row"),
        (np.float32(0.0).reshape(()), "one entry a row"),
        (np.zeros((3,), np.float32), "shape"),
    ],
)
def test_what_is_no_valid_answer_says_why(wrong: Array, why: str) -> None:
    """NaN, infinity, a wrong type, shape or number of rows are failures like any other."""
    found = fault(outputs(y=wrong), (), 3, SIGNATURE)
    assert found is not None
    assert why in found


def test_a_missing_output_is_a_fault() -> None:
    """What was asked for and is not there; and an answer of nothing at all."""
    assert (
        fault({"y": np.zeros((3, 2), np.float32)}, (), 3, SIGNATURE) == "output 'label' is missing"
    )
    assert fault({}, (), 3, Signature((), ())) == "there is no output"


def test_a_timeout_is_one_by_the_same_budget_on_either_arm() -> None:
    """Time alone makes a timeout, also of an answer that came, valid or not."""
    assert of_answer(10, 10, None) == "ok"
    assert of_answer(11, 10, None) == of_answer(11, 10, "NaN") == "timeout"
    assert of_answer(9, 10, "NaN") == "invalid"
    assert of_exception(DeadlineExceeded("late")) == "timeout"
    assert of_exception(ValueError("bad")) == of_exception(OSError("gone")) == "error"
