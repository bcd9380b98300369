"""The Open Inference Protocol's infer response: JSON and binary tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import msgspec

from hotswap.ports import Array
from hotswap.server.infer import Call
from hotswap.server.plans import Plan
from hotswap.server.tensors import outgoing, output_datatype, to_raw, to_values

_encode = msgspec.json.Encoder().encode


@functools.lru_cache(maxsize=1024)
def _answer_head(model: str, version: str) -> bytes:
    return b'{"model_name":%b,"model_version":%b' % (_encode(model), _encode(version))


def encode(
    call: Call, result: Mapping[str, Array], model: str, version: str, plan: Plan
) -> tuple[bytes, int | None]:
    """The answer's body, and its JSON part's length if outputs follow it raw."""
    head = _answer_head(model, version)
    if call.id:
        head += b',"id":' + _encode(call.id)
    names = call.outputs or result
    if not call.all_binary and not call.binary:
        outputs = b",".join([_json_output(name, result[name], plan) for name in names])
        return b'%b,"outputs":[%b]}' % (head, outputs), None
    parts: list[bytes] = []
    raws: list[bytes] = []
    for name in names:
        if not call.binary.get(name, call.all_binary):
            parts.append(_json_output(name, result[name], plan))
            continue
        array = outgoing(result[name])
        raw = to_raw(array)
        raws.append(raw)
        start = _output_head(name, array, plan)
        parts.append(
            b'%b%b,"parameters":{"binary_data_size":%d}}' % (start, _encode(array.shape), len(raw))
        )
    body = b'%b,"outputs":[%b]}' % (head, b",".join(parts))
    if raws:
        return body + b"".join(raws), len(body)
    return body, None


def _json_output(name: str, array: Array, plan: Plan) -> bytes:
    dtype = array.dtype
    start = plan.heads.get((name, dtype))
    if start is None:
        array = outgoing(array)
        start = _output_head(name, array, plan)
        if array.dtype is dtype and dtype.kind in "fiub":
            plan.remember(name, dtype, start)
        values = to_values(array.ravel())
    else:
        values = array.ravel().tolist()
    if array.ndim == 1:
        return b'%b[%d],"data":%b}' % (start, len(array), _encode(values))
    return b'%b%b,"data":%b}' % (start, _encode(array.shape), _encode(values))


def _output_head(name: str, array: Array, plan: Plan) -> bytes:
    datatype = output_datatype(array, plan.signature.output(name))
    return b'{"name":%b,"datatype":"%b","shape":' % (_encode(name), datatype.encode("ascii"))
