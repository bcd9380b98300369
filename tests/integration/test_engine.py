"""The embedded engine over real models: predictions, switches, rollbacks, failures, HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI

from hotswap import (
    BadInput,
    ConfigError,
    Conflict,
    Engine,
    LoadError,
    ModelFailed,
    NotFound,
    SignatureMismatch,
    SwitchingStrategyType,
    Unavailable,
    UntrustedCode,
)
from tests.models import FORMATS, breast_cancer, expected, write_breast_cancer

ROWS, _ = breast_cancer()

#: Answers its constant; fails where the first value is 2.
CONSTANT = """
import numpy as np


class Model:
    def predict(self, X):
        if X[0, 0] == 2:
            raise ValueError("two is one too many")
        return np.full(len(X), {value})
"""

#: The same, too slow for the event loop; where the first value is 1 it waits for a file.
GATED = """
import time
from pathlib import Path

import numpy as np

HERE = Path({folder!r})


class Model:
    def predict(self, X):
        time.sleep(0.003)
        if X[0, 0] == 1:
            (HERE / "entered").touch()
            while not (HERE / "gate").exists():
                time.sleep(0.002)
        return np.full(len(X), {value})

    def close(self):
        (HERE / "closed-{value}").touch()
"""
YAML = "signature: {inputs: [{name: x, datatype: FP64, shape: [-1, 1]}]}\nsamples: [[0.0], [0.5]]\n"


def write_constant(folder: Path, value: int, yaml: str = YAML) -> Path:
    """A version that answers ``value`` for every row."""
    return write_source(folder, CONSTANT.format(value=value), yaml)


def write_source(folder: Path, source: str, yaml: str = YAML) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    (folder / "version.yaml").write_text(yaml)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with ``c`` v1 (answers 1), v2 (2) and v10 (10)."""
    for number in (1, 2, 10):
        write_constant(tmp_path / "models" / "c" / f"v{number}", number)
    return tmp_path / "models"


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[Engine]:
    async with Engine(folder, trust_code=True, settle_seconds=0) as running:
        yield running


