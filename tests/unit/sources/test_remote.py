"""Fetching from object stores that list and send whatever they like."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hotswap.core.uris import Place
from hotswap.errors import LoadError
from hotswap.sources.remote import FetchLimits, fetch

PLACE = Place("s3", "bucket/fraud/3")
LIMITS = FetchLimits(bytes=1000, files=5)


class FakeStore:
    """An fsspec file system that lists ``entries`` (name below the root -> content) as given."""

    def __init__(
        self,
        entries: Mapping[str, bytes],
        sizes: Mapping[str, int] | None = None,
        root: str = PLACE.path,
    ) -> None:
        self.files = {f"{root}/{name}": content for name, content in entries.items()}
        self.sizes = {f"{root}/{name}": size for name, size in (sizes or {}).items()}
        self.root = root
        self.opened: list[str] = []

    def info(self, path: str) -> dict[str, Any]:
        if path in self.files:
            return self._entry(path)
        if not any(name.startswith(path + "/") for name in self.files):
            raise FileNotFoundError(path)
        return {"name": path, "type": "directory", "size": 0}

    def _entry(self, path: str) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": self.sizes.get(path, len(self.files[path]))}

    def ls(self, folder: str, detail: bool = True) -> list[dict[str, Any]]:
        return [self._entry(path) for path in self.files if folder == self.root]

    def open(self, path: str, mode: str, **_: object) -> io.BytesIO:
        self.opened.append(path)
        return io.BytesIO(self.files[path])


def test_a_folder_is_copied(tmp_path: Path) -> None:
    """Its files, without hidden ones and the marker of the folder."""
    store = FakeStore({"model.onnx": b"abc", "sub/x.txt": b"d", ".git/config": b"-", "": b""})
    found = fetch(PLACE, tmp_path, LIMITS, store)
    assert found == tmp_path / "model"
    files = {str(p.relative_to(found)): p.read_bytes() for p in found.rglob("*") if p.is_file()}
    assert files == {"model.onnx": b"abc", "sub/x.txt": b"d"}


def test_a_file_is_copied_alone(tmp_path: Path) -> None:
    """Under its own name, so that its format can be told."""
    place = Place("s3", "bucket/fraud/3/model.tar.gz")
    found = fetch(place, tmp_path, LIMITS, FakeStore({"model.tar.gz": b"gz", "other": b"-"}))
    assert found == tmp_path / "model.tar.gz"
    assert [p.name for p in tmp_path.iterdir()] == ["model.tar.gz"]


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "C:evil", "a\nb", "a\x00b", "a//b",
     "./a", "a/./b", "\udcff", "‮evil"],
)  # fmt: skip
def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    """Before anything is read: nothing is written, inside or outside."""
    store = FakeStore({"model.onnx": b"abc", name: b"evil"})
    into = tmp_path / "in"
    into.mkdir()
    with pytest.raises(LoadError, match=r"name|outside|part"):
        fetch(PLACE, into, LIMITS, store)
    assert store.opened == []
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_what_is_listed_outside_is_refused(tmp_path: Path) -> None:
    """A store may not list a neighbour's files as this folder's."""
    store = FakeStore({"model.onnx": b"abc"})
    store.files["bucket/other/secret"] = b"evil"
    with pytest.raises(LoadError, match="outside"):
        fetch(PLACE, tmp_path, LIMITS, store)


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    """Object stores can hold both; a folder cannot."""
    with pytest.raises(LoadError, match="below"):
        fetch(PLACE, tmp_path, LIMITS, FakeStore({"a": b"1", "a/b": b"2"}))


def test_limits_hold_before_anything_is_read(tmp_path: Path) -> None:
    """By the store's own word, in bytes and in files; the setting is named."""
    store = FakeStore({"a": b"x" * 600, "b": b"y" * 600})
    with pytest.raises(LoadError, match="fetch_mb"):
        fetch(PLACE, tmp_path, LIMITS, store)
    with pytest.raises(LoadError, match="fetch_files"):
        fetch(PLACE, tmp_path, LIMITS, FakeStore({f"f{n}": b"" for n in range(6)}))
    assert store.opened == []


def test_bytes_are_counted_as_they_arrive(tmp_path: Path) -> None:
    """Whatever the listing said: a store that lies is noticed."""
    with pytest.raises(LoadError, match="fetch_mb"):
        fetch(PLACE, tmp_path, LIMITS, FakeStore({"a": b"x" * 5000}, {"a": 10}))


def test_a_file_that_is_being_written_is_noticed(tmp_path: Path) -> None:
    """Other bytes came than were listed."""
    with pytest.raises(LoadError, match="being written"):
        fetch(PLACE, tmp_path, LIMITS, FakeStore({"a": b"abc"}, {"a": 10}))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    """In a sentence with the address."""
    with pytest.raises(LoadError, match="nothing at s3://bucket/fraud/3"):
        fetch(PLACE, tmp_path, LIMITS, FakeStore({}))


def test_errors_of_the_library_are_sentences(tmp_path: Path) -> None:
    """With its words up to a query, in which a signature could stand."""

    class Broken(FakeStore):
        def info(self, path: str) -> dict[str, Any]:
            raise OSError("cannot reach https://store/x?X-Amz-Signature=abc")

    with pytest.raises(LoadError, match=r"cannot reach https://store/x$"):
        fetch(PLACE, tmp_path, LIMITS, Broken({}))


def test_endless_folders_are_refused(tmp_path: Path) -> None:
    """A store may list folders in folders for ever."""

    class Endless(FakeStore):
        def info(self, path: str) -> dict[str, Any]:
            return {"name": path, "type": "directory", "size": 0}

        def ls(self, folder: str, detail: bool = True) -> list[dict[str, Any]]:
            return [{"name": f"{folder}/x", "type": "directory", "size": 0}]

    with pytest.raises(LoadError, match="deep"):
        fetch(PLACE, tmp_path, LIMITS, Endless({}))
