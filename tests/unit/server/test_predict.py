"""The simple prediction format, on all of its routes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hotswap.core.routing import Assigned, Split
from hotswap.core.signature import Signature, TensorSpec
from hotswap.server.app import DataApp
from hotswap.testing.fakes import FakeModel, FakePlane, table_signature, tensor_signature
from tests.unit.server.asgi_client import Client, client_of

ROW = [float(n) for n in range(30)]
PERSON = {"age": 30, "income": 1.5, "city": "Rome", "member": True}
LIST = [30, 1.5, "Rome", True]


async def test_one_row() -> None:
    """A flat list is one row, answered with one prediction."""
    client, plane = client_of()
    reply = await client.post("/predict", {"features": ROW}, {"x-request-id": "abc"})
    assert reply.status == 200
    assert reply.json() == {
        "prediction": 1,
        "probabilities": [0.25, 0.75],
        "model": "demo",
        "version": "v1",
        "request_id": "abc",
    }
    assert reply.headers["x-hotswap-version"] == "v1"
    assert plane.calls[0].inputs["input"].tolist() == [ROW]


async def test_several_rows() -> None:
    """A list of lists is several rows, even if it holds one."""
    client, plane = client_of()
    for rows in (1, 3):
        document = (await client.post("/predict", {"features": [ROW] * rows})).json()
        assert document["predictions"] == [1] * rows
        assert document["probabilities"] == [[0.25, 0.75]] * rows
        assert "prediction" not in document
        assert plane.calls[-1].rows == rows


async def test_no_probabilities_where_the_model_has_none() -> None:
    """A model without predict_proba answers without probabilities; (n, 1) is one value a row."""
    client, _ = client_of(predict=lambda i, o: {"variable": np.array([[2.5]], dtype=np.float32)})
    document = (await client.post("/predict", {"features": ROW})).json()
    assert document["prediction"] == 2.5
    assert "probabilities" not in document


async def test_several_outputs_are_objects() -> None:
    """A model with several outputs of its own answers one object a row."""
    client, _ = client_of(
        predict=lambda i, o: {"a": np.array([1.0]), "b": np.array([b"x"], dtype=object)}
    )
    document = (await client.post("/predict", {"features": ROW})).json()
    assert document["prediction"] == {"a": 1.0, "b": "x"}


async def test_non_finite_predictions_are_null() -> None:
    """A NaN prediction is null."""
    client, _ = client_of(predict=lambda i, o: {"predict": np.array([np.nan])})
    document = (await client.post("/predict", {"features": ROW})).json()
    assert document["prediction"] is None


async def test_null_is_nan() -> None:
    """A null feature is NaN."""
    client, plane = client_of(tensor_signature(2, "FP32"))
    assert (await client.post("/predict", {"features": [None, 1]})).status == 200
    assert math.isnan(plane.calls[0].inputs["input"][0, 0])


@pytest.mark.parametrize(
    ("features", "rows"),
    [(PERSON, 1), ([PERSON, PERSON], 2), (LIST, 1), ([LIST, LIST], 2)],
)
async def test_tables(features: Any, rows: int) -> None:
    """A table takes a row or rows, as objects by name or lists in order."""
    client, plane = client_of(
        table_signature(), predict=lambda i, o: {"predict": np.zeros(len(i["age"]))}
    )
    reply = await client.post("/predict", {"features": features})
    assert reply.status == 200, reply.body
    assert ("prediction" in reply.json()) == (features in (PERSON, LIST))
    inputs = plane.calls[0].inputs
    assert inputs["city"].tolist() == [b"Rome"] * rows
    assert inputs["age"].dtype == np.int64
    assert inputs["member"].dtype == np.bool_


async def test_feature_names() -> None:
    """A tensor model whose columns have names takes objects, in any order."""
    signature = Signature(
        (TensorSpec("input", "FP64", (-1, 2)),), (), feature_names=("width", "height")
    )
    client, plane = client_of(signature)
    assert (await client.post("/predict", {"features": {"height": 2, "width": 1}})).status == 200
    assert plane.calls[0].inputs["input"].tolist() == [[1.0, 2.0]]
    reply = await client.post("/predict", {"features": {"height": 2}})
    assert "'width'" in reply.error
    reply = await client.post("/predict", {"features": {"height": 2, "width": 1, "depth": 3}})
    assert "'depth'" in reply.error


async def test_a_lone_input_goes_by_any_name() -> None:
    """One name holds the whole row; several, of a model whose features have no names, are a 400."""
    client, plane = client_of()
    for features in ({"x": ROW}, [{"x": ROW}], {"input": ROW}):
        assert (await client.post("/predict", {"features": features})).status == 200
        assert plane.calls[-1].inputs["input"].tolist() == [ROW]
    for wrong in ({"age": 1, "city": 2}, {}, [{"x": ROW}, {"y": ROW}]):
        reply = await client.post("/predict", {"features": wrong})
        assert reply.status == 400
        assert "send each row as a list" in reply.error


async def test_images_and_multi_input_models() -> None:
    """The rank tells one row from several; several tensors come by name."""
    client, plane = client_of(Signature((TensorSpec("x", "FP32", (-1, 2, 2)),), ()))
    image = [[1, 2], [3, 4]]
    assert "prediction" in (await client.post("/predict", {"features": image})).json()
    assert "predictions" in (await client.post("/predict", {"features": [image, image]})).json()
    assert plane.calls[1].inputs["x"].shape == (2, 2, 2)
    signature = Signature((TensorSpec("x", "FP32", (-1, 2)), TensorSpec("t", "BYTES", (-1,))), ())
    client, plane = client_of(signature)
    reply = await client.post("/predict", {"features": {"x": [1, 2], "t": "hi"}})
    assert reply.status == 200, reply.body
    assert plane.calls[0].inputs["t"].tolist() == [b"hi"]
    assert "by their names" in (await client.post("/predict", {"features": [1, 2]})).error


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "object"),
        ({}, '"features"'),
        ({"features": []}, "empty"),
        ({"features": "x"}, "list"),
        ({"features": None}, "list"),
        ({"features": ROW[:-1]}, "[-1, 30]"),
        ({"features": [ROW, ROW[:-1]]}, "one shape"),
        ({"features": [ROW, 1]}, "shape"),
        ({"features": [{"a": 1}, 1]}, "mixes"),
        ({"features": ["a"] * 30}, "text"),
        ({"features": [[]]}, "shape"),
        ({"features": ROW, "model": 1}, '"model"'),
        ({"features": ROW, "modle": "x"}, "'modle'"),
        ({"features": ROW, "model": "nope"}, "nope"),
        (b"{", "JSON"),
        (b'{"features":' + b"[" * 100_000, "nested"),
    ],
)
async def test_malformed(body: Any, words: str) -> None:
    """Whatever is wrong is a clear 400 (404 for an unknown model)."""
    client, plane = client_of()
    reply = await client.post("/predict", body)
    assert reply.status == (404 if "nope" in words else 400)
    assert words in reply.error
    assert plane.held == 0


@pytest.mark.parametrize(
    "features",
    [{"age": 1}, PERSON | {"x": 1}, [30], LIST[::-1], [LIST, [1]], [[1], 2], [PERSON, {}]],
)
async def test_malformed_tables(features: Any) -> None:
    """Rows that do not fit a table are a 400."""
    client, plane = client_of(table_signature())
    reply = await client.post("/predict", {"features": features})
    assert reply.status == 400
    assert reply.error
    assert not plane.calls


def two_models() -> tuple[Client, FakePlane]:
    plane = FakePlane({"a": FakeModel(), "b": FakeModel(versions=("x", "v1"))})
    return Client(DataApp(plane)), plane


async def test_the_model_is_named_where_there_are_several() -> None:
    """By body, header or both alike; left out or in disagreement it is a 400 naming choices."""
    client, _ = two_models()
    assert (await client.post("/predict", {"features": ROW, "model": "b"})).json()["model"] == "b"
    reply = await client.post("/predict", {"features": ROW}, {"x-hotswap-model": "b"})
    assert reply.json()["model"] == "b"
    reply = await client.post("/predict", {"features": ROW})
    assert reply.status == 400
    assert "a, b" in reply.error
    reply = await client.post("/predict", {"features": ROW, "model": "a"}, {"x-hotswap-model": "b"})
    assert reply.status == 400


async def test_a_version_in_the_body_is_pinned() -> None:
    """A version that is named answers; an unknown one is 404, a cold one 503."""
    client, plane = client_of()
    reply = await client.post("/predict", {"features": ROW, "version": "v2"})
    assert reply.json()["version"] == "v2"
    assert (await client.post("/predict", {"features": ROW, "version": "v9"})).status == 404
    plane.fakes["demo"].not_ready.add("v2")
    reply = await client.post("/predict", {"features": ROW, "version": "v2"})
    assert reply.status == 503
    assert reply.headers["retry-after"] == "1"


async def test_stable_route() -> None:
    """/api/v1/predictions answers by the stable version and refuses to pin another."""
    client, _ = client_of()
    assert (await client.post("/api/v1/predictions", {"features": ROW})).json()["version"] == "v1"
    reply = await client.post("/api/v1/predictions", {"features": ROW, "version": "v1"})
    assert reply.status == 200
    reply = await client.post("/api/v1/predictions", {"features": ROW, "version": "v2"})
    assert reply.status == 400
    assert "v1" in reply.error


async def test_named_route() -> None:
    """{name} is a model, else a version of the only model, else a 404 naming the choices."""
    client, _ = client_of()
    for name, version in (("demo", "v1"), ("v2", "v2")):
        reply = await client.post(f"/api/v1/models/{name}/predictions", {"features": ROW})
        assert reply.json()["version"] == version
    reply = await client.post("/api/v1/models/v9/predictions", {"features": ROW})
    assert reply.status == 404
    assert "demo, v1, v2" in reply.error
    reply = await client.post("/api/v1/models/v2/predictions", {"features": ROW, "version": "v1"})
    assert reply.status == 400
    client, _ = two_models()
    reply = await client.post("/api/v1/models/x/predictions", {"features": ROW})
    assert reply.status == 404
    assert "a, b" in reply.error
    assert (await client.post("/api/v1/models/b/predictions", {"features": ROW})).status == 200


def running(model: FakeModel, assigned: Assigned = "candidate") -> None:
    """v2 is tested against v1 on this model, and requests are assigned so."""
    model.split = Split("t", 1, "v2", "v1", weight=1_000, salt="s", budget_ms=100.0)
    model.assigned = assigned


async def test_the_route_of_the_running_test() -> None:
    """/api/v1/ab/predictions goes through the split; without one, 404 that says what to do."""
    client, plane = client_of()
    reply = await client.post("/api/v1/ab/predictions", {"features": ROW})
    assert reply.status == 404
    assert "No test of the model" in reply.error
    running(plane.fakes["demo"])
    reply = await client.post("/api/v1/ab/predictions", {"features": ROW}, {"x-hotswap-key": "k"})
    assert (reply.status, reply.json()["version"]) == (200, "v2")
    assert reply.headers["x-hotswap-version"] == "v2"
    assert plane.keys == [b"k"]
    reply = await client.post("/api/v1/ab/predictions", {"features": ROW, "version": "v1"})
    assert reply.status == 400
    assert "/predict" in reply.error
    assert (await client.post("/api/v1/ab/predictions", {"features": "no"})).status == 400
    assert plane.held == 0


async def test_the_answering_version_is_known_after_the_prediction() -> None:
    """Header and body name what answered; the stable route stays with stable."""
    client, plane = client_of()
    running(plane.fakes["demo"])
    reply = await client.post("/predict", {"features": ROW})
    assert reply.headers["x-hotswap-version"] == reply.json()["version"] == "v2"
    reply = await client.post("/api/v1/predictions", {"features": ROW})
    assert reply.headers["x-hotswap-version"] == reply.json()["version"] == "v1"


async def test_arms_of_the_only_test() -> None:
    """a is the baseline, b the candidate; a version in the body must be that arm's."""
    client, plane = client_of()
    reply = await client.post("/api/v1/models/a/predictions", {"features": ROW})
    assert reply.status == 404
    assert "arm of no running test" in reply.error
    running(plane.fakes["demo"], "baseline")
    for name, version in (("a", "v1"), ("b", "v2"), ("v1", "v1"), ("demo", "v1")):
        reply = await client.post(f"/api/v1/models/{name}/predictions", {"features": ROW})
        assert (reply.status, reply.json()["version"]) == (200, version)
    body = {"features": ROW, "version": "v1"}
    reply = await client.post("/api/v1/models/b/predictions", body)
    assert reply.status == 400
    assert "the candidate's version, v2" in reply.error
    body = {"features": ROW, "model": "other"}
    assert (await client.post("/api/v1/models/a/predictions", body)).status == 400