async def until_there(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():  # noqa: ASYNC110 - another process or thread makes it
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("fmt", FORMATS)
async def test_predictions_are_the_librarys_own(tmp_path: Path, fmt: str) -> None:
    """Values and probabilities equal what the library that made the model gives."""
    version = write_breast_cancer(tmp_path / "m" / "v1", fmt)
    if fmt == "python":
        yaml = "signature: {inputs: [{name: X, datatype: FP64, shape: [-1, 30]}]}"
        (version / "version.yaml").write_text(yaml)
    wanted = expected(fmt, 0, ROWS)
    async with Engine(tmp_path, trust_code=True, settle_seconds=0) as engine:
        answer = await engine.predict("m", ROWS)
        one = await engine.predict("m", ROWS[0])
    tolerance = 1e-4 if fmt == "onnx" else 1e-6
    assert answer.probabilities is not None
    if "predict" in answer.outputs and fmt not in ("xgb-ubj", "lgbm-txt"):
        assert np.array_equal(np.asarray(answer), wanted["predict"])
    assert np.allclose(answer.probabilities, wanted["predict_proba"], atol=tolerance)
    assert np.allclose(one.outputs["predict_proba"][0], answer.probabilities[0], atol=1e-6)
    assert (len(answer), len(one), answer.version) == (len(ROWS), 1, "v1")


async def test_the_highest_version_is_active_at_the_first_start(engine: Engine) -> None:
    """v10 comes after v9."""
    answer = await engine.predict("c", [[0.0]])
    assert (answer.version, answer.values.tolist()) == ("v10", [10])
    assert (await engine.predict(None, [[0.0]])).model == "c"


async def test_a_version_can_be_asked_for_by_name(engine: Engine) -> None:
    """It is loaded if it must be, and the active one stays."""
    assert (await engine.predict("c", [[0.0]], version="v1")).values.tolist() == [1]
    assert (await engine.predict("c", [[0.0]])).version == "v10"
    with pytest.raises(NotFound, match="v1, v2, v10"):
        await engine.predict("c", [[0.0]], version="v3")
    with pytest.raises(NotFound, match="there are: c"):
        await engine.predict("d", [[0.0]])


async def test_switches_under_traffic_fail_nothing_and_mix_nothing(engine: Engine) -> None:
    """Every answer is whole of one version, and after a switch returned none is of the old one."""
    done = asyncio.Event()
    versions = ("v1", "v2")
    number = {"v1": 1, "v2": 2, "v10": 10}
    count = 0

    async def traffic() -> None:
        nonlocal count
        while not done.is_set():
            answer = await engine.predict("c", [[0.0]] * 5)
            assert answer.values.tolist() == [number[answer.version]] * 5
            count += 1

    clients = [asyncio.create_task(traffic()) for _ in range(8)]
    for turn in range(20):
        version = versions[turn % 2]
        view = await engine.registry.switch_model("c", version)
        assert view.to == version
        assert (await engine.predict("c", [[0.0]])).version == version
    done.set()
    await asyncio.gather(*clients)
    assert count > 0
    stats = engine.get_switcher_stats()
    assert stats["switches"]["c"]["done"] == 21
    assert all(not each["errors"] for each in stats["requests"])
    assert sum(each["success"] for each in stats["requests"]) == count + 20


async def test_a_request_in_flight_ends_where_it_began(tmp_path: Path) -> None:
    """A switch waits for no request, and the old version stays until its last one is done."""
    for value in (1, 2):
        source = GATED.format(folder=str(tmp_path), value=value)
        write_source(tmp_path / "models" / "g" / f"v{value}", source)
    options: dict[str, Any] = {"trust_code": True, "settle_seconds": 0, "keep_warm_seconds": 0}
    async with Engine(tmp_path / "models", **options) as engine:
        flying = asyncio.create_task(engine.predict("g", [[1.0]]))
        await until_there(tmp_path / "entered")
        await engine.registry.switch_model("g", "v1")
        assert (await engine.predict("g", [[0.0]])).version == "v1"
        async with asyncio.timeout(30):  # the old version is let go, as far as it can be
            while _states(engine)["v2"] == "READY":  # noqa: ASYNC110 - a timer does it
                await asyncio.sleep(0.01)
        assert not flying.done()
        assert not (tmp_path / "closed-2").exists()
        (tmp_path / "gate").touch()
        answer = await flying
        assert (answer.version, answer.values.tolist()) == ("v2", [2])
        await until_there(tmp_path / "closed-2")
        assert (await engine.predict("g", [[0.0]])).version == "v1"


async def test_a_version_that_cannot_be_loaded_changes_nothing(
    engine: Engine, tmp_path: Path
) -> None:
    """The version's own exception reaches the caller; the old one answers on."""
    bad = write_source(tmp_path / "bad", "raise RuntimeError('no weights here')")
    engine.registry.register_model("c", "v11", bad)
    with pytest.raises(LoadError, match="no weights here"):
        await engine.registry.switch_model("c", "v11")
    assert (await engine.predict("c", [[0.0]])).version == "v10"
    views = {each.version: each for each in engine.registry.get_model("c").versions}
    assert views["v11"].state == "UNAVAILABLE"
    assert "no weights here" in views["v11"].reason
    status = engine.get_switching_status()
    assert status["operations"][0]["state"] == "failed"
    assert not status["switching"]


async def test_a_version_with_another_signature_is_refused(engine: Engine, tmp_path: Path) -> None:
    """The model owns its signature; force replaces it."""
    wide = write_constant(
        tmp_path / "wide", 3,
        "signature: {inputs: [{name: x, datatype: FP64, shape: [-1, 2]}]}\nsamples: [[0.0, 0.0]]",
    )  # fmt: skip
    engine.registry.register_model("c", "v11", wide)
    with pytest.raises(SignatureMismatch, match="does not fit"):
        await engine.registry.switch_model("c", "v11")
    await engine.registry.switch_model("c", "v11", force=True)
    assert (await engine.predict("c", [[0.0, 0.0]])).values.tolist() == [3]


async def test_registering_activates_nothing(engine: Engine, tmp_path: Path) -> None:
    """Metadata is kept; equal content again is the same version, other content a conflict."""
    new = write_constant(tmp_path / "new", 3)
    view = engine.registry.register_model("c", "v11", new, metadata={"by": "me"})
    assert (view.version, view.metadata, view.state) == ("v11", {"by": "me"}, "REGISTERED")
    assert engine.registry.register_model("c", "v11", new).digest == view.digest
    assert engine.registry.register_model("c", None, new).version == "v12"
    (new / "model.py").write_text("class Model: ...")
    with pytest.raises(Conflict, match="immutable"):
        engine.registry.register_model("c", "v11", new)
    assert (await engine.predict("c", [[0.0]])).version == "v10"
    await engine.registry.switch_model("c", "v11")
    assert (await engine.predict("c", [[0.0]])).values.tolist() == [3]


async def test_registering_from_threads(engine: Engine, tmp_path: Path) -> None:
    """Registrations from many threads at once all succeed."""
    paths = [write_constant(tmp_path / f"n{n}", 100 + n) for n in range(4)]
    views = await asyncio.gather(
        *(
            asyncio.to_thread(engine.registry.register_model, "many", f"v{n}", path)
            for n, path in enumerate(paths)
        )
    )
    assert sorted(view.version for view in views) == ["v0", "v1", "v2", "v3"]
    assert [model.name for model in engine.registry.list_models()] == ["c", "many"]
    with pytest.raises(Unavailable, match="no active version"):
        await engine.predict("many", [[0.0]])


async def test_rollback(engine: Engine) -> None:
    """Back to what was active before, never to what was rolled back from; then there is none."""
    await engine.registry.switch_model("c", "v1")
    view = await engine.rollback("c")
    assert (view.from_, view.to) == ("v1", "v10")
    assert (await engine.predict("c", [[0.0]])).version == "v10"
    with pytest.raises(Conflict, match="no version to roll back to"):
        await engine.rollback("c")


async def test_start_switch(engine: Engine) -> None:
    """It answers when the version does, with an operation that can be looked up but not aborted."""
    operation = await engine.start_switch(
        target_version="v2", strategy_type=SwitchingStrategyType.IMMEDIATE, strategy_config=None
    )
    assert (await engine.predict("c", [[0.0]])).version == "v2"
    assert operation.state == "done"
    status = engine.get_switching_status(operation)
    assert (status["version"], status["from_version"], status["state"]) == ("v2", "v10", "done")
    assert engine.get_switching_status()["models"]["c"]["active"] == "v2"
    with pytest.raises(Conflict, match="it is done"):
        await engine.abort_switch(operation)
    with pytest.raises(NotFound):
        await engine.abort_switch("nothing")


@pytest.mark.parametrize("strategy", ["CANARY", "", "blue_green"])
async def test_other_strategies_are_refused(engine: Engine, strategy: str) -> None:
    """A strategy that does not exist changes nothing, and the error names what there is."""
    with pytest.raises(ConfigError, match=r"does not exist here: use 'immediate'"):
        await engine.start_switch("v2", strategy)
    with pytest.raises(ConfigError, match=r"takes no settings: remove 'steps'"):
        await engine.start_switch("v2", "immediate", {"steps": 4})
    assert (await engine.predict("c", [[0.0]])).version == "v10"


async def test_a_switch_can_be_aborted_while_it_prepares(engine: Engine, tmp_path: Path) -> None:
    """Who waits for it hears so, and the old version answers on."""
    release = tmp_path / "release"
    source = (
        "import time\nfrom pathlib import Path\n"
        f"Path({str(tmp_path / 'loading')!r}).touch()\n"
        f"while not Path({str(release)!r}).exists(): time.sleep(0.002)\n"
        "class Model:\n    def predict(self, X): return [11] * len(X)\n"
    )
    engine.registry.register_model("c", "v11", write_source(tmp_path / "slow", source))
    switch = asyncio.create_task(engine.start_switch("v11", model="c"))
    await until_there(tmp_path / "loading")
    status = engine.get_switching_status()
    assert status["switching"]
    aborted = await engine.abort_switch(status["operations"][0]["id"])
    assert aborted.state == "aborted"
    with pytest.raises(Conflict, match="was aborted"):
        await switch
    release.touch()
    assert engine.get_switching_status(aborted)["state"] == "aborted"
    assert (await engine.predict("c", [[0.0]])).version == "v10"
    await engine.start_switch("v11", model="c")
    assert (await engine.predict("c", [[0.25]])).values.tolist() == [11]


async def test_a_load_that_takes_too_long(folder: Path, tmp_path: Path) -> None:
    """It is given up after load_seconds; what answered before answers on."""
    release = tmp_path / "release"
    source = f"import time, os\nwhile not os.path.exists({str(release)!r}): time.sleep(0.002)\n"
    bad = write_source(tmp_path / "slow", source, YAML + "load_seconds: 0.1\n")
    async with Engine(folder, trust_code=True, settle_seconds=0) as engine:
        engine.registry.register_model("c", "v11", bad)
        with pytest.raises(LoadError, match=r"longer than 0\.1 s"):
            await engine.registry.switch_model("c", "v11")
        assert (await engine.predict("c", [[0.0]])).version == "v10"
        release.touch()


async def test_a_failing_request_fails_alone(engine: Engine) -> None:
    """The model's exception is told and chained; others are answered."""
    good, bad = await asyncio.gather(
        engine.predict("c", [[0.0]]), engine.predict("c", [[2.0]]), return_exceptions=True
    )
    assert not isinstance(good, BaseException)
    assert isinstance(bad, ModelFailed)
    assert "two is one too many" in str(bad)
    assert isinstance(bad.__cause__, ValueError)


async def test_code_needs_trust(folder: Path, tmp_path: Path) -> None:
    """Without trust a version that is code is not loaded, and a prediction says why."""
    async with Engine(folder, settle_seconds=0) as engine:
        with pytest.raises(Unavailable, match="make the engine with trust_code=True"):
            await engine.predict("c", [[0.0]])
        with pytest.raises(UntrustedCode):
            engine.registry.register_model("d", "v1", write_constant(tmp_path / "d", 1))


async def test_a_version_that_cannot_be_tried_out(tmp_path: Path) -> None:
    """It is served only where that is allowed, and the error names the argument."""
    write_source(tmp_path / "m" / "v1", CONSTANT.format(value=1), "")
    async with Engine(tmp_path, trust_code=True, settle_seconds=0) as engine:
        with pytest.raises(Unavailable, match="allow_unvalidated=True"):
            await engine.predict("m", [[0.0]])
    options: dict[str, Any] = {"trust_code": True, "settle_seconds": 0, "allow_unvalidated": True}
    async with Engine(tmp_path, **options) as engine:
        assert (await engine.predict("m", [[0.0], [0.0]])).values.tolist() == [1, 1]
        assert engine.registry.get_model("m").versions[0].unvalidated


async def test_several_instances(tmp_path: Path) -> None:
    """Each is loaded and has a thread of its own."""
    source = (
        "import threading, time\n"
        "class Model:\n"
        "    def predict(self, X):\n"
        "        time.sleep(0.01)\n"
        "        return [threading.get_ident()] * len(X)\n"
    )
    write_source(tmp_path / "m" / "v1", source, YAML + "instances: 2\nbatch_rows: 1\n")
    async with Engine(tmp_path, trust_code=True, settle_seconds=0) as engine:
        assert engine.registry.get_model("m").versions[0].instances == 2
        answers = await asyncio.gather(*(engine.predict("m", [[0.0]]) for _ in range(8)))
        assert len({int(answer.values[0]) for answer in answers}) == 2


async def test_a_newer_switch_supersedes_one_that_prepares(engine: Engine, tmp_path: Path) -> None:
    """The earlier one is told; the newer one is what counts."""
    release = tmp_path / "release"
    source = (
        "import time\nfrom pathlib import Path\n"
        f"Path({str(tmp_path / 'loading')!r}).touch()\n"
        f"while not Path({str(release)!r}).exists(): time.sleep(0.002)\n"
        "class Model:\n    def predict(self, X): return [11] * len(X)\n"
    )
    engine.registry.register_model("c", "v11", write_source(tmp_path / "slow", source))
    earlier = asyncio.create_task(engine.registry.switch_model("c", "v11"))
    await until_there(tmp_path / "loading")
    await engine.registry.switch_model("c", "v2")
    with pytest.raises(Conflict, match="superseded"):
        await earlier
    release.touch()
    assert (await engine.predict("c", [[0.0]])).version == "v2"


async def test_memory_mb_is_refused(engine: Engine, tmp_path: Path) -> None:
    """A limit that cannot be kept within a process is not ignored."""
    path = write_constant(tmp_path / "small", 1, YAML + "memory_mb: 100\n")
    engine.registry.register_model("c", "v11", path)
    with pytest.raises(LoadError, match="memory_mb cannot be kept"):
        await engine.registry.switch_model("c", "v11")


async def test_state_outlives_the_engine(folder: Path, tmp_path: Path) -> None:
    """With a state directory what was active is active again; two engines cannot share it."""
    options: dict[str, Any] = {
        "trust_code": True, "state_dir": tmp_path / "state", "settle_seconds": 0,
    }  # fmt: skip
    async with Engine(folder, **options) as engine:
        await engine.registry.switch_model("c", "v1")
        with pytest.raises(ConfigError, match="in use"):
            await Engine(folder, **options).start()
    async with Engine(folder, **options) as engine:
        assert (await engine.predict("c", [[0.0]])).version == "v1"
        assert (await engine.rollback("c")).to == "v10"


async def test_new_versions_in_the_folder_are_registered(folder: Path, tmp_path: Path) -> None:
    """They are noticed while it runs, and not activated."""
    options: dict[str, Any] = {"settle_seconds": 0, "poll_seconds": 0.02, "trust_code": True}
    async with Engine(folder, **options) as engine:
        write_constant(folder / "c" / "v11", 11)
        async with asyncio.timeout(30):
            while "v11" not in _versions(engine):  # noqa: ASYNC110 - the folder is polled
                await asyncio.sleep(0.02)
        assert (await engine.predict("c", [[0.0]])).version == "v10"
        await engine.registry.switch_model("c", "v11")
        assert (await engine.predict("c", [[0.0]])).values.tolist() == [11]


async def test_start_and_stop(folder: Path) -> None:
    """Nothing works before the start or after the stop; nothing outlives the stop."""
    before = set(threading.enumerate())
    engine = Engine(folder, trust_code=True, settle_seconds=0)
    with pytest.raises(Unavailable, match="the engine is not started: use it within"):
        await engine.predict("c", [[0.0]])
    with pytest.raises(Unavailable, match="not started"):
        engine.registry.list_models()
    await engine.start()
    with pytest.raises(Conflict, match="started already"):
        await engine.start()
    assert (await engine.predict("c", [[0.0]])).version == "v10"
    await engine.stop()
    await engine.stop()
    with pytest.raises(Unavailable, match="the engine is stopped"):
        await engine.predict("c", [[0.0]])
    left = {each.name for each in set(threading.enumerate()) - before}
    assert not [name for name in left if name.startswith("hotswap")]
    await engine.start()
    assert (await engine.predict("c", [[0.0]])).version == "v10"
    await engine.stop()


async def test_a_stop_waits_for_requests_in_flight(folder: Path, tmp_path: Path) -> None:
    """They are answered; new ones are refused."""
    slow = "import time\nclass Model:\n    def predict(self, X):\n        time.sleep(0.05)\n        return X[:, 0]\n"
    write_source(folder / "slow" / "v1", slow)
    engine = await Engine(folder, trust_code=True, settle_seconds=0).start()
    flying = [asyncio.create_task(engine.predict("slow", [[float(n)]])) for n in range(3)]
    await asyncio.sleep(0)
    await engine.stop()
    assert [(await each).values.tolist() for each in flying] == [[0], [1], [2]]


async def test_an_unreadable_folder(tmp_path: Path) -> None:
    """A folder that is not there is a clear error, and leaves nothing running."""
    engine = Engine(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        await engine.start()
    assert not [each for each in threading.enumerate() if each.name.startswith("hotswap")]


async def test_settings_out_of_range() -> None:
    """They are refused when they are given."""
    with pytest.raises(ConfigError, match="load_seconds"):
        Engine(load_seconds=0)
    with pytest.raises(ConfigError, match="keep_warm_seconds"):
        Engine(keep_warm_seconds=float("nan"))
    with pytest.raises(ConfigError, match="memory_budget_mb"):
        Engine(memory_budget_mb=0)


async def test_bad_timeouts_are_refused(engine: Engine) -> None:
    """A timeout is a positive number of seconds."""
    with pytest.raises(BadInput, match="timeout"):
        await engine.predict("c", [[0.0]], timeout=0)


async def test_mounted_in_fastapi(folder: Path) -> None:
    """Its routes answer below the mount; before the start they say 503."""
    engine = Engine(folder, trust_code=True, settle_seconds=0)
    app = FastAPI()
    app.mount("/models", engine.asgi())
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://t") as client:
        body = {"features": [0.0]}
        early = await client.post("/models/predict", json=body)
        assert early.status_code == 503
        assert "not started" in early.json()["error"]
        async with engine:
            assert (await client.get("/models/v2/health/ready")).json() == {"ready": True}
            answer = await client.post("/models/predict", json=body)
            assert answer.json()["prediction"] == 10
            assert answer.headers["x-hotswap-version"] == "v10"
            await engine.registry.switch_model("c", "v1")
            inputs = [{"name": "x", "datatype": "FP64", "shape": [2, 1], "data": [0.0, 0.5]}]
            oip = await client.post("/models/v2/models/c/infer", json={"inputs": inputs})
            assert oip.json()["outputs"][0]["data"] == [1, 1]
            failed = await client.post("/models/predict", json={"features": [2.0]})
            assert failed.status_code == 500
            assert "two is one too many" in failed.json()["error"]
            stats = (await client.get("/models/v2/models/c/stats")).json()["model_stats"]
            assert {each["version"] for each in stats} == {"v1", "v10"}
            index = (await client.post("/models/v2/repository/index")).json()
            assert [each["version"] for each in index] == ["v1", "v2", "v10"]


async def test_the_application_starts_and_stops_its_engine(folder: Path) -> None:
    """Run by itself it follows the lifespan; an engine that runs already is left running."""
    engine = Engine(folder, trust_code=True, settle_seconds=0)
    assert await _lifespan(engine) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(Unavailable):
        engine.registry.list_models()
    async with engine:
        await _lifespan(engine)
        assert [view.name for view in engine.registry.list_models()] == ["c"]
    missing = Engine(folder / "nothing")
    assert await _lifespan(missing) == ["lifespan.startup.failed"]


def _versions(engine: Engine) -> list[str]:
    return [view.version for view in engine.registry.get_model("c").versions]


def _states(engine: Engine) -> dict[str, str]:
    """Of the versions of its only model, as requests see them."""
    table = engine.asgi().plane.table("g")
    return {entry.version: entry.state for entry in table.versions}


async def _lifespan(engine: Engine) -> list[str]:
    """One life of its application; what it said."""
    said: list[str] = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        said.append(message["type"])

    await engine.asgi()({"type": "lifespan"}, receive, send)
    return said


def test_it_works_under_uvloop(folder: Path) -> None:
    """On another event loop all is the same."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> str:
        async with Engine(folder, trust_code=True, settle_seconds=0) as engine:
            await engine.registry.switch_model("c", "v2")
            return (await engine.predict("c", [[0.0]])).version

    assert uvloop.run(main()) == "v2"
