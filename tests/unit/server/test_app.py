"""The data-plane application: routes, tokens, deadlines, errors, compression, mounting."""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
import zlib
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
import numpy as np
import pytest

from hotswap import errors
from hotswap.core.spec import Limits
from hotswap.core.stats import ModelStats
from hotswap.server.app import DataApp
from hotswap.server.openapi import document
from hotswap.server.routes import ROUTES, Router
from hotswap.testing.fakes import FakeModel, FakePlane
from tests.unit.server.asgi_client import Client, client_of

ROW = [float(n) for n in range(30)]
PREDICT = {"features": ROW}


async def test_server_metadata_and_health() -> None:
    """/v2 works with and without a slash; live and ready carry their JSON bodies."""
    client, plane = client_of()
    for path in ("/v2", "/v2/"):
        document = (await client.get(path)).json()
        assert document["name"] == "hotswap"
        assert "binary_tensor_data" in document["extensions"]
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
    plane.is_ready = False
    reply = await client.get("/v2/health/ready")
    assert reply.status == 503
    assert "not ready" in reply.error
    assert (await client.get("/v2/health/live")).status == 200
    plane.is_ready = True
    client.app.draining = True
    assert "draining" in (await client.get("/v2/health/ready")).error


async def test_model_metadata_ready_and_config() -> None:
    """A model's and a version's metadata, readiness and configuration."""
    client, plane = client_of()
    for base, versions in (
        ("/v2/models/demo", ["v1", "v2"]),
        ("/v2/models/demo/versions/v2", ["v2"]),
    ):
        document = (await client.get(base)).json()
        assert document["name"] == "demo"
        assert document["versions"] == versions
        assert document["platform"] == "sklearn"
        assert document["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 30]}]
        assert [output["name"] for output in document["outputs"]] == ["predict", "predict_proba"]
        assert (await client.get(base + "/ready")).json() == {"name": "demo", "ready": True}
        config = (await client.get(base + "/config")).json()
        assert config["max_batch_size"] == 1024
        assert config["input"] == [{"name": "input", "data_type": "TYPE_FP64", "dims": [30]}]
    plane.fakes["demo"].not_ready.add("v2")
    reply = await client.get("/v2/models/demo/versions/v2/ready")
    assert reply.status == 503
    assert reply.error == "not loaded"
    plane.fakes["demo"].stable = None
    assert "no active version" in (await client.get("/v2/models/demo/ready")).error
    for path in ("/v2/models/nope", "/v2/models/demo/versions/v9", "/v2/models/nope/stats"):
        assert (await client.get(path)).status == 404


async def test_statistics() -> None:
    """Statistics of all models, of one, and of one version."""
    client, plane = client_of()
    plane.statistics = [
        ModelStats("demo", "v1", "stable", success=3, errors={"model": 1}, inferences=9),
        ModelStats("demo", "v2", "", success=1),
    ]
    rows = (await client.get("/v2/models/demo/stats")).json()["model_stats"]
    assert [row["version"] for row in rows] == ["v1", "v2"]
    assert rows[0]["inference_stats"]["success"]["count"] == 3
    assert rows[0]["inference_stats"]["fail"]["count"] == 1
    assert rows[0]["inference_count"] == 9
    assert (await client.get("/v2/models/stats")).json()["model_stats"] == rows
    one = (await client.get("/v2/models/demo/versions/v2/stats")).json()["model_stats"]
    assert one == rows[1:]


async def test_repository_index() -> None:
    """The index is a bare array; "ready" leaves out what is not."""
    client, plane = client_of()
    plane.fakes["demo"].not_ready.add("v2")
    rows = (await client.post("/v2/repository/index")).json()
    assert rows == [
        {"name": "demo", "version": "v1", "state": "READY", "reason": ""},
        {"name": "demo", "version": "v2", "state": "UNAVAILABLE", "reason": "not loaded"},
    ]
    assert (await client.post("/v2/repository/index", {"ready": True})).json() == rows[:1]
    assert (await client.post("/v2/repository/index", {"ready": 1})).status == 400
    assert (await client.post("/v2/repository/index", b"[")).status == 400


async def test_unknown_routes_and_methods() -> None:
    """Unknown routes are 404, known ones with another method 405, both in JSON."""
    client, _ = client_of()
    for path in ("/", "/v3", "/predict/x", "/v2/models", "/v2/models//infer", "/metrics", "/admin"):
        reply = await client.get(path)
        assert reply.status == 404
        assert reply.error
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
        reply = await client.send(method, "/predict")
        assert reply.status == 405
        assert "POST" in reply.error
    head = await client.send("HEAD", "/v2/health/live")
    assert (head.status, head.body) == (200, b"")


async def test_router_memory_is_bounded() -> None:
    """Paths of names that nobody serves do not fill the memory."""
    router = Router()
    for number in range(3000):
        assert router.match("POST", f"/v2/models/m{number}/infer").model == f"m{number}"
    assert len(router._known) <= 1024


async def test_document_has_every_route() -> None:
    """The OpenAPI document is valid JSON and has each route of the router."""
    client, _ = client_of()
    served = (await client.get("/openapi.json")).json()
    assert served == msgspec.json.decode(msgspec.json.encode(document()))
    assert served["openapi"].startswith("3.1")
    listed = {(m.upper(), path) for path, methods in served["paths"].items() for m in methods}
    assert listed == {(route.method, route.template) for route in ROUTES}
    ids = [op["operationId"] for methods in served["paths"].values() for op in methods.values()]
    assert len(ids) == len(set(ids))
    for route in ROUTES:
        assert route.handler in client.app._handlers or route.handler in client.app._readers
        assert route.answer in served["components"]["schemas"]
        assert not route.body or route.body in served["components"]["schemas"]


async def test_token() -> None:
    """With a token, everything but health asks for it."""
    client, _ = client_of(token="s3cret")
    assert (await client.post("/predict", PREDICT)).status == 401
    for value in ("Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer", ""):
        reply = await client.post("/predict", PREDICT, {"authorization": value})
        assert reply.status == 401
        assert "Bearer TOKEN" in reply.error
        assert reply.headers["www-authenticate"] == "Bearer"
    for value in ("Bearer s3cret", "bearer s3cret"):
        assert (await client.post("/predict", PREDICT, {"authorization": value})).status == 200
    for route in ROUTES:
        path = route.template.format(model="demo", version="v1", name="demo")
        reply = await client.send(route.method, path)
        assert (reply.status == 401) == (not route.open), route
    assert {route.template for route in ROUTES if route.open} == {
        "/v2/health/live",
        "/v2/health/ready",
        "/ping",
    }


async def test_deadlines() -> None:
    """The header's deadline counts from the request's arrival and is capped; nonsense is 400."""
    client, plane = client_of(limits=Limits(default_timeout=10, max_timeout=20))
    for value, seconds in ((None, 10.0), ("5000", 5.0), ("999999", 20.0)):
        before = time.monotonic()
        headers = {} if value is None else {"x-hotswap-timeout-ms": value}
        assert (await client.post("/predict", PREDICT, headers)).status == 200
        after = time.monotonic()
        assert before <= plane.calls[-1].deadline - seconds <= after
    for value in ("0", "-5", "x", "1.5", "", "9" * 30):
        reply = await client.post("/predict", PREDICT, {"x-hotswap-timeout-ms": value})
        assert reply.status == 400
    assert plane.held == 0


async def test_stickiness_key_and_fallback_header() -> None:
    """The key reaches the plane; a fallback is named in the answer."""
    client, plane = client_of()
    reply = await client.post("/predict", PREDICT, {"x-hotswap-key": "user-1"})
    assert plane.keys == [b"user-1"]
    assert "x-hotswap-fallback" not in reply.headers
    plane.fakes["demo"].fallback = "timeout"
    assert (await client.post("/predict", PREDICT)).headers["x-hotswap-fallback"] == "timeout"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Overloaded("full", retry_after=2.5), 429),
        (errors.Unavailable("cold"), 503),
        (errors.DeadlineExceeded(), 504),
        (errors.ModelFailed("ValueError: x"), 500),
        (errors.InvalidOutput(), 500),
        (errors.HostLost(), 500),
        (errors.OutOfMemory(), 507),
        (MemoryError(), 507),
    ],
)
async def test_errors_of_a_prediction(error: Exception, status: int) -> None:
    """Each failure has its status, a JSON sentence, and who failed on which request."""
    client, plane = client_of()
    plane.fakes["demo"].error = error
    reply = await client.post("/predict", PREDICT, {"x-request-id": "r7"})
    assert reply.status == status
    assert reply.error
    assert reply.headers["x-request-id"] == "r7"
    assert reply.headers["x-hotswap-version"] == "v1"
    assert ("retry-after" in reply.headers) == (status in (429, 503))
    if status == 429:
        assert reply.headers["retry-after"] == "3"
    assert plane.held == 0


