"""Compacted records in an object store: moto's S3 on loopback, read by DuckDB through fsspec."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from hotswap.ipc.records import Label
from hotswap.records import dataset
from hotswap.records.compact import FEW
from hotswap.records.files import Location
from tests.unit.records.recorded import START, Keeping, chunk, table

S3: Any = fsspec.get_filesystem_class("s3")

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The location of an empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3.clear_instance_cache()
    files = S3()
    name = f"kept-{uuid.uuid4().hex}"
    files.mkdir(name)
    yield f"s3://{name}/records"
    S3.clear_instance_cache()
    server.stop()


def test_records_are_kept_in_a_bucket(tmp_path: Path, bucket: str) -> None:
    """Segments stay here; files go there, are merged, asked and retired there."""
    keeping = Keeping(tmp_path, location=bucket)
    ids = []
    for number in range(FEW + 2):
        ids.append(f"r{number:02}")
        keeping.put(chunk(ids[-1], at=START + number))
        keeping.label(Label(ids[-1], 0, float(number)), received=START + number)
        keeping.drain()
        keeping.compact()
    assert keeping.recording.counts.compact_problem == ""
    assert keeping.ids() == ids
    assert len(Location(keeping.root, bucket).parts("m")) == 3
    assert keeping.ask("SELECT sum(label) FROM labelled") == [(sum(range(FEW + 2)),)]
    assert keeping.ids(since=START + 86400) == []
    assert not list(keeping.root.rglob("*.parquet"))
    keeping.recording.compact(START + 86400 * 40)
    assert keeping.ids() == []
    keeping.kill()


def test_what_another_process_wrote_is_seen(tmp_path: Path, bucket: str) -> None:
    """Listings that were seen before are not trusted."""
    dataset.write_parquet(tmp_path, "m", table("a"), 1, bucket)
    place = Location(tmp_path, bucket)
    (first,) = place.parts("m")
    another = S3(skip_instance_cache=True)
    another.copy(first.path, first.path.replace("1-", "2-"))
    assert [part.first for part in place.parts("m")] == [1, 2]


def test_a_store_that_is_away_keeps_the_segments(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost meanwhile: they are taken there when it is back."""
    keeping = Keeping(tmp_path, location=bucket)
    keeping.put(chunk("a"))
    keeping.drain()
    with monkeypatch.context() as patch:
        patch.setattr(S3, "retries", 1)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        S3.clear_instance_cache()
        keeping.compact()
    S3.clear_instance_cache()
    assert keeping.recording.counts.compact_problem
    assert keeping.ids() == ["a"]
    keeping.compact()
    assert keeping.recording.counts.compact_problem == ""
    assert not list(keeping.root.rglob("*.arrows"))
    assert keeping.ids() == ["a"]
    keeping.kill()
