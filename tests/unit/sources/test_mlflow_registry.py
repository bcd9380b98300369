"""MLflow's registry by a client and an artifact store that say whatever they like."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hotswap.core.registry_wishes import Letter
from hotswap.core.uris import ModelReference
from hotswap.errors import BadInput, LoadError, RegistryRefused, Unavailable
from hotswap.sources import mlflow_registry
from hotswap.sources.mlflow_registry import MlflowRegistry, _at_most, _outages, _walk
from hotswap.sources.remote import FetchLimits

URI = "http://mlflow:5000"
LIMITS = FetchLimits(bytes=1000, files=5)


class Client:
    """Says that every version's files lie at ``source``."""

    def __init__(self, source: str = "", **more: Any) -> None:
        self.source = source
        self.more = more

    def get_model_version(self, name: str, version: str) -> Any:
        return SimpleNamespace(
            name=name, version=int(version), run_id="r", description="New.", status="READY"
        )

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        return self.source

    def get_logged_model(self, id: str) -> Any:
        return SimpleNamespace(artifact_location=self.more["location"])

    def search_registered_models(self, **_: Any) -> Any:
        raise ConnectionError("refused")


def fetch(
    source: str, into: Path, *roots: Path, prefixes: tuple[str, ...] = (), **more: Any
) -> Any:
    registry = MlflowRegistry(URI, Client(source, **more))
    return registry.fetch(ModelReference("m", version="1"), into, LIMITS, prefixes, roots)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("mlflow-artifacts://evil.example/1/model", "another tracking server"),
        ("http://169.254.169.254/latest", "does not read"),
        ("dbfs:/models/1", "does not read"),
        ("s3://secrets/model", "--allow-uri"),
        ("s3://allowed/../secrets/model", "plain"),
        ("file:///etc", "outside of the folders"),
        ("/etc/passwd", "outside of the folders"),
        ("file://host/etc", "another host"),
    ],
)
def test_sources_are_not_trusted(tmp_path: Path, source: str, said: str) -> None:
    """A registry's word opens neither this machine's files nor other servers, named at once or by
    way of a logged model.
    """
    with pytest.raises(BadInput, match=said):
        fetch(source, tmp_path, tmp_path / "roots", prefixes=("s3://allowed",))
    with pytest.raises(BadInput, match=said):
        fetch("models:/m-1", tmp_path, tmp_path, prefixes=("s3://allowed",), location=source)


def test_a_local_source_within_the_roots_is_located(tmp_path: Path) -> None:
    """It is not copied here: taking it in does that. A link out of the roots is followed first."""
    inside = tmp_path / "roots" / "model"
    inside.mkdir(parents=True)
    got = fetch(f"file://{inside}", tmp_path / "into", tmp_path / "roots")
    assert got.path == str(inside)
    assert got.description == "New."
    (tmp_path / "roots" / "link").symlink_to("/etc")
    with pytest.raises(BadInput, match="outside"):
        fetch(str(tmp_path / "roots" / "link"), tmp_path, tmp_path / "roots")


