"""Unmodified client libraries against a real server: tritonclient and KServe's REST client."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.harness import ROOT, Server, wait_until
from tests.models import breast_cancer, expected, write_breast_cancer

http = pytest.importorskip("tritonclient.http")
aio = pytest.importorskip("tritonclient.http.aio")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(600)]

KSERVE = "0.21.0"
MODEL = "tumours"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A scikit-learn version (v1, active) and an ONNX one (v2, loaded)."""
    root = tmp_path_factory.mktemp("clients")
    write_breast_cancer(root / "models" / MODEL / "v1", "skops", seed=1)
    write_breast_cancer(root / "models" / MODEL / "v2", "skops", seed=2)
    with Server(root / "models", root / "state", trust_code=False, workers=2) as server:
        assert server.switch(MODEL, "v1").status == 200
        yield server


def url(server: Server) -> str:
    """Host and port, as tritonclient takes them."""
    return f"127.0.0.1:{server.data_port}"


def rows(count: int = 5) -> Any:
    """Held-out rows, FP64 ``(count, 30)``."""
    return breast_cancer()[0][:count]


def request(client: Any, data: Any, binary: bool) -> tuple[list[Any], list[Any]]:
    """tritonclient's inputs and outputs for the model."""
    each = client.InferInput("input", list(data.shape), "FP64")
    each.set_data_from_numpy(data, binary_data=binary)
    names = ("predict", "predict_proba")
    return [each], [client.InferRequestedOutput(name, binary_data=binary) for name in names]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_infer(server: Server, binary: bool, compression: str | None) -> None:
    """tritonclient's answers are the model library's own, JSON or binary, compressed or not."""
    data = rows()
    want = expected("skops", 1, data)
    with http.InferenceServerClient(url(server)) as client:
        inputs, outputs = request(http, data, binary)
        answer = client.infer(
            MODEL, inputs, outputs=outputs, request_id="r-1",
            request_compression_algorithm=compression, response_compression_algorithm=compression,
        )  # fmt: skip
        np.testing.assert_array_equal(answer.as_numpy("predict"), want["predict"])
        np.testing.assert_allclose(answer.as_numpy("predict_proba"), want["predict_proba"])
        assert answer.get_response()["id"] == "r-1"
        assert answer.get_response()["model_version"] == "v1"


def test_triton_pinned_version(server: Server) -> None:
    """A version that is named answers, whatever is active."""
    data = rows()
    with http.InferenceServerClient(url(server)) as client:
        inputs, outputs = request(http, data, True)
        answer = client.infer(MODEL, inputs, model_version="v2", outputs=outputs)
        np.testing.assert_allclose(
            answer.as_numpy("predict_proba"), expected("skops", 2, data)["predict_proba"]
        )
        assert answer.get_response()["model_version"] == "v2"
        with pytest.raises(InferenceServerException, match="v9"):
            client.infer(MODEL, inputs, model_version="v9")


def test_triton_metadata_and_health(server: Server) -> None:
    """Health, metadata, configuration, statistics and index as tritonclient reads them."""
    with http.InferenceServerClient(url(server)) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL)
        assert client.is_model_ready(MODEL, "v1")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata()["name"] == "hotswap"
        metadata = client.get_model_metadata(MODEL)
        assert metadata["name"] == MODEL
        assert metadata["versions"] == ["v1", "v2"]
        (taken,) = metadata["inputs"]
        assert (taken["datatype"], taken["shape"]) == ("FP64", [-1, 30])
        assert {each["name"] for each in metadata["outputs"]} == {"predict", "predict_proba"}
        assert client.get_model_config(MODEL)["name"] == MODEL
        index = client.get_model_repository_index()
        states = {(each["name"], each["version"]): each["state"] for each in index}
        assert states == {(MODEL, "v1"): "READY", (MODEL, "v2"): "READY"}
        before = successes(client)
        inputs, _ = request(http, rows(3), True)
        for _ in range(4):
            client.infer(MODEL, inputs)
        assert successes(client) == (before[0] + 4, before[1] + 12)


def successes(client: Any) -> tuple[int, int]:
    """(requests, rows) that v1 answered as the stable version."""
    stats = client.get_inference_statistics(MODEL, "v1")["model_stats"]
    (row,) = [each for each in stats if each["role"] == "stable"]
    return row["inference_stats"]["success"]["count"], row["inference_count"]


