"""The Open Inference Protocol's infer request: JSON and binary tensors.

The usual request (one float tensor, no parameters) is decoded straight into typed structs; all
else, and all that is wrong, goes through the careful decoder, which also words the errors.
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hotswap.core.datatypes import INTEGERS, NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Limits
from hotswap.errors import BadInput
from hotswap.ports import Array
from hotswap.server.bodies import check_json, decode_json
from hotswap.server.calls import check_rows, common_rows, match_names, refuse_half_floats
from hotswap.server.plans import Plan
from hotswap.server.tensors import (
    cast,
    check_shape,
    element_count,
    flatten,
    from_raw,
    from_values,
    known_datatype,
    shape_fits,
    show,
)

#: Parameters whose meaning this server would have to honour and does not.
_REFUSED = {
    "classification": "Classification of outputs",
    "priority": "Priority",
    "sequence_end": "Sequences",
    "sequence_id": "Sequences",
    "sequence_start": "Sequences",
    "shared_memory_byte_size": "Shared memory",
    "shared_memory_offset": "Shared memory",
    "shared_memory_region": "Shared memory",
}


class _QuickOutput(msgspec.Struct):
    name: str
    parameters: Any = None


class _FlatInput(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float | None]
    parameters: Any = None


class _RowsInput(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[list[float | None]]
    parameters: Any = None


class _Flat(msgspec.Struct):
    inputs: tuple[_FlatInput]
    id: str = ""
    outputs: list[_QuickOutput] | None = None
    parameters: Any = None


class _Rows(msgspec.Struct):
    inputs: tuple[_RowsInput]
    id: str = ""
    outputs: list[_QuickOutput] | None = None
    parameters: Any = None


# One pass each: which of them fits is told by two bytes. The wrong one only fails.
_decode_flat = msgspec.json.Decoder(_Flat).decode
_decode_rows = msgspec.json.Decoder(_Rows).decode


class Call:
    """A decoded infer request.

    ``outputs`` are the names asked for (empty: all). ``binary`` says for each output asked for
    whether it is wanted raw; ``all_binary`` is for those not named. ``timeout`` in seconds is
    the request's own ``timeout`` parameter, None if absent.
    """

    __slots__ = ("all_binary", "binary", "id", "inputs", "outputs", "rows", "timeout")

    def __init__(
        self, inputs: dict[str, Array], rows: int, outputs: tuple[str, ...] = (), id: str = ""
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.outputs = outputs
        self.id = id
        self.all_binary = False
        self.binary: dict[str, bool] = {}
        self.timeout: float | None = None


def decode(body: bytes, header_length: bytes | None, plan: Plan, limits: Limits) -> Call:
    """The call that ``body`` makes; ``header_length`` is Inference-Header-Content-Length.

    Raises `BadInput` (or `TooLarge`) saying what is wrong.
    """
    if header_length is None:
        if plan.quick:
            check_json(body, limits)
            call = _decode_quickly(body, plan, limits)
            if call is not None:
                return call
        return _decode_carefully(decode_json(body, limits), memoryview(b""), plan, limits)
    length = _header_length(header_length, len(body))
    if length == 0:
        return _decode_raw(body, plan, limits)
    request = decode_json(body[:length], limits)
    return _decode_carefully(request, memoryview(body)[length:], plan, limits)


def _decode_quickly(body: bytes, plan: Plan, limits: Limits) -> Call | None:
    """The usual request, or None if this body is any other (or wrong)."""
    request: _Flat | _Rows
    try:
        request = _decode_rows(body) if b"[[" in body else _decode_flat(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    given = request.inputs[0]
    shape = given.shape
    if request.parameters is not None or given.parameters is not None or not shape:
        return None
    rows = shape[0]
    if (
        shape[1:] != plan.tail
        or not 0 < rows <= limits.rows
        or given.datatype not in ("FP32", "FP64")
    ):
        return None
    outputs: tuple[str, ...] = ()
    if request.outputs:
        outputs = tuple([output.name for output in request.outputs])
        if any(output.parameters is not None for output in request.outputs):
            return None
        if outputs not in plan.asked:
            plan.allow(_output_names(outputs, plan.signature))
    values = _quick_values(given.data, rows, plan.width)
    if values is None:
        return None
    array = plan.floats(values, rows)
    if array is None:
        return None
    if plan.half:
        refuse_half_floats(plan.signature, outputs)
    return Call({plan.name: array}, rows, outputs, request.id)


def _quick_values(
    data: list[float | None] | list[list[float | None]], rows: int, width: int
) -> list[float | None] | None:
    """``rows * width`` numbers that were sent flat or as rows, or None if they were not."""
    if not data or type(data[0]) is not list:
        flat = typing.cast("list[float | None]", data)
        return flat if len(flat) == rows * width else None
    nested = data
    if len(nested) != rows:
        return None
    if rows == 1:
        return nested[0] if len(nested[0]) == width else None
    if any(len(row) != width for row in nested):
        return None
    return list(itertools.chain.from_iterable(nested))


def _header_length(value: bytes, available: int) -> int:
    text = value.strip()
    if not text.isdigit() or len(text) > 18 or int(text) > available:
        raise BadInput(
            "Inference-Header-Content-Length must be the number of bytes of JSON that the body "
            f"begins with, from 0 to {available}."
        )
    return int(text)


def _decode_raw(body: bytes, plan: Plan, limits: Limits) -> Call:
    """A body that is one input's bytes alone: the shape comes from the signature."""
    spec = plan.single
    if spec is None or (plan.signature.kind == "table" and len(plan.signature.inputs) != 1):
        raise BadInput("A body without JSON is for models with one input; this model has more.")
    tail = spec.shape[1:]
    if any(size < 0 for size in tail):
        raise BadInput(
            f"Input {show(spec.name)} has the shape {list(spec.shape)}: with more than the batch "
            "open, a body without JSON does not tell its shape."
        )
    width = element_count(spec.name, tail)
    if spec.datatype == "BYTES":
        if width != 1:
            raise BadInput("A body without JSON can hold one BYTES element only.")
        framed = len(body).to_bytes(4, "little") + body
        array = from_raw(spec.name, memoryview(framed), "BYTES", (1, *tail))
        rows = 1
    else:
        size = width * NUMPY_OF[spec.datatype].itemsize
        if not size or not body or len(body) % size:
            raise BadInput(
                f"Input {show(spec.name)}: a row is {size} bytes of {spec.datatype}, and "
                f"{len(body)} bytes are no whole number of rows."
            )
        rows = len(body) // size
        array = from_raw(spec.name, memoryview(body), spec.datatype, (rows, *tail))
    call = Call({spec.name: array}, check_rows(rows, limits))
    call.all_binary = True
    return call