async def test_the_unexpected_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw is a general sentence; the log has it under the id."""
    client, plane = client_of()
    plane.fakes["demo"].error = RuntimeError("secret at /srv/private/x")
    with caplog.at_level(logging.ERROR):
        reply = await client.post("/predict", PREDICT, {"x-request-id": "r8"})
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert b"/srv" not in reply.body
    assert any(getattr(record, "request_id", "") == "r8" for record in caplog.records)
    assert "secret at" in caplog.text


async def test_a_models_paths_are_its_own() -> None:
    """Paths in a model's failure are shown below the model and version, or as a last part."""
    client, plane = client_of()
    message = "OSError: /srv/models/demo/v1/vocab.txt and /etc/ssl/key.pem"
    plane.fakes["demo"].error = errors.ModelFailed(message)
    reply = await client.post("/predict", PREDICT)
    assert reply.error == "OSError: demo/v1/vocab.txt and …/key.pem"


@pytest.mark.parametrize(
    "result",
    [{}, {"y": np.float64(1)}, {"y": np.zeros(3)}, {"y": np.zeros((0, 1))}],
)
async def test_invalid_outputs_are_the_models_failure(result: Any) -> None:
    """An output without one entry a row is a 500 that says so."""
    client, plane = client_of(predict=lambda i, o: {k: np.asarray(v) for k, v in result.items()})
    reply = await client.post("/predict", PREDICT)
    assert reply.status == 500
    assert "output" in reply.error
    assert plane.held == 0


