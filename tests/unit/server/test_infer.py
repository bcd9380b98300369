"""The Open Inference Protocol's infer route."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest

from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Limits
from hotswap.testing.fakes import table_signature, tensor_signature
from tests.unit.server.asgi_client import client_of, json_input

URL = "/v2/models/demo/infer"
ROW = [float(n) for n in range(30)]


def one(
    datatype: str, tail: tuple[int, ...] = (2,), outputs: tuple[TensorSpec, ...] = ()
) -> Signature:
    return Signature((TensorSpec("x", datatype, (-1, *tail)),), outputs)


async def test_answers_one_row_of_json() -> None:
    """Flat JSON data is answered with the protocol's names, the id echoed."""
    client, plane = client_of()
    reply = await client.post(URL, {"id": "r1", "inputs": [json_input(ROW, [1, 30])]})
    assert reply.status == 200
    assert reply.json() == {
        "model_name": "demo",
        "model_version": "v1",
        "id": "r1",
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [1], "data": [1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [1, 2], "data": [0.25, 0.75]},
        ],
    }
    assert reply.headers["x-hotswap-version"] == "v1"
    assert reply.headers["x-request-id"] == "r1"
    assert plane.calls[0].inputs["input"].tolist() == [ROW]
    assert plane.held == 0


async def test_nested_and_flat_data_are_the_same() -> None:
    """Nested lists, flat lists, another name and integers all reach the model alike."""
    client, plane = client_of()
    for data in (ROW * 2, [ROW, ROW], [int(n) for n in ROW * 2]):
        reply = await client.post(URL, {"inputs": [json_input(data, [2, 30], name="other")]})
        assert reply.status == 200
    first = plane.calls[0].inputs["input"]
    assert first.dtype == np.float64
    assert all(np.array_equal(call.inputs["input"], first) for call in plane.calls)
    assert all(call.rows == 2 for call in plane.calls)


async def test_pinned_version_is_leased() -> None:
    """A version in the path is the one that answers."""
    client, _ = client_of()
    reply = await client.post(
        "/v2/models/demo/versions/v2/infer", {"inputs": [json_input(ROW, [1, 30])]}
    )
    assert reply.json()["model_version"] == "v2"
    assert reply.headers["x-hotswap-version"] == "v2"


async def test_requested_outputs_only() -> None:
    """Only outputs that were asked for are answered, in their order; unknown ones are 400."""
    client, plane = client_of()
    body: dict[str, Any] = {
        "inputs": [json_input(ROW, [1, 30])],
        "outputs": [{"name": "predict_proba"}],
    }
    reply = await client.post(URL, body)
    assert [output["name"] for output in reply.json()["outputs"]] == ["predict_proba"]
    assert plane.calls[0].outputs == ("predict_proba",)
    body["outputs"] = [{"name": "nope"}]
    reply = await client.post(URL, body)
    assert reply.status == 400
    assert "'nope'" in reply.error
    assert "'predict'" in reply.error
    body["outputs"] = [{"name": "predict"}, {"name": "predict"}]
    assert (await client.post(URL, body)).status == 400


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
async def test_null_is_nan_in_float_inputs(datatype: str) -> None:
    """JSON's null is NaN."""
    client, plane = client_of(one(datatype))
    reply = await client.post(URL, {"inputs": [json_input([None, 1.5], [1, 2], datatype)]})
    assert reply.status == 200
    row = plane.calls[0].inputs["x"][0]
    assert math.isnan(row[0])
    assert row[1] == 1.5


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("BOOL", [True, False], [True, False]),
        ("BOOL", [1, 0], [True, False]),
        ("INT8", [-128, 127], [-128, 127]),
        ("UINT8", [0, 255], [0, 255]),
        ("INT16", [-1, 2.0], [-1, 2]),
        ("UINT16", [0, 65535], [0, 65535]),
        ("INT32", [1, 2], [1, 2]),
        ("UINT32", [0, 2**32 - 1], [0, 2**32 - 1]),
        ("INT64", [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1], [0, 2**64 - 1]),
        ("FP32", [1, 2.5], [1.0, 2.5]),
        ("FP64", [1, 1e300], [1.0, 1e300]),
        ("BYTES", ["a", "é"], [b"a", "é".encode()]),
    ],
)
async def test_every_json_datatype(datatype: str, data: list[Any], expected: list[Any]) -> None:
    """Each datatype that JSON can carry reaches the model unchanged."""
    client, plane = client_of(one(datatype))
    reply = await client.post(URL, {"inputs": [json_input(data, [1, 2], datatype)]})
    assert reply.status == 200, reply.body
    assert plane.calls[0].inputs["x"].tolist() == [expected]


