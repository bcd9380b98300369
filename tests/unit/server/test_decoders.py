"""Whatever bytes come, the data plane answers, and never with its own failure."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import BadInput
from hotswap.server.app import DataApp
from hotswap.server.bodies import check_depth
from hotswap.server.messages import Request
from hotswap.server.tensors import cast, flatten, from_raw, to_raw
from hotswap.testing.fakes import FakeModel, FakePlane, table_signature, tensor_signature

SIGNATURES = [
    tensor_signature(2, "FP32"),
    tensor_signature(2, "FP64"),
    table_signature(),
    Signature((TensorSpec("x", "INT8", (-1, -1)),), ()),
    Signature((TensorSpec("x", "BYTES", (-1,)),), ()),
    Signature((TensorSpec("x", "FP16", (-1, 1)), TensorSpec("t", "BOOL", (-1, 2))), ()),
    Signature((), (), unvalidated=True),
]
PATHS = ["/v2/models/demo/infer", "/predict", "/invocations", "/v2/repository/index"]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
KEYS = st.sampled_from(
    [
        "features",
        "inputs",
        "instances",
        "dataframe_split",
        "dataframe_records",
        "data",
        "columns",
        "name",
        "shape",
        "datatype",
        "parameters",
        "binary_data_size",
        "id",
        "outputs",
        "model",
        "age",
        "income",
        "city",
        "member",
        "x",
        "t",
        "request_id",
        "ready",
        "params",
        "version",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "t", "age", "income", "city", "member"]),
        "shape": st.lists(st.integers(-1, 3), max_size=3) | VALUES,
        "datatype": st.sampled_from(list(NUMPY_OF)) | VALUES,
    },
    optional={
        "data": st.lists(SCALARS, max_size=6) | VALUES,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size"]), st.integers(-1, 30), max_size=1
        )
        | VALUES,
    },
)
INFER = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=4)},
    optional={"id": VALUES, "outputs": VALUES, "parameters": VALUES},
)
FEATURES = st.fixed_dictionaries(
    {"features": st.lists(st.lists(SCALARS, min_size=2, max_size=4), max_size=3) | VALUES}
)
JSON = (INFER | FEATURES | VALUES | st.dictionaries(KEYS, VALUES, max_size=3)).map(
    msgspec.json.encode
)
BODIES = st.binary(max_size=200) | JSON | st.text(max_size=100).map(lambda text: text.encode())


def answer(signature: Signature, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
    plane = FakePlane({"demo": FakeModel(signature)})
    request = Request("POST", path, headers, body, time.monotonic())
    result = asyncio.run(DataApp(plane).respond(request))
    assert result.status < 500, result.body
    assert plane.held == 0
    if result.status >= 400:
        assert msgspec.json.decode(result.body)["error"]
    for call in plane.calls:
        for name, array in call.inputs.items():
            assert len(array) == call.rows >= 1
            spec = signature.input(name)
            assert spec is None or array.dtype == NUMPY_OF[spec.datatype]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SIGNATURES), st.sampled_from(PATHS), BODIES)
def test_any_json(signature: Signature, path: str, body: bytes) -> None:
    """JSON, near-JSON and noise: an answer below 500 and no lease left over."""
    answer(signature, path, {}, body)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SIGNATURES), INFER | VALUES, st.binary(max_size=40), st.integers(-2, 2))
def test_any_binary_request(signature: Signature, head: Any, tail: bytes, off: int) -> None:
    """JSON with raw tensors behind it, its length right or nearly so."""
    json = msgspec.json.encode(head)
    length = str(len(json) + off).encode()
    answer(signature, PATHS[0], {b"inference-header-content-length": length}, json + tail)
    answer(signature, PATHS[0], {b"inference-header-content-length": b"0"}, tail)


CELLS = st.sampled_from(["1", "2.5", "", "x", "true", '"', '"a,b"', "nan", "age", "city", "1e999"])


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SIGNATURES),
    st.lists(st.lists(CELLS, max_size=5).map(",".join), max_size=4).map("\n".join),
)
def test_any_csv(signature: Signature, text: str) -> None:
    """CSV of any shape."""
    answer(signature, "/invocations", {b"content-type": b"text/csv"}, text.encode())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["gzip", "deflate", "br", ""]), st.binary(max_size=100))
def test_any_compressed_body(coding: str, body: bytes) -> None:
    """Noise that claims to be compressed."""
    answer(SIGNATURES[0], "/predict", {b"content-encoding": coding.encode()}, body)


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.text(max_size=4), lambda inner: st.lists(inner, max_size=3), max_leaves=30))
def test_depth_is_exact(value: Any) -> None:
    """The depth counted in bytes is the document's own, whatever its strings hold."""

    def depth(item: Any) -> int:
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    # Brackets, quotes and backslashes in strings are not structure.
    wrapped = [value, '[[[{{{"\\', "\\\\"]
    body = msgspec.json.encode(wrapped)
    check_depth(body, depth(wrapped))
    with pytest.raises(BadInput, match="nested deeper"):
        check_depth(body, depth(wrapped) - 1)