async def test_unusual_output_dtypes_are_still_answered() -> None:
    """Big-endian numbers, long doubles, text, dates and objects all have an answer."""
    arrays = {
        "a": np.array([1.5], dtype=">f8"),
        "b": np.array([1.5], dtype=np.longdouble),
        "c": np.array(["t"]),
        "d": np.array(["2020-01-01"], dtype="datetime64[D]"),
        "e": np.array([{"k": 1}], dtype=object),
        "f": np.array([[1 + 2j]]),
    }
    client, _ = client_of(predict=lambda i, o: arrays)
    reply = await client.post("/predict", PREDICT)
    assert reply.status == 200, reply.body
    assert reply.json()["prediction"]["a"] == 1.5
    body = {
        "inputs": [{"name": "x", "shape": [1, 30], "datatype": "FP64", "data": ROW}],
        "parameters": {"binary_data_output": False},
    }
    outputs = (await client.post("/v2/models/demo/infer", body)).json()["outputs"]
    types = {output["name"]: output["datatype"] for output in outputs}
    assert types == {
        "a": "FP64",
        "b": "FP64",
        "c": "BYTES",
        "d": "BYTES",
        "e": "BYTES",
        "f": "BYTES",
    }
    body["parameters"] = {"binary_data_output": True}
    assert (await client.post("/v2/models/demo/infer", body)).status == 200