@pytest.mark.parametrize(
    ("datatype", "sent", "data", "words"),
    [
        ("INT64", "FP64", [1.5, 2], "fraction"),
        ("INT8", "INT8", [128, 0], "range of INT8"),
        ("UINT8", "INT64", [-1, 0], "range of UINT8"),
        ("UINT8", "FP32", [1.5, 0], "fraction"),
        ("INT32", "FP64", [None, 0], "null"),
        ("FP64", "INT64", [1.5, 2], "sent as INT64"),
        ("FP32", "INT64", [1.5, 2], "sent as INT64"),
        ("FP32", "UINT8", [-1, 2], "range of UINT8"),
        ("FP64", "INT8", [128, 2], "range of INT8"),
        ("FP64", "UINT16", [None, 2], "sent as UINT16"),
        ("FP64", "INT32", [True, 2], "sent as INT32"),
        ("INT64", "INT8", [1000, 2], "sent as INT8"),
        ("FP64", "BOOL", [1, 0], "BOOL was sent"),
        ("INT64", "BOOL", [1.5, 0], "BOOL was sent"),
        ("INT64", "INT64", [2**63, 0], "range of INT64"),
        ("INT64", "INT64", [10**30, 0], "range of INT64"),
        ("INT64", "INT64", [None, 0], "null"),
        ("FP32", "FP32", [1e300, 0], "range of FP32"),
        ("FP64", "FP64", [10**400, 0], "range of FP64"),
        ("FP64", "FP64", ["1", 0], "text"),
        ("FP64", "FP64", [True, 0], "true or false"),
        ("FP64", "FP64", [{}, 0], "object"),
        ("FP64", "FP64", [[1], 0], "shape"),
        ("BOOL", "BOOL", [2, 0], "true and false"),
        ("BYTES", "BYTES", [1, "a"], "strings"),
        ("FP64", "BYTES", ["a", "b"], "BYTES was sent"),
        ("BYTES", "FP64", [1, 2], "FP64 was sent"),
        ("FP16", "FP16", [1, 2], "raw"),
        ("FP32", "BF16", [1, 2], "raw"),
        ("BF16", "FP32", [1, 2], "raw"),
        ("FP64", "FP65", [1, 2], "FP65"),
    ],
)
async def test_unsafe_values_are_refused(
    datatype: str, sent: str, data: list[Any], words: str
) -> None:
    """A value that would change its meaning is a 400 that says why."""
    client, plane = client_of(one(datatype))
    reply = await client.post(URL, {"inputs": [json_input(data, [1, 2], sent)]})
    assert reply.status == 400
    assert words in reply.error
    assert not plane.calls
    assert plane.held == 0


@pytest.mark.parametrize(
    ("datatype", "sent", "data"),
    [
        ("FP64", "INT64", [1, 2]),
        ("FP32", "UINT8", [1.0, 2]),
        ("INT64", "INT8", [1, 2]),
        ("INT8", "INT64", [1, 2]),
        ("INT64", "FP64", [1.0, 2.0]),
        ("UINT8", "FP32", [1, 2]),
        ("BOOL", "INT64", [1, 0]),
    ],
)
async def test_values_that_mean_the_same_in_both_datatypes(
    datatype: str, sent: str, data: list[Any]
) -> None:
    """Whole numbers go to floats and back; the model gets its own datatype."""
    client, plane = client_of(one(datatype))
    reply = await client.post(URL, {"inputs": [json_input(data, [1, 2], sent)]})
    assert reply.status == 200, reply.body
    array = plane.calls[0].inputs["x"]
    assert array.dtype == NUMPY_OF[datatype]
    assert array.tolist() == [data]