def _decode_carefully(request: object, raw: memoryview, plan: Plan, limits: Limits) -> Call:
    if not isinstance(request, dict):
        raise BadInput('The body must be a JSON object with "inputs".')
    given = request.get("inputs")
    if not isinstance(given, list) or not given:
        raise BadInput('"inputs" must be a list of at least one tensor.')
    identity = request.get("id", "")
    if not isinstance(identity, str):
        raise BadInput('"id" must be text.')
    parameters = _parameters(request, "The request")
    tensors: dict[str, tuple[_Sent, str]] = {}
    at = 0
    for item in given:
        name, array, datatype, used = _input(item, raw[at:])
        if name in tensors:
            raise BadInput(f"Input {show(name)} was sent twice.")
        tensors[name] = (array, datatype)
        at += used
    if at != len(raw):
        raise BadInput(f"{len(raw) - at} bytes after the JSON belong to no input.")
    inputs = _fit(tensors, plan)
    call = Call(inputs, common_rows(inputs, limits), (), identity)
    call.all_binary = _flag(parameters, "binary_data_output")
    call.timeout = _timeout(parameters)
    _read_outputs(request.get("outputs"), call, plan.signature)
    return call


def _parameters(holder: Mapping[str, Any], what: str) -> dict[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadInput(f'{what}: "parameters" must be an object.')
    for key, value in parameters.items():
        if not isinstance(value, str | bool | int | float):
            raise BadInput(f"{what}: parameter {show(key)} must be text, a number, or a boolean.")
        if key in _REFUSED and value not in (0, False):
            raise BadInput(f"{_REFUSED[key]} (parameter {show(key)}) is not supported here.")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise BadInput(f"Parameter {show(name)} must be true or false.")
    return value


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    """The ``timeout`` parameter (microseconds, 0 for none) in seconds."""
    value = parameters.get("timeout")
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise BadInput("Parameter 'timeout' must be a whole number of microseconds.")
    return value / 1e6 if value else None


class _Json:
    """Values that wait for the datatype they are wanted in: 0.1 must not pass through FP32."""

    __slots__ = ("shape", "values")

    def __init__(self, values: list[Any], shape: tuple[int, ...]) -> None:
        self.values = values
        self.shape = shape


_Sent = _Json | Array


def _input(item: object, raw: memoryview) -> tuple[str, _Sent, str, int]:
    """One input: its name, its array as sent, its datatype, and how many raw bytes it used."""
    if not isinstance(item, dict):
        raise BadInput('Each of "inputs" must be an object with name, shape, datatype and data.')
    name = item.get("name")
    if not isinstance(name, str):
        raise BadInput("An input has no name.")
    datatype = known_datatype(name, item.get("datatype"))
    shape = item.get("shape")
    if not isinstance(shape, list):
        raise BadInput(f'Input {show(name)}: "shape" must be a list of whole numbers.')
    count = element_count(name, shape)
    parameters = _parameters(item, f"Input {show(name)}")
    size = parameters.get("binary_data_size")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(raw):
            raise BadInput(f"Input {show(name)}: binary_data_size is not within the body.")
        if "data" in item:
            raise BadInput(f'Input {show(name)} has both "data" and binary_data_size.')
        return name, from_raw(name, raw[:size], datatype, tuple(shape)), datatype, size
    if "data" not in item:
        raise BadInput(f'Input {show(name)} has no "data".')
    if datatype in ("FP16", "BF16"):
        raise BadInput(f"Input {show(name)}: send {datatype} as raw bytes; JSON has no such type.")
    values, nested = flatten(name, item["data"])
    wanted = tuple(shape)
    if len(values) != count or (len(nested) > 1 and nested != wanted):
        raise BadInput(
            f"Input {show(name)}: the data has the shape {list(nested)}, which is not "
            f"the shape {list(wanted)} that was given."
        )
    return name, _Json(values, wanted), datatype, 0


def _fit(tensors: dict[str, tuple[_Sent, str]], plan: Plan) -> dict[str, Array]:
    """The sent tensors as the signature's inputs."""
    signature = plan.signature
    if not signature.inputs:
        return {name: _materialise(name, *sent) for name, sent in tensors.items()}
    if len(tensors) == 1:
        name, (sent, datatype) = next(iter(tensors.items()))
        if plan.single is not None:
            return {plan.single.name: _as_input(name, sent, datatype, plan.single, signature)}
        wanted = (-1, len(signature.inputs))
        if plan.columns and name not in plan.names and shape_fits(sent.shape, wanted):
            return _split(name, sent, datatype, signature)
    match_names([spec.name for spec in signature.inputs], tensors)
    return {
        spec.name: _as_input(spec.name, *tensors[spec.name], spec, signature)
        for spec in signature.inputs
    }


def _materialise(name: str, sent: _Sent, datatype: str) -> Array:
    if isinstance(sent, _Json):
        return from_values(name, sent.values, datatype).reshape(sent.shape)
    return sent


def _as_input(
    name: str, sent: _Sent, datatype: str, spec: TensorSpec, signature: Signature
) -> Array:
    shape: tuple[int, ...] = sent.shape
    if signature.kind == "table" and len(shape) == 2 and shape[1] == 1:
        shape = shape[:1]
    check_shape(name, shape, spec.shape)
    if isinstance(sent, _Json):
        if (datatype == "BYTES") != (spec.datatype == "BYTES"):
            raise BadInput(f"Input {show(name)} is {spec.datatype}, and {datatype} was sent.")
        return _from_json(name, sent.values, datatype, spec.datatype).reshape(shape)
    return cast(name, sent, datatype, spec.datatype).reshape(shape)


def _from_json(name: str, values: list[Any], sent: str, wanted: str) -> Array:
    """Values sent as one datatype, as another. Raises `BadInput` unless they agree with both."""
    if sent in INTEGERS and sent != wanted:
        try:
            whole = from_values(name, values, sent)
        except BadInput:
            raise BadInput(
                f"Input {show(name)} was sent as {sent}, and its data does not agree with that: "
                f"send whole numbers in the range of {sent}, or name another datatype."
            ) from None
        if wanted != "BOOL":  # which takes JSON's 0 and 1, whatever they are called
            return cast(name, whole, sent, wanted)
    if sent == "BOOL" and wanted != "BOOL":
        raise BadInput(f"Input {show(name)} is {wanted}, and BOOL was sent.")
    return from_values(name, values, wanted)


def _split(name: str, sent: _Sent, datatype: str, signature: Signature) -> dict[str, Array]:
    """One 2-D tensor as the columns of a table, in the signature's order."""
    rows = sent.shape[0]
    array = _materialise(name, sent, datatype)
    return {
        spec.name: cast(spec.name, array[:, at], datatype, spec.datatype).reshape(
            (rows, *(1 for _ in spec.shape[1:]))
        )
        for at, spec in enumerate(signature.inputs)
    }


def _output_names(names: Sequence[str], signature: Signature) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise BadInput("An output was asked for twice.")
    if signature.outputs:
        known = [spec.name for spec in signature.outputs]
        for name in names:
            if name not in known:
                raise BadInput(
                    f"There is no output {show(name)}; the model has "
                    f"{', '.join(show(other) for other in known[:20])}."
                )
    return tuple(names)


def _read_outputs(asked: object, call: Call, signature: Signature) -> None:
    if asked is None or asked == []:
        if not call.all_binary:
            refuse_half_floats(signature, ())
        return
    if not isinstance(asked, list):
        raise BadInput('"outputs" must be a list of objects with a name.')
    names: list[str] = []
    for item in asked:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise BadInput('Each of "outputs" must be an object with a name.')
        parameters = _parameters(item, f"Output {show(name)}")
        names.append(name)
        call.binary[name] = (
            _flag(parameters, "binary_data") if "binary_data" in parameters else call.all_binary
        )
    call.outputs = _output_names(names, signature)
    json_names = [name for name in names if not call.binary[name]]
    if json_names:
        refuse_half_floats(signature, json_names)