async def test_large_answers_are_compressed_if_wanted() -> None:
    """gzip and deflate by Accept-Encoding, above about a kilobyte only."""
    client, _ = client_of()
    rows = {"features": [ROW] * 200}
    plain = await client.post("/predict", rows, {"x-request-id": "i"})
    assert "content-encoding" not in plain.headers
    for accept, coding in (
        ("gzip, deflate, br", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.1, deflate;q=0.9", "deflate"),
        ("*", "gzip"),
    ):
        reply = await client.post(
            "/predict", rows, {"accept-encoding": accept, "x-request-id": "i"}
        )
        assert reply.headers["content-encoding"] == coding
        assert reply.headers["content-length"] == str(len(reply.body))
        unpacked = gzip.decompress(reply.body) if coding == "gzip" else zlib.decompress(reply.body)
        assert unpacked == plain.body
    for accept in ("br", "gzip;q=0", "identity", "gzip;q=x"):
        reply = await client.post("/predict", rows, {"accept-encoding": accept})
        assert "content-encoding" not in reply.headers
    small = await client.post("/predict", PREDICT, {"accept-encoding": "gzip"})
    assert "content-encoding" not in small.headers


async def test_compressed_requests() -> None:
    """gzip and both kinds of deflate are decompressed."""
    client, _ = client_of()
    body = msgspec.json.encode(PREDICT)
    bare = zlib.compressobj(9, zlib.DEFLATED, -15)
    for coding, packed in (
        ("gzip", gzip.compress(body)),
        ("x-gzip", gzip.compress(body[:20]) + gzip.compress(body[20:])),
        ("deflate", zlib.compress(body)),
        ("deflate", bare.compress(body) + bare.flush()),
        ("identity", body),
    ):
        reply = await client.post("/predict", packed, {"content-encoding": coding})
        assert reply.status == 200, (coding, reply.body)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", gzip.compress(b"0" * 5_000_000, mtime=0), 413),
        ("deflate", zlib.compress(b"0" * 5_000_000), 413),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), 415),
        ("br", b"", 415),
        ("gzip", b"", 400),
        ("gzip", b"nonsense", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"tail", 400),
        ("deflate", zlib.compress(b"{}") + b"tail", 400),
        ("deflate", b"\xff\xff", 400),
    ],
)
async def test_bad_compressed_requests(coding: str, body: bytes, status: int) -> None:
    """Bombs are 413, nested and unknown codings 415, damaged data 400."""
    client, _ = client_of(limits=Limits(decompressed_bytes=2_000_000))
    reply = await client.post("/predict", body, {"content-encoding": coding})
    assert reply.status == status
    assert reply.error


async def test_many_compressed_streams() -> None:
    """A body of very many streams is refused soon: each costs time however little it holds."""
    client, _ = client_of()
    one = gzip.compress(b" ")
    packed = one * 5_000 + gzip.compress(msgspec.json.encode(PREDICT))
    assert (await client.post("/predict", packed, {"content-encoding": "gzip"})).status == 200
    reply = await client.post("/predict", one * 50_000, {"content-encoding": "gzip"})
    assert reply.status == 400
    assert "send it as one" in reply.error


async def test_a_large_stream_in_many_pieces() -> None:
    """What is compressed and still large comes out as it went in."""
    client, _ = client_of()
    noise = np.random.default_rng(0).integers(33, 35, 2_000_000, np.uint8).tobytes()
    body = b'{"features": ' + msgspec.json.encode([0.0] * 30) + b', "request_id": "'
    body += noise.replace(b'"', b"#") + b'"}'
    reply = await client.post("/predict", gzip.compress(body, 1), {"content-encoding": "gzip"})
    assert reply.status == 200


@pytest.mark.parametrize(
    ("path", "media", "make"),
    [
        ("/predict", "application/json", lambda pad: b'{"features":[0],' + pad + b'"x":0}'),
        ("/invocations", "application/json", lambda pad: b'{"instances":[[0]],' + pad + b'"x":0}'),
        (
            "/v2/models/demo/infer",
            "application/json",
            lambda pad: b'{"inputs":[],' + pad + b'"x":0}',
        ),
        ("/invocations", "text/csv", lambda pad: b"x\n1" + pad + b"\n"),
    ],
)
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_text_is_limited_apart_from_the_body(
    path: str, media: str, make: Callable[[bytes], bytes], coding: str
) -> None:
    """More JSON or CSV than a worker may stand still for is a 413, compressed or not."""
    client, plane = client_of(limits=Limits(json_bytes=10_000, decompressed_ratio=10_000))
    for spaces, wanted in ((9_000, {200, 400}), (10_000, {413})):
        body = make(b" " * spaces)
        packed = gzip.compress(body) if coding == "gzip" else body
        headers = {"content-encoding": coding, "content-type": media}
        reply = await client.post(path, packed, headers)
        assert reply.status in wanted, reply.body
        assert (b"10000 bytes" in reply.body) == (413 in wanted)
    assert plane.held == 0


