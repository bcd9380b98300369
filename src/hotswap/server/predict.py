"""The simple prediction format: ``{"features": ...}`` in, prediction and probabilities out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from hotswap.core.signature import TensorSpec
from hotswap.core.spec import Limits
from hotswap.errors import BadInput
from hotswap.ports import Array
from hotswap.server.bodies import check_json, decode_json
from hotswap.server.calls import (
    columns_from_lists,
    columns_from_rows,
    common_rows,
    listed,
    match_names,
    tensor,
    untyped,
)
from hotswap.server.plans import Plan
from hotswap.server.tensors import outgoing, show, to_values

_encode = msgspec.json.Encoder().encode


class Quick(msgspec.Struct, forbid_unknown_fields=True):
    """The usual body: one row of numbers."""

    features: list[float | None]
    model: str | None = None
    version: str | None = None
    request_id: str | None = None


class Body(msgspec.Struct):
    """Any other body, with the names checked and the features still as they came."""

    features: Any
    model: str | None = None
    version: str | None = None
    request_id: str | None = None


_decode_quick = msgspec.json.Decoder(Quick).decode


def parse(body: bytes, limits: Limits) -> Quick | Body:
    """The body's fields. Raises `BadInput` saying what is wrong."""
    check_json(body, limits)
    try:
        return _decode_quick(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    request = decode_json(body, limits)
    if not isinstance(request, dict) or "features" not in request:
        raise BadInput('The body must be a JSON object with "features".')
    for key, value in request.items():
        if key not in ("features", "model", "version", "request_id"):
            raise BadInput(
                f"{show(key)} is not known here: send features, and if you like model, version "
                "and request_id."
            )
        if key != "features" and value is not None and not isinstance(value, str):
            raise BadInput(f'"{key}" must be text.')
    return Body(**request)


def decode(parsed: Quick | Body, plan: Plan, limits: Limits) -> tuple[dict[str, Array], int, bool]:
    """The inputs, the number of rows, and whether the features were one row alone."""
    features = parsed.features
    if plan.quick and type(parsed) is Quick and plan.tail == [len(features)]:
        array = plan.floats(features, 1)
        if array is not None:
            return {plan.name: array}, 1, True
    inputs, alone = _inputs(features, plan)
    return inputs, common_rows(inputs, limits), alone


def _inputs(features: object, plan: Plan) -> tuple[dict[str, Array], bool]:
    if isinstance(features, dict):
        return from_records([features], plan), True
    if not isinstance(features, list):
        if plan.single is not None and plan.single.shape[1:] == ():
            return _from_list([features], plan)
        raise BadInput('"features" must be a list, a list of rows, an object or a list of objects.')
    if not features:
        raise BadInput('"features" is empty: send at least one row.')
    if isinstance(features[0], dict):
        for row in features:
            if not isinstance(row, dict):
                raise BadInput('"features" mixes objects with other rows.')
        return from_records(features, plan), False
    return _from_list(features, plan)


def _from_list(features: list[Any], plan: Plan) -> tuple[dict[str, Array], bool]:
    if not plan.signature.inputs:
        return untyped("input", features)
    if plan.columns:
        alone = not isinstance(features[0], list)
        rows = [features] if alone else features
        for row in rows:
            if not isinstance(row, list):
                raise BadInput('"features" mixes lists with other rows.')
        return columns_from_rows(plan, rows), alone
    if plan.single is None:
        raise BadInput(
            "The model has several inputs: send an object by their names: "
            f"{listed(list(plan.names))}."
        )
    array, alone = tensor(plan.single, features)
    return {plan.single.name: array}, alone


def from_records(records: list[dict[str, Any]], plan: Plan) -> dict[str, Array]:
    """The inputs from objects by name, one a row: columns, features of one tensor, or whole inputs."""
    signature = plan.signature
    if not signature.inputs:
        raise BadInput("The names of this model's inputs are not known: send a list of values.")
    if plan.single is not None and not plan.columns and not signature.feature_names:
        own, given = plan.single.name, list(records[0])
        if len(given) != 1 or any(record.keys() != {given[0]} for record in records):
            raise BadInput(
                "The names of this model's features are not known: send each row as a list of "
                f"its values, or the whole row by one name, such as {own!r}."
            )
        return {own: _stack(plan.single, [record[given[0]] for record in records])}
    if plan.columns:
        names = [spec.name for spec in signature.inputs]
    elif plan.single is not None:
        names = list(signature.feature_names)
    else:
        names = list(plan.names)
    for record in records:
        if record.keys() != set(names):
            match_names(names, record)
    if plan.columns:
        return columns_from_lists(
            plan, {name: [record[name] for record in records] for name in names}
        )
    if plan.single is not None and signature.feature_names:
        rows = [[record[name] for name in names] for record in records]
        return {plan.single.name: tensor(plan.single, rows)[0]}
    return {
        spec.name: _stack(spec, [record[spec.name] for record in records])
        for spec in signature.inputs
    }


def _stack(spec: TensorSpec, rows: list[Any]) -> Array:
    """One input from one value (of a row's shape) a row."""
    if spec.shape[1:] == ():
        return tensor(spec, [[row] for row in rows])[0]
    return tensor(spec, rows)[0]


def prediction(result: Mapping[str, Array]) -> tuple[Any, Any]:
    """Every row's prediction and probabilities (None if the model gives none), as JSON values.

    ``predict`` and ``predict_proba`` where the outputs have these names; else the only output,
    or one object a row with all of them.
    """
    probabilities = result.get("predict_proba")
    main = result.get("predict")
    if main is None:
        others = [name for name in result if name != "predict_proba"]
        if not others:
            return _rows(next(iter(result.values()))), None
        if len(others) > 1:
            columns = {name: _rows(result[name]) for name in others}
            rows = [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
            return rows, None if probabilities is None else to_values(probabilities)
        main = result[others[0]]
    return _rows(main), None if probabilities is None else to_values(probabilities)


def _rows(array: Array) -> Any:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array.reshape(-1)
    return to_values(outgoing(array))


def encode(
    result: Mapping[str, Array], alone: bool, model: str, version: str, request_id: str
) -> bytes:
    """The answer's JSON."""
    values, probabilities = prediction(result)
    if alone:
        head = b'{"prediction":' + _encode(values[0])
        if probabilities is not None:
            head += b',"probabilities":' + _encode(probabilities[0])
    else:
        head = b'{"predictions":' + _encode(values)
        if probabilities is not None:
            head += b',"probabilities":' + _encode(probabilities)
    return b'%b%b,"request_id":%b}' % (head, _named(model, version), _encode(request_id))


@functools.lru_cache(maxsize=1024)
def _named(model: str, version: str) -> bytes:
    return b',"model":%b,"version":%b' % (_encode(model), _encode(version))
