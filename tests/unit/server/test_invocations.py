"""MLflow's and SageMaker's formats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Limits
from hotswap.server.app import DataApp
from hotswap.testing.fakes import FakeModel, FakePlane, table_signature, tensor_signature
from tests.unit.server.asgi_client import Client, client_of

URL = "/invocations"
COLUMNS = ["age", "income", "city", "member"]
LIST = [30, 1.5, "Rome", True]
RECORD = dict(zip(COLUMNS, LIST, strict=True))
CSV = {"content-type": "text/csv"}


def table() -> tuple[Client, FakePlane]:
    return client_of(
        table_signature(), predict=lambda i, o: {"predict": np.arange(len(i["age"])) / 2}
    )


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": COLUMNS, "data": [LIST, LIST], "index": [0, 1]}},
        {"dataframe_split": {"columns": COLUMNS[::-1], "data": [LIST[::-1]] * 2}},
        {"dataframe_split": {"data": [LIST, LIST]}},
        {"dataframe_records": [RECORD, RECORD]},
        {"instances": [RECORD, RECORD], "params": {}},
        {"instances": [LIST, LIST]},
        {"inputs": {name: [value] * 2 for name, value in RECORD.items()}},
        {"inputs": {name: [[value]] * 2 for name, value in RECORD.items()}},
        {"inputs": [RECORD, RECORD]},
    ],
)
async def test_forms_of_a_table(body: Any) -> None:
    """Each of MLflow's forms gives the model the same columns."""
    client, plane = table()
    reply = await client.post(URL, body)
    assert reply.status == 200, reply.body
    assert reply.json() == {"predictions": [0.0, 0.5]}
    assert reply.headers["x-hotswap-version"] == "v1"
    got = {name: array.tolist() for name, array in plane.calls[0].inputs.items()}
    assert got == {
        "age": [30, 30],
        "income": [1.5, 1.5],
        "city": [b"Rome", b"Rome"],
        "member": [True, True],
    }


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1, 2], [3, 4]]},
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"input": [[1, 2], [3, 4]]}},
        {"inputs": {"w": [1, 3], "h": [2, 4]}},
        {"dataframe_split": {"columns": ["h", "w"], "data": [[2, 1], [4, 3]]}},
        {"dataframe_split": {"columns": ["0", "1"], "data": [[1, 2], [3, 4]]}},
        {"dataframe_split": {"columns": [0, 1], "data": [[1, 2], [3, 4]]}},
        {"dataframe_records": [{"h": 2, "w": 1}, {"w": 3, "h": 4}]},
        b"w,h\n1,2\n3,4\n",
        b"h,w\r\n2,1\r\n4,3\r\n",
        b"1,2\n3,4",
        b"\xef\xbb\xbfw,h\n1,2\n\n3,4\n",
    ],
)
async def test_forms_of_a_tensor(body: Any) -> None:
    """Each form gives a tensor model the same rows, by its features' names or in order."""
    signature = Signature((TensorSpec("input", "FP64", (-1, 2)),), (), feature_names=("w", "h"))
    client, plane = client_of(signature)
    headers = CSV if isinstance(body, bytes) else {}
    reply = await client.post(URL, body, headers)
    assert reply.status == 200, reply.body
    assert plane.calls[0].inputs["input"].tolist() == [[1, 2], [3, 4]]


async def test_csv_cells_are_limited() -> None:
    """A CSV of very many short cells is a 413: each takes time however short it is."""
    client, _ = client_of(tensor_signature(2), limits=Limits(json_bytes=800))
    assert (await client.post(URL, b"1,2\n" * 50, CSV)).status == 200
    reply = await client.post(URL, b"1,2\n" * 51, CSV)
    assert reply.status == 413
    assert "100 cells" in reply.error


async def test_csv_of_a_table() -> None:
    """CSV cells take their datatypes from the signature; an empty float cell is NaN."""
    client, plane = table()
    body = b'city,age,income,member\n"Rome, IT",30,,true\n7,41,2.5,0\n'
    reply = await client.post(URL, body, CSV)
    assert reply.status == 200, reply.body
    inputs = plane.calls[0].inputs
    assert inputs["city"].tolist() == [b"Rome, IT", b"7"]
    assert inputs["age"].tolist() == [30, 41]
    assert math.isnan(inputs["income"][0])
    assert inputs["member"].tolist() == [True, False]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"age,income,city,member\n",
        b"age,income,city\n1,2,x\n",
        b"age,income,city,member\n1,2,x\n",
        b"age,income,city,member\nx,2,x,true\n",
        b"age,income,city,member\n1.5,2,x,true\n",
        b"age,income,city,member\n1,2,x,maybe\n",
        b"age,age,city,member\n1,2,x,true\n",
        b'age,income,city,member\n1,2,"x,true\n',
        b"\xff\xfe",
    ],
)
async def test_bad_csv(body: bytes) -> None:
    """CSV that does not fit is a 400."""
    client, plane = table()
    reply = await client.post(URL, body, CSV)
    assert reply.status == 400
    assert reply.error
    assert not plane.calls


