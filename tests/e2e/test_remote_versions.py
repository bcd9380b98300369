"""Versions registered from an object store: a real server against an S3 of moto's on loopback."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.harness import Server
from tests.models import write_breast_cancer

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

BUCKET = "models"


class Bucket:
    """One bucket of a store, and the environment that leads there."""

    def __init__(self, url: str) -> None:
        import botocore.session

        self.env = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._client: Any = botocore.session.get_session().create_client(
            "s3", region_name="us-east-1", endpoint_url=url, aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )  # fmt: skip
        self._client.create_bucket(Bucket=BUCKET)

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def put_folder(self, key: str, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder)}", path.read_bytes())

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    bucket = Bucket(f"http://{host}:{port}")
    yield bucket
    bucket.close()
    server.stop()


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    folder = tmp_path / "trained"
    folder.mkdir()
    write_breast_cancer(folder, "onnx")
    return folder


def register(server: Server, version: str, uri: str, **more: object) -> Any:
    body = {"version": version, "uri": uri} | more
    return server.control("POST", "/api/v1/models/cancer/versions", body)


def staged(server: Server) -> list[Path]:
    return [p for p in (server.state_dir / "artifacts").iterdir() if p.name.startswith(".")]


def test_versions_come_from_an_object_store(serve: Serve, bucket: Bucket, trained: Path) -> None:
    """A folder, a single file and a packed folder, each served; nothing is left of the fetching."""
    bucket.put_folder("cancer/3", trained)
    bucket.put("alone/model.onnx", (trained / "model.onnx").read_bytes())
    packed = trained.parent / "model.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(trained, "model")
    bucket.put("packed/model.tar.gz", packed.read_bytes())
    server = serve("--allow-uri=s3://models/", ready=False, env=bucket.env)
    server.wait_control()
    uris = {
        "folder": "s3://models/cancer/3",
        "file": "s3://models/alone/model.onnx",
        "packed": "s3://models/packed/model.tar.gz",
    }
    digests = {}
    for version, uri in uris.items():
        answer = register(server, version, uri)
        assert answer.status == 201, answer
        assert answer.json["uri"] == uri
        digests[version] = answer.json["digest"]
        assert server.switch("cancer", version).status == 200
        answered = server.predict("cancer", [0.0] * 30)
        assert answered.status == 200
        assert answered.json["version"] == version
    assert digests["folder"] == digests["packed"]
    assert staged(server) == []


def test_what_is_not_allowed_is_refused(serve: Serve, bucket: Bucket, trained: Path) -> None:
    """Outside of the prefixes, of other schemes, in place; each with a sentence, nothing is read."""
    bucket.put_folder("public/cancer", trained)
    bucket.put_folder("secret/cancer", trained)
    server = serve("--allow-uri=s3://models/public", ready=False, env=bucket.env)
    server.wait_control()
    for uri, said in {
        "s3://models/secret/cancer": "--allow-uri",
        "s3://models/public/../secret/cancer": "plain",
        "s3://models/public2": "--allow-uri",
        "gs://models/public/cancer": "--allow-uri",
        "http://127.0.0.1/model.onnx": "not supported",
        "models:/cancer@champion": "--registry mlflow",
    }.items():
        answer = register(server, "v1", uri)
        assert answer.status == 400, (uri, answer)
        assert said in answer.error, (uri, answer.error)
    answer = register(server, "v1", "s3://models/public/cancer", in_place=True)
    assert answer.status == 400
    assert "in place" in answer.error


def test_changed_content_under_the_same_id_is_refused(
    serve: Serve, bucket: Bucket, trained: Path
) -> None:
    """A version is bound to its digest: registered again it is answered, changed it is a conflict."""
    bucket.put_folder("bound/cancer", trained)
    server = serve("--allow-uri=s3://models", ready=False, env=bucket.env)
    server.wait_control()
    first = register(server, "v1", "s3://models/bound/cancer")
    assert first.status == 201
    again = register(server, "v1", "s3://models/bound/cancer")
    assert again.json["digest"] == first.json["digest"]
    bucket.put("bound/cancer/notes.txt", b"other")
    changed = register(server, "v1", "s3://models/bound/cancer")
    assert changed.status == 409
    assert "immutable" in changed.error
    assert staged(server) == []


def test_hostile_keys_and_large_objects_are_refused(
    serve: Serve, bucket: Bucket, trained: Path
) -> None:
    """A key with '..' in it, and more than the operator allows."""
    bucket.put_folder("bad/cancer", trained)
    bucket.put("bad/cancer/../../../evil", b"evil")
    bucket.put_folder("large/cancer", trained)
    bucket.put("large/cancer/ballast", b"x" * (2 << 20))
    server = serve("--allow-uri=s3://models", "--fetch-mb=1", ready=False, env=bucket.env)
    server.wait_control()
    hostile = register(server, "v1", "s3://models/bad/cancer")
    assert hostile.status in (400, 409, 500), hostile
    assert "not a valid file name" in hostile.error or "outside" in hostile.error
    large = register(server, "v1", "s3://models/large/cancer")
    assert "fetch_mb" in large.error
    gone = register(server, "v1", "s3://models/nowhere")
    assert "nothing at" in gone.error
    assert staged(server) == []
    assert not list(server.state_dir.parent.rglob("evil"))