def test_depth_of_large_bodies_is_found_in_linear_time() -> None:
    """Megabytes of quotes, backslashes and brackets do not stall the check."""
    for body in (b'"\\' * 2_000_000, b'"' * 4_000_001, b"[]" * 2_000_000, b'\\"[' * 1_000_000):
        check_depth(body, 64)
    with pytest.raises(BadInput, match="nested deeper"):
        check_depth(b"[]" * 3_000_000 + b"[" * 65, 64)


@given(st.sampled_from([name for name in NUMPY_OF if name != "BF16"]), st.data())
def test_raw_round_trip(datatype: str, data: st.DataObject) -> None:
    """What is sent raw comes back raw, byte for byte."""
    if datatype == "BYTES":
        values = data.draw(st.lists(st.binary(max_size=6), max_size=5))
        array = np.empty(len(values), dtype=object)
        array[:] = values
    else:
        dtype = NUMPY_OF[datatype]
        count = data.draw(st.integers(0, 5))
        raw = data.draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
        array = np.frombuffer(raw, dtype=np.uint8 if datatype == "BOOL" else dtype)
        array = array.astype(bool) if datatype == "BOOL" else array
    sent = to_raw(array)
    assert to_raw(from_raw("x", memoryview(sent), datatype, array.shape)) == sent


@given(st.sampled_from(["INT8", "UINT16", "INT64", "UINT64", "FP32", "FP64"]), st.data())
def test_casts_keep_values_or_refuse(wanted: str, data: st.DataObject) -> None:
    """A cast between whole numbers and floats gives equal integers or a refusal."""
    sent = data.draw(st.sampled_from(["INT64", "UINT64", "FP64"]))
    element = (
        st.floats(allow_nan=False)
        if sent == "FP64"
        else st.integers(np.iinfo(NUMPY_OF[sent]).min, np.iinfo(NUMPY_OF[sent]).max)
    )
    array = np.array(data.draw(st.lists(element, min_size=1, max_size=4)), dtype=NUMPY_OF[sent])
    try:
        result = cast("x", array, sent, wanted)
    except BadInput:
        return
    assert result.dtype == NUMPY_OF[wanted]
    if wanted not in ("FP32", "FP64"):
        assert [int(value) for value in result] == [int(value) for value in array]


@given(st.recursive(st.integers(0, 3), lambda inner: st.lists(inner, max_size=3), max_leaves=12))
def test_flatten_agrees_with_numpy(value: Any) -> None:
    """Nested lists have numpy's shape, or are refused where numpy finds them ragged."""
    try:
        expected: Any = np.array(value)
    except ValueError:
        expected = None
    try:
        values, shape = flatten("x", value)
    except BadInput:
        assert expected is None
        return
    assert expected is not None
    assert shape == expected.shape
    assert values == expected.ravel().tolist()
