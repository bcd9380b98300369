"""Rows of every usual form become the model's inputs; an answer is read as an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hotswap import BadInput, Prediction, TooLarge
from hotswap.app.engine_prediction import to_inputs
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Limits
from hotswap.ports import Array
from hotswap.server.plans import Plan
from hotswap.testing.fakes import table_signature, tensor_signature

LIMITS = Limits()
NAMED = Signature(
    (TensorSpec("input", "FP32", (-1, 3)),),
    (TensorSpec("predict", "INT64", (-1,)),),
    feature_names=("a", "b", "c"),
)
TWO = Signature(
    (TensorSpec("left", "FP64", (-1, 2)), TensorSpec("right", "INT64", (-1,))),
    (TensorSpec("predict", "INT64", (-1,)),),
)


def inputs(rows: Any, signature: Signature) -> dict[str, Array]:
    return to_inputs(rows, Plan(signature), LIMITS)[0]


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2, 3], [4, 5, 6]],
        [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)],
        np.array([[1, 2, 3], [4, 5, 6]]),
        np.array([[1, 2, 3], [4, 5, 6]], dtype=">f8"),
        {"a": [1, 4], "b": [2, 5], "c": np.array([3, 6])},
        {"c": [3, 6], "b": [2, 5], "a": [1, 4]},
        {"input": [[1, 2, 3], [4, 5, 6]]},
        {"anything": np.array([[1, 2, 3], [4, 5, 6]])},
        [{"a": 1, "b": 2, "c": 3}, {"c": 6, "b": 5, "a": 4}],
        pd.DataFrame({"b": [2, 5], "a": [1, 4], "c": [3, 6]}),
        pd.DataFrame([[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_every_form_of_two_rows_is_the_same_matrix(rows: Any) -> None:
    """Arrays, lists, columns, records and frames give one FP32 matrix, columns by name."""
    made = inputs(rows, NAMED)
    assert list(made) == ["input"]
    assert made["input"].dtype == np.float32
    assert made["input"].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "row", [[1, 2, 3], np.array([1.0, 2.0, 3.0]), {"a": 1, "b": 2, "c": np.int64(3)}, (1, 2, 3)]
)
def test_one_row_needs_no_list_around_it(row: Any) -> None:
    """One row alone is a batch of one."""
    assert inputs(row, NAMED)["input"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame(
            {
                "city": ["Ghent", "Łódź"],
                "age": [30, 40],
                "income": [1.5, 2],
                "member": [True, False],
            }
        ),
        {
            "age": [30, 40],
            "income": [1.5, 2],
            "city": ["Ghent", "Łódź"],
            "member": np.array([True, False]),
        },
        [[30, 1.5, "Ghent", True], [40, 2, "Łódź", False]],
        [
            {"age": 30, "income": 1.5, "city": "Ghent", "member": True},
            {"age": 40, "income": 2, "city": "Łódź", "member": False},
        ],
    ],
)
def test_tables_of_mixed_types(rows: Any) -> None:
    """A table's columns have its datatypes, text as UTF-8 bytes."""
    made = inputs(rows, table_signature())
    assert made["age"].tolist() == [30, 40]
    assert made["income"].tolist() == [1.5, 2.0]
    assert made["city"].tolist() == [b"Ghent", "Łódź".encode()]
    assert made["member"].tolist() == [True, False]


def test_several_inputs_by_name() -> None:
    """A model of several inputs takes them as a dict, cast to their datatypes."""
    made = inputs({"left": [[1, 2]], "right": np.array([3], np.int8)}, TWO)
    assert made["left"].tolist() == [[1.0, 2.0]]
    assert made["right"].dtype == np.int64


@pytest.mark.parametrize(
    ("rows", "signature", "words"),
    [
        ([[1, 2]], NAMED, "shape"),
        ([[1, 2, 3], [1, 2]], NAMED, "shape"),
        ([], NAMED, "empty"),
        (np.zeros((0, 3)), NAMED, "no row"),
        ({"a": [1], "b": [2]}, NAMED, "Missing: 'c'"),
        ({"a": 1, "b": 2, "c": [3]}, NAMED, "one value and others a list"),
        ({"a": [1], "b": [2, 3], "c": [4]}, NAMED, "different lengths"),
        ({"a": [1], "b": [2], "c": [3], "d": [4]}, NAMED, "Unknown: 'd'"),
        (pd.DataFrame({"a": [1], "b": [2], "z": [3]}), NAMED, "Missing: 'c'"),
        (np.array([["x", "y", "z"]]), NAMED, "takes numbers"),
        (np.array([[1e300, 0, 0]]), NAMED, "range of FP32"),
        ([[1, 2, 3]], TWO, "several inputs"),
        ({"left": [[1, 2]], "right": [0.5]}, TWO, "fraction"),
        ({"left": [[1, 2]], "right": [1, 2]}, TWO, "different numbers of rows"),
        ({}, NAMED, "no input"),
        ("text", NAMED, "must be a list"),
    ],
)
def test_what_does_not_fit_is_refused(rows: Any, signature: Signature, words: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(BadInput, match=words):
        inputs(rows, signature)


def test_too_many_rows() -> None:
    """The limit of rows holds here too."""
    with pytest.raises(TooLarge):
        to_inputs(np.zeros((3, 30)), Plan(tensor_signature()), Limits(rows=2))


def test_a_prediction_is_an_array() -> None:
    """numpy reads it; its outputs keep their names; text is `str`."""
    labels = np.array([b"spam", "né".encode()], dtype=object)
    chances = np.array([[0.1, 0.9], [0.8, 0.2]])
    answer = Prediction({"predict": labels, "predict_proba": chances}, "mail", "v3", "r-1")
    assert np.asarray(answer).tolist() == ["spam", "né"]
    assert answer.probabilities is chances
    assert len(answer) == 2
    assert (answer.model, answer.version, answer.request_id) == ("mail", "v3", "r-1")
    assert set(answer.outputs) == {"predict", "predict_proba"}


def test_the_values_of_a_model_without_predict() -> None:
    """The first output that is no probabilities."""
    scores = np.array([0.5])
    answer = Prediction({"predict_proba": scores, "score": scores + 1}, "m", "v1", "r")
    assert answer.values.tolist() == [1.5]
    assert Prediction({"predict_proba": scores}, "m", "v1", "r").values is scores


def test_a_prediction_in_another_datatype() -> None:
    """numpy's dtype and copy are honoured."""
    answer = Prediction({"predict": np.array([1, 2])}, "m", "v1", "r")
    assert np.asarray(answer, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="needs a copy"):
        answer.__array__(np.float32, copy=False)