async def test_an_arm_of_several_tests_is_ambiguous() -> None:
    """400 that names the models; a model of that name comes first."""
    plane = FakePlane({"x": FakeModel(), "y": FakeModel(), "z": FakeModel()})
    client = Client(DataApp(plane))
    running(plane.fakes["x"])
    assert (await client.post("/api/v1/models/a/predictions", {"features": ROW})).status == 200
    running(plane.fakes["y"])
    reply = await client.post("/api/v1/models/a/predictions", {"features": ROW})
    assert reply.status == 400
    assert "one of x, y" in reply.error
    plane.fakes["a"] = FakeModel()
    reply = await client.post("/api/v1/models/a/predictions", {"features": ROW})
    assert (reply.status, reply.json()["model"]) == (200, "a")


async def test_request_ids() -> None:
    """The header wins over the body; without either a new one is made each time."""
    client, plane = client_of()
    body = {"features": ROW, "request_id": "of-body"}
    reply = await client.post("/predict", body, {"x-request-id": "of-header"})
    assert reply.json()["request_id"] == reply.headers["x-request-id"] == "of-header"
    assert (await client.post("/predict", body)).headers["x-request-id"] == "of-body"
    fresh = {(await client.post("/predict", {"features": ROW})).json()["request_id"] for _ in "ab"}
    assert len(fresh) == 2
    assert plane.calls[0].request_id == "of-header"
    for bad in ("\x01", "x" * 129, "é", " "):
        reply = await client.post("/predict", {"features": ROW}, {"x-request-id": bad})
        assert reply.headers["x-request-id"] != bad
        assert reply.headers["x-request-id"] == reply.json()["request_id"]
    reply = await client.post("/predict", {"features": ROW, "request_id": "a\nb"})
    assert "\n" not in reply.headers["x-request-id"]


async def test_later_routes_do_not_exist() -> None:
    """What this release does not have is 404, not a stub."""
    client, _ = client_of()
    for path in ("/feedback", "/v2/repository/models/demo/load"):
        assert (await client.post(path, {"features": ROW})).status == 404