@pytest.mark.parametrize(
    ("shape", "count", "words"),
    [
        ([1, 29], 29, "[-1, 30]"),
        ([30], 30, "[30]"),
        ([1, 30], 29, "[29]"),
        ([1, 30, 1], 30, "[1, 30, 1]"),
        ([0, 30], 0, "no row"),
        ([-1, 30], 30, "whole numbers"),
        ([1.0, 30], 30, "whole numbers"),
        ([True, 30], 30, "whole numbers"),
        ([2**62, 2**62], 30, "too many"),
        ([1] * 40, 1, "dimensions"),
        ([], 1, "[]"),
        ("1,30", 30, "list"),
        (None, 30, "list"),
    ],
)
async def test_shapes_are_checked(shape: Any, count: int, words: str) -> None:
    """A wrong shape is a 400 that names what was expected and what came."""
    client, _ = client_of()
    reply = await client.post(URL, {"inputs": [json_input([1.0] * count, shape)]})
    assert reply.status == 400
    assert words in reply.error


async def test_too_many_rows() -> None:
    """More rows than the limit are a 413."""
    client, _ = client_of(limits=Limits(rows=2))
    reply = await client.post(URL, {"inputs": [json_input(ROW * 3, [3, 30])]})
    assert reply.status == 413


def binary(header: dict[str, Any], *buffers: bytes) -> tuple[bytes, dict[str, str]]:
    head = msgspec.json.encode(header)
    return head + b"".join(buffers), {"Inference-Header-Content-Length": str(len(head))}


def raw_input(name: str, shape: list[int], datatype: str, size: Any) -> dict[str, Any]:
    return {
        "name": name,
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }


@pytest.mark.parametrize(
    "dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?"]
)
async def test_raw_inputs_of_every_width(dtype: str) -> None:
    """Raw little-endian bytes reach the model as what they are."""
    names = {"u": "UINT", "i": "INT", "f": "FP", "?": "BOOL"}
    array = np.array([[1, 0], [1, 1]], dtype=dtype)
    datatype = names[dtype[0]] + (str(array.itemsize * 8) if dtype != "?" else "")
    client, plane = client_of(one(datatype))
    body, headers = binary(
        {"inputs": [raw_input("x", [2, 2], datatype, array.nbytes)]}, array.tobytes()
    )
    reply = await client.post(URL, body, headers)
    assert reply.status == 200, reply.body
    got = plane.calls[0].inputs["x"]
    assert got.dtype == array.dtype
    assert got.flags.aligned
    assert np.array_equal(got, array)


async def test_raw_bf16_and_bytes() -> None:
    """BF16 travels as 16-bit words and BYTES with a length before each element."""
    signature = Signature((TensorSpec("h", "BF16", (-1, 2)), TensorSpec("s", "BYTES", (-1, 1))), ())
    client, plane = client_of(signature)
    words = np.array([[0x3F80, 0x4000]], dtype="<u2").tobytes()
    text = struct.pack("<I", 3) + b"a\x00b"
    body, headers = binary(
        {"inputs": [raw_input("h", [1, 2], "BF16", 4), raw_input("s", [1, 1], "BYTES", len(text))]},
        words,
        text,
    )
    reply = await client.post(URL, body, headers)
    assert reply.status == 200, reply.body
    assert plane.calls[0].inputs["h"].tolist() == [[0x3F80, 0x4000]]
    assert plane.calls[0].inputs["s"].tolist() == [[b"a\x00b"]]


