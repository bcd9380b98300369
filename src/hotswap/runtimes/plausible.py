"""Rows that exercise a model: over the ranges that its scalers, encoders and splits show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec
from hotswap.ports import Array
from hotswap.runtimes.samples import as_bytes
from hotswap.runtimes.sklearn_signature import categories, keeps_columns, routed

Range = tuple[float, float]

_SEED = 20_240_229


def plausible_rows(signature: Signature, model: Any, rows: int) -> dict[str, Array] | None:
    """``rows`` rows for a tabular model, the same each time; None if its columns are not known.

    Numbers are spread over the range that a scaler or the splits of trees show (else -3 to 3)
    and a tenth beyond it; encoded columns take the encoder's categories in turn.
    """
    chance = np.random.default_rng(_SEED)
    if signature.kind == "table":
        names = [spec.name for spec in signature.inputs]
        known, spans = categories(model, names), ranges(model, names)
        return {
            spec.name: _column(spec, known.get(spec.name), spans.get(spec.name), rows, chance)
            for spec in signature.inputs
        }
    if len(signature.inputs) != 1 or len(signature.inputs[0].shape) != 2:
        return None
    spec = signature.inputs[0]
    if spec.shape[1] < 0:
        return None
    names = [str(index) for index in range(spec.shape[1])]
    known, spans = categories(model, names), ranges(model, names)
    one = TensorSpec(spec.name, spec.datatype, (-1,))
    columns = [_column(one, known.get(name), spans.get(name), rows, chance) for name in names]
    return {spec.name: np.stack(columns, axis=1)}


def ranges(model: Any, columns: Sequence[str]) -> dict[str, Range]:
    """The lowest and highest plausible value of each column for which the model shows it."""
    if type(model).__module__.startswith(("xgboost.", "lightgbm.")):
        return _of_booster(model, columns)
    if hasattr(model, "best_estimator_"):
        return ranges(model.best_estimator_, columns)
    if type(model).__name__ == "Pipeline":
        for _, step in model.steps:
            told = ranges(step, columns)
            if told or not keeps_columns(step):
                return told
        return {}
    if type(model).__name__ == "ColumnTransformer":
        return {
            name: span
            for part, chosen in routed(model, columns)
            for name, span in ranges(part, chosen).items()
        }
    return _of_scaler(model, columns) or _of_trees(model, columns)


def _of_scaler(model: Any, columns: Sequence[str]) -> dict[str, Range]:
    name = type(model).__name__
    low: Any
    if name == "StandardScaler" and model.mean_ is not None and model.scale_ is not None:
        low, high = model.mean_ - 3 * model.scale_, model.mean_ + 3 * model.scale_
    elif name == "MinMaxScaler":
        low, high = model.data_min_, model.data_max_
    elif name == "RobustScaler" and model.center_ is not None and model.scale_ is not None:
        low, high = model.center_ - 3 * model.scale_, model.center_ + 3 * model.scale_
    else:
        return {}
    return {column: (float(a), float(b)) for column, a, b in zip(columns, low, high, strict=True)}


def _of_trees(model: Any, columns: Sequence[str]) -> dict[str, Range]:
    trees = [model, *np.ravel(np.asarray(getattr(model, "estimators_", []), dtype=object))]
    splits: dict[str, list[float]] = {}
    for tree in trees:
        inner = getattr(tree, "tree_", None)
        if inner is None or not hasattr(inner, "threshold"):
            continue
        for feature, threshold in zip(inner.feature, inner.threshold, strict=True):
            if 0 <= feature < len(columns):
                splits.setdefault(columns[feature], []).append(float(threshold))
    return _spans(splits)


def _of_booster(model: Any, columns: Sequence[str]) -> dict[str, Range]:
    splits: dict[str, list[float]] = {}
    table = model.trees_to_dataframe()
    xgboost = "Split" in table.columns
    names = model.feature_names if xgboost else model.feature_name()
    if names is None:
        names = [f"f{index}" for index in range(len(columns))]
    of = dict(zip(names, columns, strict=True))
    keys = ("Feature", "Split") if xgboost else ("split_feature", "threshold")
    for feature, threshold in zip(table[keys[0]], table[keys[1]], strict=True):
        if feature in of and isinstance(threshold, float) and np.isfinite(threshold):
            splits.setdefault(of[feature], []).append(threshold)
    return _spans(splits)


def _spans(splits: Mapping[str, list[float]]) -> dict[str, Range]:
    spans = {}
    for column, values in splits.items():
        low, high = min(values), max(values)
        room = (high - low) / 2 or abs(low) or 1.0
        spans[column] = (low - room, high + room)
    return spans


def _column(
    spec: TensorSpec,
    known: Array | None,
    span: Range | None,
    rows: int,
    chance: np.random.Generator,
) -> Array:
    if known is not None and len(known):
        values = np.asarray(known)[chance.integers(0, len(known), rows)]
        return (
            as_bytes(values) if spec.datatype == "BYTES" else values.astype(NUMPY_OF[spec.datatype])
        )
    if spec.datatype == "BYTES":
        return as_bytes(np.asarray(["a"] * rows, dtype=object))
    low, high = span or (-3.0, 3.0)
    room = (high - low) / 10
    # Rounded to FP32, which is what a converted model is given.
    values = chance.uniform(low - room, high + room, rows).astype(np.float32)
    return values.astype(NUMPY_OF[spec.datatype])