async def test_nan_tokens() -> None:
    """NaN and Infinity are accepted here, and nowhere else."""
    client, plane = client_of(tensor_signature(3))
    reply = await client.post(URL, b'{"instances": [[NaN, Infinity, -Infinity]]}')
    assert reply.status == 200, reply.body
    row = plane.calls[0].inputs["input"][0]
    assert math.isnan(row[0])
    assert row[1:].tolist() == [math.inf, -math.inf]
    assert (await client.post("/predict", b'{"features": [NaN, 1, 2]}')).status == 400


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([LIST], "object"),
        ({}, "exactly one"),
        ({"instances": [LIST], "inputs": [LIST]}, "exactly one"),
        ({"instances": [LIST], "params": {"t": 1}}, "params"),
        ({"instances": [LIST], "signature_name": "x"}, "signature_name"),
        ({"instances": 1}, "list"),
        ({"instances": []}, "row"),
        ({"inputs": {"age": [1]}}, "Missing"),
        ({"inputs": {name: [1] * n for n, name in enumerate(COLUMNS, 1)}}, "lengths"),
        ({"dataframe_split": []}, "columns"),
        ({"dataframe_split": {"columns": COLUMNS, "data": [[1]]}}, "1 values for 4"),
        ({"dataframe_split": {"columns": ["a"] * 4, "data": [LIST]}}, "twice"),
        ({"dataframe_split": {"columns": 4, "data": [LIST]}}, "names"),
        ({"dataframe_split": {"data": [1]}}, "list of rows"),
        ({"dataframe_split": {"data": [LIST], "x": 1}}, "'x'"),
        ({"dataframe_records": [1]}, "objects"),
        ({"dataframe_records": [RECORD, {"age": 1}]}, "other columns"),
        ({"dataframe_records": []}, "row"),
        (b"{", "JSON"),
        (b'{"instances": ' + b"[" * 100_000, "nested"),
        (b'{"instances": [[' + b"1" * 10_000 + b"]]}", ""),
    ],
)
async def test_malformed(body: Any, words: str) -> None:
    """Whatever is wrong is a 400 that says what."""
    client, plane = table()
    reply = await client.post(URL, body)
    assert reply.status == 400
    assert words in reply.error
    assert plane.held == 0


@pytest.mark.parametrize("content_type", ["application/x-npy", "application/octet-stream", "x"])
async def test_other_types_are_415(content_type: str) -> None:
    """Another content type is 415 naming what to send."""
    client, _ = table()
    reply = await client.post(URL, b"", {"content-type": content_type})
    assert reply.status == 415
    assert "text/csv" in reply.error
    assert "application/json" in reply.error


async def test_several_tensors_by_name() -> None:
    """A model of several tensors takes inputs by name and records; lists alone are a 400."""
    signature = Signature((TensorSpec("x", "FP32", (-1, 2)), TensorSpec("n", "INT64", (-1,))), ())
    client, plane = client_of(signature)
    for body in ({"inputs": {"x": [[1, 2]], "n": [3]}}, {"instances": [{"x": [1, 2], "n": 3}]}):
        reply = await client.post(URL, body)
        assert reply.status == 200, reply.body
        assert plane.calls[-1].inputs["n"].tolist() == [3]
        assert plane.calls[-1].inputs["x"].tolist() == [[1, 2]]
    assert "by name" in (await client.post(URL, {"instances": [[1, 2]]})).error


async def test_flat_instances_are_rows_of_one_value() -> None:
    """For an input of one value a row, a flat list is one row a value, as MLflow has it."""
    client, plane = client_of(Signature((TensorSpec("t", "BYTES", (-1,)),), ()))
    assert (await client.post(URL, {"instances": ["a", "b"]})).status == 200
    assert plane.calls[0].inputs["t"].tolist() == [b"a", b"b"]


async def test_ping_is_the_containers_health() -> None:
    """GET /ping is 200 when ready and 503 when not."""
    client, plane = table()
    assert (await client.get("/ping")).status == 200
    plane.is_ready = False
    assert (await client.get("/ping")).status == 503


async def test_the_model_is_named_by_header() -> None:
    """With several models, x-hotswap-model says which."""
    client = Client(DataApp(FakePlane({"a": FakeModel(), "b": FakeModel()})))
    body = {"instances": [[0.0] * 30]}
    assert (await client.post(URL, body)).status == 400
    assert (await client.post(URL, body, {"x-hotswap-model": "b"})).status == 200