async def test_raw_values_are_cast_safely() -> None:
    """Raw integers go to a float input; raw fractions do not go to an integer input."""
    client, plane = client_of(one("FP32"))
    array = np.array([[1, 2]], dtype=np.int32)
    body, headers = binary({"inputs": [raw_input("x", [1, 2], "INT32", 8)]}, array.tobytes())
    assert (await client.post(URL, body, headers)).status == 200
    assert plane.calls[0].inputs["x"].dtype == np.float32
    client, _ = client_of(one("INT8"))
    for values, datatype in (([1.5, 2], "FP64"), ([np.nan, 2], "FP64"), ([200, 2], "INT64")):
        array = np.array([values], dtype=np.float64 if datatype == "FP64" else np.int64)
        body, headers = binary({"inputs": [raw_input("x", [1, 2], datatype, 16)]}, array.tobytes())
        assert (await client.post(URL, body, headers)).status == 400
    client, _ = client_of(one("FP32"))
    array = np.array([[1e300, 2]])
    body, headers = binary({"inputs": [raw_input("x", [1, 2], "FP64", 16)]}, array.tobytes())
    assert "range" in (await client.post(URL, body, headers)).error


async def test_binary_outputs() -> None:
    """Outputs come raw when the request or the output says so; the output's word counts."""
    client, _ = client_of()
    base: dict[str, Any] = {
        "inputs": [json_input(ROW, [1, 30])],
        "parameters": {"binary_data_output": True},
    }
    reply = await client.post(URL, base)
    length = int(reply.headers["inference-header-content-length"])
    head = msgspec.json.decode(reply.body[:length])
    assert [o["parameters"]["binary_data_size"] for o in head["outputs"]] == [8, 16]
    assert all("data" not in output for output in head["outputs"])
    assert np.frombuffer(reply.body[length:], "<i8", 1).tolist() == [1]
    assert np.frombuffer(reply.body[length + 8 :], "<f8").tolist() == [0.25, 0.75]
    assert reply.headers["content-type"] == "application/octet-stream"
    base["outputs"] = [
        {"name": "predict", "parameters": {"binary_data": False}},
        {"name": "predict_proba"},
    ]
    reply = await client.post(URL, base)
    length = int(reply.headers["inference-header-content-length"])
    head = msgspec.json.decode(reply.body[:length])
    assert head["outputs"][0]["data"] == [1]
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 16}


async def test_raw_request_without_json() -> None:
    """Header length 0: the body is the one input's bytes, and every output comes raw."""
    client, plane = client_of()
    array = np.arange(60, dtype=np.float64)
    reply = await client.post(URL, array.tobytes(), {"Inference-Header-Content-Length": "0"})
    assert reply.status == 200
    assert plane.calls[0].inputs["input"].shape == (2, 30)
    length = int(reply.headers["inference-header-content-length"])
    assert len(reply.body) == length + 2 * 8 + 4 * 8
    for body in (b"", array.tobytes()[:-1], array.tobytes()[:-8]):
        reply = await client.post(URL, body, {"Inference-Header-Content-Length": "0"})
        assert reply.status == 400
    client, plane = client_of(one("BYTES", (1,)))
    reply = await client.post(URL, b"text", {"Inference-Header-Content-Length": "0"})
    assert reply.status == 200
    assert plane.calls[0].inputs["x"].tolist() == [[b"text"]]
    client, _ = client_of(table_signature())
    reply = await client.post(URL, b"text", {"Inference-Header-Content-Length": "0"})
    assert "one input" in reply.error


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "999999", "1" * 40, ""])
async def test_bad_header_length(value: str) -> None:
    """A header length that cannot be is a 400, never another decoder."""
    client, _ = client_of()
    body = msgspec.json.encode({"inputs": [json_input(ROW, [1, 30])]})
    reply = await client.post(URL, body, {"Inference-Header-Content-Length": value})
    assert reply.status == 400


