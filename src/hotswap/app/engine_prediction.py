"""What `Engine.predict` takes and gives: rows of any usual form in, a `Prediction` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hotswap.core.datatypes import OIP_OF
from hotswap.core.signature import TensorSpec
from hotswap.core.spec import Limits
from hotswap.errors import BadInput
from hotswap.ports import Array
from hotswap.server import predict, tensors
from hotswap.server.calls import common_rows, listed, match_names
from hotswap.server.plans import Plan
from hotswap.server.tensors import check_shape, show


class Prediction:
    """One answer: every output of one version for the rows that were asked.

    ``outputs`` has each output by name, first dimension the rows; text is `str`. ``model``,
    ``version`` and ``request_id`` say who answered what; ``fallback`` why that is not a rollout's
    candidate, which was to (error, timeout, lost, invalid, …), else None.

    >>> answer = Prediction({"predict": np.array([1, 0])}, "fraud", "v2", "r1")
    >>> len(answer), np.asarray(answer).tolist(), answer.version, answer.probabilities
    (2, [1, 0], 'v2', None)
    """

    __slots__ = ("fallback", "model", "outputs", "request_id", "version")

    def __init__(
        self,
        outputs: Mapping[str, Array],
        model: str,
        version: str,
        request_id: str,
        fallback: str | None = None,
    ) -> None:
        self.outputs: dict[str, Array] = {name: _text(array) for name, array in outputs.items()}
        self.model = model
        self.version = version
        self.request_id = request_id
        self.fallback = fallback

    @property
    def values(self) -> Array:
        """The output ``predict`` if there is one, else the first that is not ``predict_proba``."""
        if "predict" in self.outputs:
            return self.outputs["predict"]
        others = [name for name in self.outputs if name != "predict_proba"]
        return self.outputs[others[0]] if others else self.outputs["predict_proba"]

    @property
    def probabilities(self) -> Array | None:
        """The output ``predict_proba``, shape ``(rows, classes)``; None if the version has none."""
        return self.outputs.get("predict_proba")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        values = self.values
        wanted = values.dtype if dtype is None else np.dtype(dtype)
        if copy is False and wanted != values.dtype:
            raise ValueError(f"the values are {values.dtype}: a cast to {wanted} needs a copy")
        return values.astype(wanted, copy=bool(copy))

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Prediction({self.values!r}, model={self.model!r}, version={self.version!r})"


def _text(array: Array) -> Array:
    """`bytes` elements as `str` where they are UTF-8."""
    if array.dtype.kind != "O":
        return array
    out = np.empty(array.size, dtype=object)
    for at, value in enumerate(array.ravel().tolist()):
        try:
            out[at] = value.decode("utf-8") if isinstance(value, bytes) else value
        except UnicodeDecodeError:
            out[at] = value
    return out.reshape(array.shape)


def to_inputs(rows: Any, plan: Plan, limits: Limits) -> tuple[dict[str, Array], int]:
    """The model's inputs by name, and the number of rows.

    ``rows`` is an array of rows or of one row, a list of lists, a mapping of names to values
    (one row) or to columns, a list of mappings, or a pandas data frame. Raises `BadInput`.
    """
    if hasattr(rows, "columns") and hasattr(rows, "iloc"):
        inputs = _from_frame(rows, plan)
    elif isinstance(rows, Mapping):
        inputs = _from_mapping(rows, plan)
    elif _is_array(rows):
        inputs = _from_array(np.asarray(rows), plan)
    else:
        quick = _numbers(rows, plan)
        if quick is None:
            body = predict.Body(features=_plain(rows))
            inputs, count, _ = predict.decode(body, plan, limits)
            return inputs, count
        inputs = quick
    return inputs, common_rows(inputs, limits)


def _is_array(rows: Any) -> bool:
    return hasattr(rows, "__array__") and not np.isscalar(rows)


def _numbers(rows: Any, plan: Plan) -> dict[str, Array] | None:
    """Lists of numbers for a model of one matrix; None for anything else."""
    if not plan.quick or not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        return None
    try:
        array = np.asarray(rows)
    except ValueError:  # ragged: the careful path says where
        return None
    return _from_array(array, plan) if array.dtype.kind in "fiu" and array.size else None


def _from_array(array: Array, plan: Plan) -> dict[str, Array]:
    signature = plan.signature
    if array.dtype.names:
        raise BadInput("Structured arrays are not taken: send a data frame or a dict of columns.")
    if not signature.inputs:
        one = array.reshape(1, -1) if array.ndim < 2 else array
        return {"input": cast(TensorSpec("input", "FP64", (-1,)), one)}
    if plan.columns:
        table = array.reshape(1, -1) if array.ndim == 1 else array
        specs = signature.inputs
        if table.ndim != 2 or table.shape[1] != len(specs):
            raise BadInput(
                f"The rows have the shape {list(array.shape)}, and the model takes "
                f"{len(specs)} columns: {listed([spec.name for spec in specs])}."
            )
        return {spec.name: _column(spec, table[:, at]) for at, spec in enumerate(specs)}
    if plan.single is None:
        raise BadInput(
            f"The model has several inputs: send a dict by their names: {listed(list(plan.names))}."
        )
    return {plan.single.name: _tensor(plan.single, array)}


def _from_mapping(rows: Mapping[Any, Any], plan: Plan) -> dict[str, Array]:
    """One row by names, or whole columns or inputs by names."""
    named = {str(name): value for name, value in rows.items()}
    if not named:
        raise BadInput("There is no input: send at least one.")
    single, features = plan.single, plan.signature.feature_names
    if single is not None and not plan.columns and not (features and named.keys() == {*features}):
        if len(named) == 1:  # a model with one input accepts it under any name
            return {single.name: _tensor(single, _array(single, next(iter(named.values()))))}
        if not features:
            match_names([single.name], named)
    scalars = [name for name, value in named.items() if not _is_list(value)]
    if scalars and len(scalars) < len(named) and (plan.columns or single is not None):
        raise BadInput(f"Some names have one value and others a list: {listed(scalars)}.")
    if scalars and (plan.columns or single is not None):
        return predict.from_records([{name: _plain(value) for name, value in named.items()}], plan)
    if plan.columns:
        match_names([spec.name for spec in plan.signature.inputs], named)
        return {s.name: _column(s, _array(s, named[s.name])) for s in plan.signature.inputs}
    if single is not None:
        match_names(features, named)
        columns = [_array(single, named[name]) for name in features]
        if len({len(column) for column in columns}) > 1:
            raise BadInput("The columns have different lengths.")
        return {single.name: _tensor(single, np.column_stack(columns))}
    if not plan.signature.inputs:
        return {name: cast(TensorSpec(name, "FP64", (-1,)), np.atleast_1d(np.asarray(value)))
                for name, value in named.items()}  # fmt: skip
    match_names(list(plan.names), named)
    return {s.name: _tensor(s, _array(s, named[s.name])) for s in plan.signature.inputs}


def _from_frame(frame: Any, plan: Plan) -> dict[str, Array]:
    """Columns by name; by position where the model or the frame has no names."""
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        raise BadInput("The data frame has two columns of one name.")
    numbered = list(frame.columns) == list(range(len(names)))
    if plan.columns:
        wanted = [spec.name for spec in plan.signature.inputs]
    else:
        wanted = list(plan.signature.feature_names)
    if numbered or not wanted:
        if plan.single is None and not plan.columns and plan.signature.inputs:
            return _from_mapping({name: frame[name].to_numpy() for name in frame.columns}, plan)
        return _from_array(frame.to_numpy(), plan)
    match_names(wanted, dict.fromkeys(names))
    original = dict(zip(names, frame.columns, strict=True))
    ordered = [frame[original[name]].to_numpy() for name in wanted]
    if plan.columns:
        specs = plan.signature.inputs
        return {s.name: _column(s, values) for s, values in zip(specs, ordered, strict=True)}
    assert plan.single is not None
    return {plan.single.name: _tensor(plan.single, np.column_stack(ordered))}


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (_is_array(value) and np.ndim(value) > 0)


def _array(spec: TensorSpec, value: Any) -> Array:
    """A value as an array, whatever its type."""
    try:
        return np.asarray(value, dtype=object) if spec.datatype == "BYTES" else np.asarray(value)
    except ValueError:
        raise BadInput(f"Input {show(spec.name)}: the lists are not all of one shape.") from None


def _column(spec: TensorSpec, values: Array) -> Array:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise BadInput(f"Input {show(spec.name)} takes one value a row.")
    return cast(spec, values).reshape((len(values), *(1 for _ in spec.shape[1:])))


def _tensor(spec: TensorSpec, array: Array) -> Array:
    """One input; an array of one dimension less than the input has is one row."""
    if array.ndim == len(spec.shape) - 1:
        array = array[np.newaxis]
    elif spec.shape[1:] == () and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    check_shape(spec.name, array.shape, spec.shape)
    return cast(spec, array)


def cast(spec: TensorSpec, array: Array) -> Array:
    """The array in the input's datatype, if no value changes its meaning. Raises `BadInput`."""
    if array.dtype.kind == "b" and spec.datatype not in ("BOOL", "BYTES"):
        array = array.astype(np.int8)
    native = array.dtype.newbyteorder("=")
    if array.dtype.kind in "fiub" and native in OIP_OF and spec.datatype != "BOOL":
        return tensors.cast(
            spec.name, array.astype(native, copy=False), OIP_OF[native], spec.datatype
        )
    values = _plain(array.ravel())
    return tensors.from_values(spec.name, values, spec.datatype).reshape(array.shape)


def _plain(value: Any) -> Any:
    """Numpy values, tuples and missing values as JSON's own kinds."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    if _is_array(value):
        return _plain(np.asarray(value))
    return str(value)
