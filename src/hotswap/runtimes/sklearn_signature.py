"""What a fitted scikit-learn model tells of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from hotswap.core.datatypes import datatype_of
from hotswap.core.signature import Signature, TensorSpec
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
        told = _columns(model, columns)
        specs = tuple(TensorSpec(name, told.get(name, "FP64"), (-1,)) for name in columns)
        return Signature(specs, (), kind="table")
    width = getattr(model, "n_features_in_", None)
    if width is None:
        return None
    told = _columns(model, [str(index) for index in range(width)])
    text = len(told) == width and set(told.values()) == {"BYTES"}
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


def _columns(model: Any, columns: Sequence[str]) -> Mapping[str, str]:
    """The datatypes of those columns that a fitted encoder tells."""
    if hasattr(model, "best_estimator_"):
        return _columns(model.best_estimator_, columns)
    if type(model).__name__ == "Pipeline":
        for _, step in model.steps:
            told = _columns(step, columns)
            if told or (type(step).__name__ not in _KEEPS_COLUMNS and step != "passthrough"):
                return told
        return {}
    if type(model).__name__ == "ColumnTransformer":
        return _routed(model, columns)
    if type(model).__name__ == "FeatureUnion":
        return {
            k: v for _, part in model.transformer_list for k, v in _columns(part, columns).items()
        }
    if type(model).__name__ in _TEXT:
        return dict.fromkeys(columns, "BYTES")
    categories = getattr(model, "categories_", None)
    if isinstance(categories, list) and len(categories) == len(columns):
        return {name: _category(values) for name, values in zip(columns, categories, strict=True)}
    fill = getattr(model, "statistics_", None)
    if isinstance(fill, np.ndarray) and fill.dtype == object and len(fill) == len(columns):
        return {
            name: "BYTES"
            for name, value in zip(columns, fill, strict=True)
            if isinstance(value, str)
        }
    return {}


def _routed(model: Any, columns: Sequence[str]) -> Mapping[str, str]:
    told: dict[str, str] = {}
    indices = getattr(model, "_transformer_to_input_indices", {})
    for name, transformer, wanted in model.transformers_:
        if isinstance(transformer, str):
            continue
        if name in indices:
            chosen = [columns[index] for index in indices[name]]
        elif isinstance(wanted, list) and all(isinstance(item, str) for item in wanted):
            chosen = list(wanted)
        else:
            continue
        told.update(_columns(transformer, chosen))
    return told


def _category(values: Any) -> str:
    array = np.asarray(values)
    if array.dtype.kind == "O":
        return "BYTES" if any(isinstance(value, str) for value in array.tolist()) else "FP64"
    return {"i": "INT64", "u": "INT64", "b": "BOOL", "U": "BYTES", "S": "BYTES"}.get(
        array.dtype.kind, "FP64"
    )