class Artifacts:
    """MLflow's repository of artifacts, which lists and writes what it likes."""

    def __init__(
        self, listing: dict[str | None, list[tuple[str, bool, int]]], content: bytes = b"abc"
    ) -> None:
        self.listing = listing
        self.content = content

    def list_artifacts(self, path: str | None) -> list[Any]:
        return [
            SimpleNamespace(path=p, is_dir=is_dir, file_size=size)
            for p, is_dir, size in self.listing.get(path, [])
        ]

    def download_artifacts(self, path: str, into: str) -> None:
        target = Path(into) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.content)


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is served for ``mlflow-artifacts:``."""
    import sys

    held: dict[str, Artifacts] = {}
    module = SimpleNamespace(get_artifact_repository=lambda *_, **__: held["it"])
    name = "mlflow.store.artifact.artifact_repository_registry"
    monkeypatch.setitem(sys.modules, name, module)
    return held


def test_files_come_through_the_tracking_server(tmp_path: Path, artifacts: Any) -> None:
    """Folders and files, without hidden ones."""
    artifacts["it"] = Artifacts(
        {None: [("MLmodel", False, 3), ("a", True, 0), (".x", False, 1)], "a": [("a/b", False, 3)]}
    )
    got = fetch("mlflow-artifacts:/0/r/artifacts/model", tmp_path)
    files = {str(p.relative_to(got.path)) for p in Path(got.path).rglob("*") if p.is_file()}
    assert files == {"MLmodel", "a/b"}
    assert got.uri == "models:/m/1"


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "a\\evil", "a\nb", "a//b", "C:x", "./a"]
)
def test_listed_names_are_not_trusted(tmp_path: Path, artifacts: Any, name: str) -> None:
    """Nothing is written for them."""
    artifacts["it"] = Artifacts({None: [("MLmodel", False, 3), (name, False, 3)]})
    with pytest.raises(LoadError, match=r"name|part"):
        fetch("mlflow-artifacts:/x", tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_folders_lead_downwards_and_end(artifacts: Any) -> None:
    """A listing that leads elsewhere, on and on, or into itself, is refused."""
    aside = Artifacts({None: [("a", True, 0)], "a": [("b/c", False, 1)]})
    with pytest.raises(LoadError, match="outside"):
        list(_walk(aside, None, 0, LIMITS, [0]))
    itself = Artifacts({None: [("a", True, 0)], "a": [("a", True, 0)]})
    with pytest.raises(LoadError, match="outside"):
        list(_walk(itself, None, 0, LIMITS, [0]))

    class Endless(Artifacts):
        def list_artifacts(self, path: str | None) -> list[Any]:
            return [SimpleNamespace(path=f"{path}/x" if path else "x", is_dir=True, file_size=0)]

    with pytest.raises(LoadError, match="fetch_files"):
        list(_walk(Endless({}), None, 0, LIMITS, [0]))
    with pytest.raises(LoadError, match="deep"):
        list(_walk(Endless({}), None, 0, FetchLimits(1, 1000), [0]))


def test_bytes_are_bounded_whatever_is_listed(tmp_path: Path, artifacts: Any) -> None:
    """By the listing at once, else by what may be written; other bytes than listed are noticed."""
    artifacts["it"] = Artifacts({None: [("a", False, 5000)]})
    with pytest.raises(LoadError, match="fetch_mb"):
        fetch("mlflow-artifacts:/x", tmp_path / "1")
    for name in "23":
        (tmp_path / name).mkdir()
    artifacts["it"] = Artifacts({None: [("a", False, 10)]}, b"x" * 5000)
    with pytest.raises(LoadError, match="fetch_mb"):
        fetch("mlflow-artifacts:/x", tmp_path / "2")
    artifacts["it"] = Artifacts({None: [("a", False, 10)]})
    with pytest.raises(LoadError, match="being written"):
        fetch("mlflow-artifacts:/x", tmp_path / "3")
    with pytest.raises(RuntimeError, match="other"), _at_most(10):
        raise RuntimeError("other")


def test_errors_are_told_apart() -> None:
    """An outage is one; what the registry refuses is not tried for ever."""
    with pytest.raises(Unavailable, match="refused"):
        MlflowRegistry(URI, Client()).look([], "champion", "challenger", {})

    class RestException(Exception):
        def __init__(self, status: int) -> None:
            self.status = status
            self.error_code = "INVALID_PARAMETER_VALUE"

        def get_http_status_code(self) -> int:
            return self.status

    for status, kind in (
        (400, RegistryRefused),
        (404, RegistryRefused),
        (403, LoadError),  # permissions come and go
        (503, Unavailable),
        (429, Unavailable),
    ):
        with pytest.raises(kind) as caught, _outages():
            raise RestException(status)
        assert type(caught.value) is kind

    class Refusing(Client):
        def set_model_version_tag(self, *_: Any) -> None:
            raise RestException(400)

    with pytest.raises(RegistryRefused, match="refuses"):
        MlflowRegistry(URI, Refusing()).tell(
            "m", Letter("r", "1", "failed"), "champion", "http://x"
        )


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra to install."""
    import sys

    from hotswap.errors import MissingDependency

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependency, match=r"hotswap\[mlflow\]"):
        mlflow_registry._client(URI)