@pytest.mark.parametrize(
    ("size", "buffer", "extra"),
    [
        (240, b"\0" * 239, {}),
        (240, b"\0" * 241, {}),
        (-1, b"\0" * 240, {}),
        (True, b"\0" * 240, {}),
        ("240", b"\0" * 240, {}),
        (232, b"\0" * 232, {}),
        (240, b"\0" * 240, {"data": [1]}),
    ],
)
async def test_bad_binary_sizes(size: Any, buffer: bytes, extra: dict[str, Any]) -> None:
    """Raw sizes that do not fit the body, the shape or the data are a 400."""
    client, plane = client_of()
    item = raw_input("input", [1, 30], "FP64", size) | extra
    body, headers = binary({"inputs": [item]}, buffer)
    assert (await client.post(URL, body, headers)).status == 400
    assert not plane.calls


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xff\xff\xff", struct.pack("<I", 5) + b"abc", struct.pack("<I", 1) + b"ab"],
)
async def test_damaged_raw_bytes_elements(text: bytes) -> None:
    """BYTES elements that end too early or leave bytes over are a 400."""
    client, _ = client_of(one("BYTES", (1,)))
    body, headers = binary({"inputs": [raw_input("x", [1, 1], "BYTES", len(text))]}, text)
    assert (await client.post(URL, body, headers)).status == 400


async def test_raw_tensors_are_not_limited_as_json_is() -> None:
    """Only the JSON part counts for the limit of JSON; many raw texts have their own."""
    client, plane = client_of(one("FP64"), limits=Limits(json_bytes=1000))
    rows = np.zeros((1000, 2))
    body, headers = binary(
        {"inputs": [raw_input("x", [1000, 2], "FP64", rows.nbytes)]}, rows.tobytes()
    )
    reply = await client.post(URL, body, headers)
    assert reply.status == 200, reply.body
    assert plane.calls[0].rows == 1000
    client, _ = client_of(one("BYTES", ()))
    count = 2**21 + 1
    body, headers = binary(
        {"inputs": [raw_input("x", [count], "BYTES", 4 * count)]}, bytes(4 * count)
    )
    reply = await client.post(URL, body, headers)
    assert reply.status == 413
    assert str(2**21) in reply.error


async def test_huge_raw_shape_allocates_nothing() -> None:
    """A shape of many elements with few bytes is refused before any allocation."""
    client, _ = client_of(one("BYTES", (-1,)))
    for datatype in ("BYTES", "FP64"):
        body, headers = binary({"inputs": [raw_input("x", [2**20, 2**19], datatype, 0)]})
        assert (await client.post(URL, body, headers)).status == 400


async def test_non_finite_outputs() -> None:
    """NaN and infinities are null in JSON, and themselves in raw."""
    values = np.array([[np.nan, np.inf]])
    client, _ = client_of(predict=lambda i, o: {"y": values}, signature=one("FP64"))
    body: dict[str, Any] = {"inputs": [json_input([1, 2], [1, 2])]}
    reply = await client.post(URL, body)
    assert reply.json()["outputs"][0]["data"] == [None, None]
    reply = await client.post(URL, body | {"parameters": {"binary_data_output": True}})
    length = int(reply.headers["inference-header-content-length"])
    assert reply.body[length:] == values.tobytes()