def test_triton_cannot_load_on_the_data_plane(server: Server) -> None:
    """Loading and unloading are the control plane's: refused here, and nothing changes."""
    with http.InferenceServerClient(url(server)) as client:
        with pytest.raises(InferenceServerException):
            client.load_model(MODEL)
        with pytest.raises(InferenceServerException):
            client.unload_model(MODEL)
        assert client.is_model_ready(MODEL)


def test_triton_errors(server: Server) -> None:
    """What is wrong reaches tritonclient as a sentence."""
    with http.InferenceServerClient(url(server)) as client:
        inputs, _ = request(http, rows()[:, :7], True)
        with pytest.raises(InferenceServerException, match="30"):
            client.infer(MODEL, inputs)
        with pytest.raises(InferenceServerException, match="nothing"):
            client.infer("nothing", inputs)


async def test_triton_asyncio(server: Server) -> None:
    """tritonclient's asyncio client: the same, while the model is switched under it."""
    import asyncio

    data = rows()
    wanted = {f"v{seed}": expected("skops", seed, data)["predict_proba"] for seed in (1, 2)}
    stop = asyncio.Event()

    async def traffic(client: Any) -> set[str]:
        seen = set()
        while not stop.is_set():
            inputs, outputs = request(aio, data, True)
            answer = await client.infer(MODEL, inputs, outputs=outputs)
            version = answer.get_response()["model_version"]
            np.testing.assert_allclose(answer.as_numpy("predict_proba"), wanted[version])
            seen.add(version)
        return seen

    async with aio.InferenceServerClient(url(server)) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata(MODEL))["name"] == MODEL
        tasks = [asyncio.create_task(traffic(client)) for _ in range(4)]
        for number in range(6):
            version = ("v2", "v1")[number % 2]
            answer = await asyncio.to_thread(server.switch, MODEL, version)
            assert answer.status == 200
        stop.set()
        seen = await asyncio.gather(*tasks)
    assert set().union(*seen) <= {"v1", "v2"}


KSERVE_SCRIPT = textwrap.dedent(
    """
    import asyncio, json, sys

    from kserve import InferenceRESTClient, RESTConfig
    from kserve.protocol.infer_type import InferInput, InferRequest
    import numpy as np

    url, model, data = sys.argv[1], sys.argv[2], np.array(json.loads(sys.argv[3]))


    async def main():
        out = {}
        client = InferenceRESTClient(config=RESTConfig(protocol="v2", retries=0))
        out["live"] = await client.is_server_live(url)
        out["ready"] = await client.is_server_ready(url)
        out["model_ready"] = await client.is_model_ready(url, model)
        for binary in (False, True):
            each = InferInput("input", list(data.shape), "FP64")
            each.set_data_from_numpy(data, binary_data=binary)
            answer = await client.infer(url, InferRequest(model, [each]), model_name=model)
            found = {o.name: o.as_numpy().tolist() for o in answer.outputs}
            out["binary" if binary else "json"] = found
        await client.close()
        print(json.dumps(out))


    asyncio.run(main())
    """
)


@pytest.fixture(scope="module")
def kserve() -> Path:
    """An interpreter with KServe's SDK, in an environment of its own (made once, and kept)."""
    folder = ROOT / ".cache" / "clients" / f"kserve-{KSERVE}"
    python = folder / "bin" / "python"
    done = folder / "done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        made = subprocess.run(
            [str(python), "-m", "pip", "install", "-q", f"kserve=={KSERVE}"],
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        if made.returncode != 0:
            pytest.skip(f"kserve {KSERVE} could not be installed: {made.stderr[-300:]}")
        done.touch()
    return python


def test_kserve_rest_client(server: Server, kserve: Path) -> None:
    """KServe's own client gets the model library's answers, in JSON and in binary."""
    wait_until(lambda: server.switch(MODEL, "v1").status == 200, "v1 to be active")
    data = rows(3)
    base = f"http://127.0.0.1:{server.data_port}"
    arguments = [base, MODEL, json.dumps(data.tolist())]
    done = subprocess.run(
        [str(kserve), "-W", "ignore", "-c", KSERVE_SCRIPT, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    out = json.loads(done.stdout.splitlines()[-1])
    assert (out["live"], out["ready"], out["model_ready"]) == (True, True, True)
    want = expected("skops", 1, data)
    for form in ("json", "binary"):
        np.testing.assert_allclose(out[form]["predict_proba"], want["predict_proba"])
        np.testing.assert_array_equal(out[form]["predict"], want["predict"])
