"""Unmodified clients of the Open Inference Protocol against the data plane."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.stats import ModelStats
from hotswap.ports import Array
from hotswap.server.app import DataApp
from hotswap.server.run import DataServer
from hotswap.testing.fakes import FakeModel, FakePlane, tensor_signature

http = pytest.importorskip("tritonclient.http")
aio = pytest.importorskip("tritonclient.http.aio")

pytestmark = pytest.mark.integration


def echo(inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
    """Each input under its name with ``_out`` behind it."""
    every = {name + "_out": array for name, array in inputs.items()}
    return {name: every[name] for name in outputs} if outputs else every


ECHO = Signature(
    (
        TensorSpec("numbers", "FP32", (-1, 3)),
        TensorSpec("texts", "BYTES", (-1, 1)),
        TensorSpec("flags", "BOOL", (-1, 1)),
    ),
    (
        TensorSpec("numbers_out", "FP32", (-1, 3)),
        TensorSpec("texts_out", "BYTES", (-1, 1)),
        TensorSpec("flags_out", "BOOL", (-1, 1)),
    ),
)
HALF = Signature((TensorSpec("x", "FP16", (-1, 2)),), (TensorSpec("x_out", "FP16", (-1, 2)),))
NUMBERS = np.array([[1, 2, 3], [4, 5, 6.5]], dtype=np.float32)
TEXTS = np.array([[b"a\x00b"], ["é".encode()]], dtype=object)
FLAGS = np.array([[True], [False]])


class Running:
    """A data server on a thread's event loop."""

    def __init__(self) -> None:
        self.plane = FakePlane(
            {
                "demo": FakeModel(tensor_signature()),
                "echo": FakeModel(ECHO, predict=echo),
                "half": FakeModel(HALF, predict=echo),
            }
        )
        self.plane.statistics = [ModelStats("demo", "v1", "stable", success=2, inferences=4)]
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{sock.getsockname()[1]}"
        self._sock = sock
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = DataServer(DataApp(self.plane))
        await server.start([self._sock])
        self._started.set()
        await self._stop.wait()
        await server.close()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with Running() as site:
        yield site


@pytest.fixture
def client(running: Running) -> Iterator[Any]:
    with http.InferenceServerClient(running.address) as its:
        yield its


def inputs_of(module: Any, binary: bool = True) -> list[Any]:
    inputs = [
        module.InferInput("numbers", [2, 3], "FP32"),
        module.InferInput("texts", [2, 1], "BYTES"),
        module.InferInput("flags", [2, 1], "BOOL"),
    ]
    texts = TEXTS if binary else np.array([["a"], ["é"]], dtype=object)
    for item, array in zip(inputs, (NUMBERS, texts, FLAGS), strict=True):
        item.set_data_from_numpy(array, binary_data=binary)
    return inputs


def test_health_and_metadata(client: Any) -> None:
    """Triton's client finds the server and models alive, ready and described."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("demo")
    assert client.is_model_ready("demo", "v2")
    assert not client.is_model_ready("nope")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("echo")
    assert [item["name"] for item in metadata["inputs"]] == ["numbers", "texts", "flags"]
    assert client.get_model_metadata("demo", "v2")["versions"] == ["v2"]
    assert client.get_model_config("demo")["max_batch_size"] == 1024


def test_repository_and_statistics(client: Any) -> None:
    """Its repository index and statistics are understood."""
    rows = client.get_model_repository_index()
    assert {"name": "demo", "version": "v1", "state": "READY", "reason": ""} in rows
    stats = client.get_inference_statistics("demo")["model_stats"]
    assert stats[0]["inference_stats"]["success"]["count"] == 2
    assert client.get_inference_statistics()["model_stats"] == stats


def test_default_inference_is_binary(client: Any) -> None:
    """The client's defaults, binary in and out, round-trip every kind of tensor."""
    result = client.infer("echo", inputs_of(http), request_id="r1")
    assert np.array_equal(result.as_numpy("numbers_out"), NUMBERS)
    assert result.as_numpy("texts_out").tolist() == TEXTS.tolist()
    assert np.array_equal(result.as_numpy("flags_out"), FLAGS)
    response = result.get_response()
    assert response["id"] == "r1"
    assert response["model_version"] == "v1"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_json_and_binary_mix(client: Any, binary_in: bool, binary_out: bool) -> None:
    """JSON and binary in any mix, one output asked for."""
    outputs = [http.InferRequestedOutput("numbers_out", binary_data=binary_out)]
    result = client.infer("echo", inputs_of(http, binary_in), outputs=outputs, model_version="v2")
    assert np.array_equal(result.as_numpy("numbers_out"), NUMBERS)
    assert result.as_numpy("texts_out") is None
    assert result.get_response()["model_version"] == "v2"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: Any, algorithm: str) -> None:
    """Compressed requests and answers in both of its algorithms."""
    item = http.InferInput("input", [500, 30], "FP64")
    item.set_data_from_numpy(np.ones((500, 30)))
    result = client.infer(
        "demo",
        [item],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert result.as_numpy("predict").tolist() == [1] * 500


def test_half_floats(client: Any) -> None:
    """FP16 tensors travel raw."""
    item = http.InferInput("x", [1, 2], "FP16")
    item.set_data_from_numpy(np.array([[1.5, 2.5]], dtype=np.float16))
    result = client.infer("half", [item])
    assert result.as_numpy("x_out").dtype == np.float16
    assert result.as_numpy("x_out").tolist() == [[1.5, 2.5]]


def test_raw_body(client: Any) -> None:
    """Its prepared bodies and parsed answers work apart from its transport."""
    item = http.InferInput("input", [1, 30], "FP64")
    item.set_data_from_numpy(np.zeros((1, 30)))
    body, length = http.InferenceServerClient.generate_request_body([item])
    assert length is not None
    assert client.infer("demo", [item]).as_numpy("predict_proba").tolist() == [[0.25, 0.75]]
    assert len(body) == length + 240


def test_errors_are_the_clients_own(client: Any) -> None:
    """Refusals reach the caller as the client's exception with our sentence."""
    item = http.InferInput("input", [1, 3], "FP64")
    item.set_data_from_numpy(np.zeros((1, 3)))
    refused: Callable[..., Any] = client.infer
    with pytest.raises(Exception, match=r"\[-1, 30\]"):
        refused("demo", [item])
    with pytest.raises(Exception, match="nope"):
        refused("nope", [item])
    item = http.InferInput("input", [1, 30], "FP64")
    item.set_data_from_numpy(np.zeros((1, 30)))
    with pytest.raises(Exception, match="no output 'x'"):
        refused("demo", [item], outputs=[http.InferRequestedOutput("x")])


async def test_asyncio_client(running: Running) -> None:
    """The asyncio client, many requests at once."""
    client = aio.InferenceServerClient(running.address)
    try:
        assert await client.is_server_ready()
        results = await asyncio.gather(
            *(client.infer("echo", inputs_of(aio), request_id=str(n)) for n in range(40))
        )
        for number, result in enumerate(results):
            assert result.get_response()["id"] == str(number)
            assert np.array_equal(result.as_numpy("numbers_out"), NUMBERS)
    finally:
        await client.close()
    assert running.plane.held == 0