async def test_text_outputs() -> None:
    """Strings are text in JSON, with U+FFFD for what is not UTF-8, and exact in raw."""
    values = np.array([b"caf\xc3\xa9", b"\xff"], dtype=object)
    client, _ = client_of(predict=lambda i, o: {"y": values}, signature=one("FP64"))
    body: dict[str, Any] = {"inputs": [json_input([1, 2, 3, 4], [2, 2])]}
    output = (await client.post(URL, body)).json()["outputs"][0]
    assert output == {"name": "y", "datatype": "BYTES", "shape": [2], "data": ["café", "\ufffd"]}
    reply = await client.post(
        URL, body | {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    )
    length = int(reply.headers["inference-header-content-length"])
    assert reply.body[length:] == b"\x05\0\0\0caf\xc3\xa9\x01\0\0\0\xff"


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
async def test_half_float_outputs_are_raw_only(datatype: str) -> None:
    """An output that JSON cannot carry is refused before anything is computed, unless raw."""
    array = np.array([[1, 2]], dtype=np.float16 if datatype == "FP16" else np.uint16)
    signature = one("FP64", (2,), (TensorSpec("y", datatype, (-1, 2)),))
    client, plane = client_of(signature, predict=lambda i, o: {"y": array})
    body: dict[str, Any] = {"inputs": [json_input([1, 2], [1, 2])]}
    reply = await client.post(URL, body)
    assert reply.status == 400
    assert "binary_data" in reply.error
    assert not plane.calls
    reply = await client.post(URL, body | {"parameters": {"binary_data_output": True}})
    length = int(reply.headers["inference-header-content-length"])
    assert msgspec.json.decode(reply.body[:length])["outputs"][0]["datatype"] == datatype
    assert reply.body[length:] == array.tobytes()


TABLE_INPUTS = [
    json_input([30, 40], [2], "INT64", "age"),
    json_input([1.5, None], [2], "FP64", "income"),
    json_input([["Rome"], ["Oslo"]], [2, 1], "BYTES", "city"),
    json_input([True, False], [2], "BOOL", "member"),
]


async def test_table_columns() -> None:
    """A table takes one tensor a column, of shape [n] or [n, 1], in any order."""
    client, plane = client_of(
        table_signature(), predict=lambda i, o: {"predict": np.zeros(len(i["age"]))}
    )
    reply = await client.post(URL, {"inputs": TABLE_INPUTS[::-1]})
    assert reply.status == 200, reply.body
    inputs = plane.calls[0].inputs
    assert list(inputs) == ["age", "income", "city", "member"]
    assert inputs["city"].tolist() == [b"Rome", b"Oslo"]
    assert all(array.shape == (2,) for array in inputs.values())
    reply = await client.post(URL, {"inputs": TABLE_INPUTS[:-1]})
    assert "'member'" in reply.error
    reply = await client.post(
        URL, {"inputs": [*TABLE_INPUTS, json_input([1, 2], [2], name="more")]}
    )
    assert "'more'" in reply.error
    ragged = [*TABLE_INPUTS[:-1], json_input([True], [1], "BOOL", "member")]
    assert "numbers of rows" in (await client.post(URL, {"inputs": ragged})).error
    assert "twice" in (await client.post(URL, {"inputs": [*TABLE_INPUTS, TABLE_INPUTS[0]]})).error


async def test_table_as_one_tensor() -> None:
    """A table of numbers takes one 2-d tensor with its columns in order."""
    signature = Signature(
        (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "INT64", (-1,))), (), kind="table"
    )
    client, plane = client_of(signature)
    reply = await client.post(URL, {"inputs": [json_input([[1.5, 2], [3.5, 4]], [2, 2])]})
    assert reply.status == 200, reply.body
    assert plane.calls[0].inputs["a"].tolist() == [1.5, 3.5]
    assert plane.calls[0].inputs["b"].tolist() == [2, 4]
    reply = await client.post(URL, {"inputs": [json_input([[1.5, 2.5]], [1, 2])]})
    assert "fraction" in reply.error


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "object"),
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": [1]}, "object"),
        ({"inputs": [{"shape": [1]}]}, "name"),
        ({"inputs": [json_input(ROW, [1, 30])], "id": 7}, '"id"'),
        ({"inputs": [json_input(ROW, [1, 30])], "outputs": 1}, '"outputs"'),
        ({"inputs": [json_input(ROW, [1, 30])], "outputs": [1]}, "name"),
        ({"inputs": [json_input(ROW, [1, 30])], "parameters": [1]}, "parameters"),
        ({"inputs": [json_input(ROW, [1, 30])], "parameters": {"a": []}}, "'a'"),
        ({"inputs": [json_input(ROW, [1, 30])], "parameters": {"sequence_id": 4}}, "Sequences"),
        ({"inputs": [json_input(ROW, [1, 30])], "parameters": {"binary_data_output": 1}}, "true"),
        ({"inputs": [json_input(ROW, [1, 30])], "parameters": {"timeout": "x"}}, "timeout"),
        (
            {
                "inputs": [
                    {
                        "name": "input",
                        "shape": [1, 30],
                        "datatype": "FP64",
                        "parameters": {"shared_memory_region": "r"},
                    }
                ]
            },
            "Shared memory",
        ),
        ({"inputs": [{"name": "input", "shape": [1, 30], "datatype": "FP64"}]}, '"data"'),
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"[" * 100_000, "nested"),
        (b'{"inputs":' * 100_000, "nested"),
        (b'{"inputs": NaN}', "JSON"),
        (b"9" * 100_000, "JSON"),
    ],
)
async def test_malformed_requests(body: Any, words: str) -> None:
    """Whatever is wrong with the JSON is a 400 that says what."""
    client, plane = client_of()
    reply = await client.post(URL, body)
    assert reply.status == 400
    assert words in reply.error
    assert not plane.calls
    assert plane.held == 0


