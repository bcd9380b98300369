"""Files that several threads read through one handle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
import pytest

from hotswap.records.shared_reads import Positions, SharedReads


@pytest.fixture
def memory() -> Any:
    fs = fsspec.filesystem("memory")
    fs.pipe("/shared-reads/digits", b"0123456789")
    yield fs
    fs.rm("/shared-reads", recursive=True)


def test_each_thread_has_its_own_position(memory: Any) -> None:
    """Whatever another does between `seek` and `read`."""
    with (
        SharedReads(memory).open("memory://shared-reads/digits") as file,
        ThreadPoolExecutor(1) as other,
    ):
        assert file.seek(2) == 2
        assert other.submit(file.seek, 7).result() == 7
        assert file.read(3) == b"234"
        assert (file.tell(), other.submit(file.tell).result()) == (5, 7)
        assert other.submit(file.read).result() == b"789"
        assert file.read(1) == b"5"


def test_places_are_told_as_files_have_them(memory: Any) -> None:
    """From the start, from here, and from the end."""
    with SharedReads(memory).open("/shared-reads/digits") as file:
        assert isinstance(file, Positions)
        assert (file.seek(-3, 2), file.read(2)) == (7, b"78")
        assert (file.seek(-4, 1), file.read(2)) == (5, b"56")
        assert (file.read(), file.read()) == (b"789", b"")


def test_it_is_the_other_file_system_otherwise(memory: Any) -> None:
    """Found, listed and measured by the one that is wrapped; nothing can be written."""
    shared = SharedReads(memory)
    assert shared.protocol == memory.protocol
    assert shared.ls("/shared-reads", detail=False) == ["/shared-reads/digits"]
    assert shared.info("memory://shared-reads/digits")["size"] == 10
    assert shared.exists("/shared-reads/digits")
    assert not shared.exists("/shared-reads/none")
    assert shared.modified("/shared-reads/digits") == memory.modified("/shared-reads/digits")
    with pytest.raises(FileNotFoundError):
        shared.open("/shared-reads/none")
    with pytest.raises(ValueError, match="mode 'wb'"):
        shared.open("/shared-reads/digits", "wb")
