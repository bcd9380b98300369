"""MLflow's registry through its own client, against a real server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hotswap.config import fetching_environment
from hotswap.control.fetching import Fetching, FetchPolicy
from hotswap.control.jobs import JobRunner
from hotswap.control.registry_asking import JobAsking, RegistrySpec
from hotswap.core.registry_views import Listed
from hotswap.core.registry_wishes import Letter
from hotswap.errors import BadInput, HotswapError, LoadError, NotFound, Unavailable
from tests.mlflow_server import MlflowServer

pytestmark = pytest.mark.integration

REPORT = "http://127.0.0.1:8081/api/v1/rollouts/r1"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def jobs() -> AsyncIterator[JobRunner]:
    import sys

    runner = JobRunner([sys.executable], 600.0, fetching_environment)
    yield runner
    await runner.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "inner" / "weights").write_bytes(os.urandom(3000))
    return folder


def fetching(
    jobs: JobRunner, mlflow: MlflowServer, tmp_path: Path, *roots: Path, **more: object
) -> Fetching:
    policy = FetchPolicy(tracking_uri=mlflow.url, **more)  # type: ignore[arg-type]
    return Fetching(jobs, policy, tmp_path / "state", roots)


async def test_aliases_come_first_then_stages(
    jobs: JobRunner, mlflow: MlflowServer, folder: Path
) -> None:
    """By alias and stage; models without either are left out unless they are named."""
    for name in ("by alias", "by-stage", "neither"):
        mlflow.create_model(name)
        for _ in range(3):
            mlflow.publish(name, folder)
    mlflow.alias("by alias", "champion", "1")
    mlflow.alias("by alias", "challenger", "3")
    mlflow.stage("by-stage", "2", "Production")
    mlflow.stage("by-stage", "3", "Staging")
    asking = JobAsking(jobs, RegistrySpec(mlflow.url))
    seen = {each.name: each for each in await asking.look({})}
    assert seen["by alias"] == Listed("by alias", stable="1", candidate="3")
    assert seen["by-stage"] == Listed("by-stage", production="2", staging="3")
    assert "neither" not in seen
    named = JobAsking(jobs, RegistrySpec(mlflow.url, names=("neither", "nowhere")))
    assert await named.look({}) == [Listed("neither"), Listed("nowhere", missing=True)]


async def test_what_is_gone_is_told(jobs: JobRunner, mlflow: MlflowServer, folder: Path) -> None:
    """A deleted version, and a deleted model, of those that were followed."""
    mlflow.create_model("fading")
    mlflow.publish("fading", folder)
    mlflow.alias("fading", "champion", mlflow.publish("fading", folder))
    mlflow.delete_version("fading", "2")
    asking = JobAsking(jobs, RegistrySpec(mlflow.url))
    seen = {each.name: each for each in await asking.look({"fading": ["1", "2"]})}
    assert seen["fading"] == Listed("fading", gone=("2",))
    mlflow.delete_model("fading")
    seen = {each.name: each for each in await asking.look({"fading": ["1"]})}
    assert seen["fading"] == Listed("fading", missing=True)


async def test_a_version_is_fetched(
    jobs: JobRunner, mlflow: MlflowServer, folder: Path, tmp_path: Path
) -> None:
    """By number and by alias, whole, with where it came from; the staging is removed."""
    mlflow.create_model("fetched")
    mlflow.publish("fetched", folder)
    mlflow.alias("fetched", "champion", "1")
    for uri in ("models:/fetched/1", "models:/fetched@champion"):
        async with fetching(jobs, mlflow, tmp_path).fetched(uri) as (got, private):
            found = Path(got.path)
            assert found.is_relative_to(private)
            for name in ("MLmodel", "inner/weights"):
                assert (found / name).read_bytes() == (folder / name).read_bytes()
            assert got.uri == "models:/fetched/1"
            assert got.origin["mlflow"]["version"] == "1"
        assert not private.exists()
    for uri in ("models:/fetched/7", "models:/fetched@nobody", "models:/nowhere/1"):
        with pytest.raises(NotFound):
            async with fetching(jobs, mlflow, tmp_path).fetched(uri):
                pass


async def test_sources_elsewhere_are_refused(
    jobs: JobRunner, mlflow: MlflowServer, folder: Path, tmp_path: Path
) -> None:
    """A store that the operator does not allow is not read because a registry says so."""
    mlflow.create_model("hostile")
    version = mlflow.publish("hostile", folder, source="s3://secrets/model")
    with pytest.raises(BadInput, match="allow-uri"):
        async with fetching(jobs, mlflow, tmp_path).fetched(f"models:/hostile/{version}"):
            pass


async def test_limits_hold_in_a_registry_too(
    jobs: JobRunner, mlflow: MlflowServer, folder: Path, tmp_path: Path
) -> None:
    """In bytes and files, naming the setting."""
    mlflow.create_model("heavy")
    mlflow.publish("heavy", folder)
    with pytest.raises(LoadError, match="fetch_mb"):
        async with fetching(jobs, mlflow, tmp_path, most_bytes=2000).fetched("models:/heavy/1"):
            pass
    with pytest.raises(LoadError, match="fetch_files"):
        async with fetching(jobs, mlflow, tmp_path, most_files=1).fetched("models:/heavy/1"):
            pass


async def test_the_registry_is_told_once(
    jobs: JobRunner, mlflow: MlflowServer, folder: Path
) -> None:
    """Tags and alias; again it changes nothing; an alias that a person moved is left."""
    mlflow.create_model("told")
    for _ in range(3):
        mlflow.publish("told", folder)
    mlflow.alias("told", "champion", "1")
    asking = JobAsking(jobs, RegistrySpec(mlflow.url, write=True))
    letter = Letter("r1", "2", "promoted", "1", "2")
    for _ in range(2):
        answer = await asking.tell("told", letter, REPORT)
        assert (answer.stable, answer.moved) == ("2", True)
    assert mlflow.aliases("told") == {"champion": "2"}
    assert mlflow.tags("told", "2") == {
        "hotswap.verdict": "promoted",
        "hotswap.rollout": "r1",
        "hotswap.report": REPORT,
    }
    mlflow.alias("told", "champion", "3")
    answer = await asking.tell("told", letter, REPORT)
    assert not answer.moved
    assert "meanwhile" in answer.note
    assert mlflow.aliases("told") == {"champion": "3"}
    gone = await asking.tell("told", Letter("r2", "9", "failed"), REPORT)
    assert "not in the registry" in gone.note


async def test_an_outage_is_said(jobs: JobRunner, tmp_path: Path) -> None:
    """Nobody answers: unavailable, for looking, telling and fetching."""
    spec = RegistrySpec("http://127.0.0.1:9")
    asking = JobAsking(jobs, spec)
    policy = FetchPolicy(tracking_uri=spec.uri)
    with pytest.raises(Unavailable):
        await asking.look({})
    with pytest.raises(Unavailable):
        await asking.tell("m", Letter("r", "1", "failed"), REPORT)
    with pytest.raises(HotswapError, match="cannot be asked"):
        async with Fetching(jobs, policy, tmp_path, ()).fetched("models:/m/1"):
            pass