async def test_parameters_of_no_meaning_here_are_fine() -> None:
    """A client's own parameters do no harm; a timeout is a deadline."""
    client, plane = client_of()
    item = json_input(ROW, [1, 30]) | {"parameters": {"content_type": "np"}}
    body = {"inputs": [item], "parameters": {"mine": "x", "timeout": 2_000_000, "sequence_id": 0}}
    assert (await client.post(URL, body)).status == 200
    body["parameters"] = {}
    assert (await client.post(URL, body)).status == 200
    assert plane.calls[1].deadline - plane.calls[0].deadline > 20


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/octet-stream", "application/json; charset=utf-8"],
)
async def test_content_type_is_not_dispatched_on(content_type: str) -> None:
    """Any content type that is accepted is decoded the same way."""
    client, _ = client_of()
    reply = await client.post(
        URL, {"inputs": [json_input(ROW, [1, 30])]}, {"content-type": content_type}
    )
    assert reply.status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-pickle",
        "application/python-pickle",
        "text/plain",
        "application/json; charset=utf-16",
    ],
)
async def test_other_content_types_are_415(content_type: str) -> None:
    """Pickles and other types are 415 naming what to send."""
    client, plane = client_of()
    reply = await client.post(URL, b"\x80\x04.", {"content-type": content_type})
    assert reply.status == 415
    assert not plane.calls


async def test_duplicate_keys_are_the_last_ones() -> None:
    """A key given twice is taken once, as JSON decoders do."""
    client, plane = client_of(one("FP64"))
    body = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP64","data":[9,9],"data":[1,2]}]}'
    assert (await client.post(URL, body)).status == 200
    assert plane.calls[0].inputs["x"].tolist() == [[1, 2]]


async def test_unvalidated_signature_takes_what_comes() -> None:
    """Where nobody knows the inputs, they pass under the names and types they were given."""
    client, plane = client_of(Signature((), (), unvalidated=True))
    reply = await client.post(URL, {"inputs": [json_input([1, 2], [2, 1], "INT32", "q")]})
    assert reply.status == 200
    assert plane.calls[0].inputs["q"].dtype == np.int32
    assert (await client.post(URL, {"inputs": [json_input([1], [], "INT32", "q")]})).status == 400


async def test_float32_signature_keeps_a_doubles_value() -> None:
    """0.1 sent as FP32 to an FP64 input is 0.1, not FP32's neighbour of it."""
    client, plane = client_of(tensor_signature(1))
    assert (await client.post(URL, {"inputs": [json_input([0.1], [1, 1], "FP32")]})).status == 200
    assert plane.calls[0].inputs["input"][0, 0] == 0.1