async def test_ratio_limit() -> None:
    """A body that expands beyond the ratio is refused even below the size limit."""
    client, _ = client_of(limits=Limits(decompressed_ratio=2))
    reply = await client.post(
        "/predict", gzip.compress(b"0" * 5_000_000), {"content-encoding": "gzip"}
    )
    assert reply.status == 413


async def test_body_limit_under_any_server() -> None:
    """The application itself refuses a body that is too large."""
    client, _ = client_of(limits=Limits(body_bytes=100))
    assert (await client.post("/predict", b" " * 101)).status == 413


async def test_contradicting_headers() -> None:
    """A header that was sent twice with two values is a 400."""
    client, _ = client_of()
    scope = client.scope("POST", "/predict")
    scope["headers"] = [(b"x-request-id", b"a"), (b"x-request-id", b"b")]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await client.app(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_disconnect_frees_the_prediction() -> None:
    """A client that goes away while it waits has its prediction cancelled and lease released."""
    client, plane = client_of()
    plane.fakes["demo"].gate = asyncio.Event()
    gone = asyncio.Event()
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": msgspec.json.encode(PREDICT)}
    ]

    async def receive() -> MutableMapping[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        pytest.fail("nobody is there to be answered")

    task = asyncio.create_task(client.app(client.scope("POST", "/predict"), receive, send))
    while not plane.waiting:  # noqa: ASYNC110 - the fake has no event for it
        await asyncio.sleep(0)
    gone.set()
    await task
    assert plane.cancelled == 1
    assert plane.held == 0


async def test_disconnect_before_the_body_ends() -> None:
    """A client that goes away while it sends is not answered."""
    client, plane = client_of()

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        pytest.fail("nobody is there to be answered")

    await client.app(client.scope("POST", "/predict"), receive, send)
    assert not plane.calls


async def test_mounted_below_a_path() -> None:
    """Under a root path the same routes are found, whichever way the server gives the path."""
    client, _ = client_of()
    client.root_path = "/ml"
    for path in ("/ml/predict", "/predict"):
        assert (await client.post(path, PREDICT)).status == 200
    assert (await client.get("/mlx/v2")).status == 404


async def test_mounted_in_starlette() -> None:
    """It is a part of somebody's own Starlette application."""
    starlette = pytest.importorskip("starlette.applications")
    routing = pytest.importorskip("starlette.routing")
    plane = FakePlane({"demo": FakeModel()})
    app = starlette.Starlette(routes=[routing.Mount("/ml", app=DataApp(plane))])
    client = Client(app)
    reply = await client.post("/ml/predict", PREDICT)
    assert reply.status == 200
    assert (await client.get("/ml/v2/health/ready")).json() == {"ready": True}


async def test_lifespan_and_websockets() -> None:
    """Lifespan events are completed; a WebSocket is closed."""
    client, _ = client_of()
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0) if messages else {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    await client.app({"type": "lifespan"}, receive, send)
    await client.app({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


async def test_access_log() -> None:
    """The hook is told of each answer, failed ones too."""
    lines: list[tuple[str, str, int, str]] = []
    client, _ = client_of(
        access_log=lambda method, path, status, seconds, rid: lines.append(
            (method, path, status, rid)
        )
    )
    await client.post("/predict", PREDICT, {"x-request-id": "a"})
    await client.get("/nope", {"x-request-id": "b"})
    assert lines == [("POST", "/predict", 200, "a"), ("GET", "/nope", 404, "b")]


async def test_no_model_is_served() -> None:
    """Before there is a model, a prediction without a name is a 404 that says so."""
    client = Client(DataApp(FakePlane({})))
    reply = await client.post("/predict", PREDICT)
    assert reply.status == 404
    assert "No model" in reply.error
