"""What a fitted scikit-learn model tells of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from hotswap.core.datatypes import datatype_of
from hotswap.core.signature import Signature, TensorSpec
from hotswap.ports import Array
from hotswap.runtimes.signatures import tensor

_TEXT: Final = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})
"""What takes a column of documents."""

_KEEPS_COLUMNS: Final = frozenset(
    {
        "SimpleImputer",
        "FunctionTransformer",
        "StandardScaler",
        "MinMaxScaler",
        "MaxAbsScaler",
        "RobustScaler",
        "Pipeline",
    }
)
"""Steps after which an encoder still sees the same columns in the same order."""


def inputs_of(model: Any) -> Signature | None:
    """The inputs, outputs left empty; None if the model does not tell.

    Fitted on a data frame: a ``table``. Fitted on an array: one ``input`` of FP64, or of BYTES
    where every column goes to an encoder that was fitted on text. A vectorizer first: one
    column of BYTES.
    """
    first = _first(model)
    if type(first).__name__ in _TEXT:
        return tensor("BYTES", ())
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        columns = [str(name) for name in names]
        told = categories(model, columns)
        specs = tuple(
            TensorSpec(name, _category(told[name]) if name in told else "FP64", (-1,))
            for name in columns
        )
        return Signature(specs, (), kind="table")
    width = getattr(model, "n_features_in_", None)
    if width is None:
        return None
    told = categories(model, [str(index) for index in range(width)])
    text = len(told) == width and {_category(values) for values in told.values()} == {"BYTES"}
    return tensor("BYTES" if text else "FP64", (int(width),))


def outputs_of(model: Any) -> tuple[TensorSpec, ...]:
    """A classifier's outputs; empty if the model is none, or has several targets."""
    classes = getattr(model, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or not hasattr(model, "predict"):
        return ()
    outputs = [TensorSpec("predict", label_datatype(classes.dtype), (-1,))]
    if hasattr(model, "predict_proba"):
        outputs.append(TensorSpec("predict_proba", "FP64", (-1, len(classes))))
    return tuple(outputs)


def label_datatype(dtype: np.dtype[Any]) -> str:
    """What a prediction of this dtype is answered as: INT64, FP64, BOOL or BYTES."""
    kinds = {"i": "INT64", "u": "INT64", "f": "FP64"}
    return kinds.get(dtype.kind) or datatype_of(dtype)


def _first(model: Any) -> Any:
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(getattr(model, "steps", None), list) and model.steps:
            model = model.steps[0][1]
        else:
            return model


def categories(model: Any, columns: Sequence[str]) -> dict[str, Array | None]:
    """The categories of those columns for which a fitted encoder tells; None for any text."""
    if hasattr(model, "best_estimator_"):
        return categories(model.best_estimator_, columns)
    if type(model).__name__ == "Pipeline":
        for _, step in model.steps:
            told = categories(step, columns)
            if told or not keeps_columns(step):
                return told
        return {}
    if type(model).__name__ == "ColumnTransformer":
        return {
            name: values
            for part, chosen in routed(model, columns)
            for name, values in categories(part, chosen).items()
        }
    if type(model).__name__ == "FeatureUnion":
        return {
            name: values
            for _, part in model.transformer_list
            for name, values in categories(part, columns).items()
        }
    if type(model).__name__ in _TEXT:
        return dict.fromkeys(columns)
    fitted = getattr(model, "categories_", None)
    if isinstance(fitted, list) and len(fitted) == len(columns):
        return {name: np.asarray(values) for name, values in zip(columns, fitted, strict=True)}
    fill = getattr(model, "statistics_", None)
    if isinstance(fill, np.ndarray) and fill.dtype == object and len(fill) == len(columns):
        return {
            name: None for name, value in zip(columns, fill, strict=True) if isinstance(value, str)
        }
    return {}


def keeps_columns(step: Any) -> bool:
    """Whether a step's output has the columns of its input, in their order."""
    return isinstance(step, str) or step is None or type(step).__name__ in _KEEPS_COLUMNS


def routed(model: Any, columns: Sequence[str]) -> Iterator[tuple[Any, list[str]]]:
    """A fitted ColumnTransformer's parts, each with the names of the columns that it is given."""
    indices = getattr(model, "_transformer_to_input_indices", {})
    for name, part, wanted in model.transformers_:
        if isinstance(part, str):
            continue
        if name in indices:
            yield part, [columns[index] for index in indices[name]]
        elif isinstance(wanted, list) and all(isinstance(item, str) for item in wanted):
            yield part, list(wanted)


def _category(values: Array | None) -> str:
    if values is None:
        return "BYTES"
    if values.dtype.kind == "O":
        return "BYTES" if any(isinstance(value, str) for value in values.tolist()) else "FP64"
    kinds = {"i": "INT64", "u": "INT64", "b": "BOOL", "U": "BYTES", "S": "BYTES"}
    return kinds.get(values.dtype.kind, "FP64")
