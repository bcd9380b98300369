"""Route tables as files: whole or not there, the newest kept, damage survived."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotswap.core.routing import HostRef, RouteTable, VersionEntry, choose
from hotswap.ipc.tables import forget_tables, read_table, read_tables, write_table


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "tables").mkdir()
    return str(tmp_path)


def table(index: int = 1, revision: int = 1, stable: str | None = "v1") -> RouteTable:
    entries = (
        VersionEntry("v1", "onnx", "READY", hosts=(HostRef("a", "ha", 0),)),
        VersionEntry("v2", "onnx"),
    )
    return RouteTable(f"m{index}", index, revision, stable, None, entries)


def test_what_is_written_is_read(folder: str) -> None:
    """A table comes back equal, by index and revision only."""
    write_table(folder, table(1, 5))
    assert read_table(folder, 1, 5) == table(1, 5)
    assert read_table(folder, 1, 4) is None
    assert read_table(folder, 5, 1) is None


def test_a_damaged_file_is_no_table(folder: str) -> None:
    """Bytes that are no table are None, not an exception in a request."""
    (Path(folder) / "tables" / "1.1").write_bytes(b"\xc1 nonsense")
    assert read_table(folder, 1, 1) is None


def test_only_revisions_in_force_are_listed(folder: str) -> None:
    """Older, newer, damaged and unfinished files are passed over."""
    for revision in (1, 2, 3):
        write_table(folder, table(1, revision))
    write_table(folder, table(2, 7))
    write_table(folder, table(3, 1))
    tables = Path(folder) / "tables"
    (tables / "4.1").write_bytes(b"")
    (tables / ".5.1").write_bytes((tables / "1.1").read_bytes())
    (tables / "notes.txt").write_text("x")
    words = {1: 2, 2: 7, 3: 9, 4: 1, 5: 1}
    found = read_tables(folder, lambda index: words[index])
    assert sorted((t.index, t.revision) for t in found) == [(1, 2), (2, 7)]


def test_old_revisions_are_forgotten_newer_and_others_stay(folder: str) -> None:
    """Files below the given revision go; the model's newest and other models' stay."""
    for revision in range(1, 6):
        write_table(folder, table(1, revision))
    write_table(folder, table(2, 1))
    forget_tables(folder, 1, below=4)
    assert [r for r in range(1, 6) if read_table(folder, 1, r)] == [4, 5]
    assert read_table(folder, 2, 1) is not None
    forget_tables(folder, 1, below=4)


def test_a_table_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """A missing folder is an OSError for the publisher to report."""
    with pytest.raises(OSError, match="No such file"):
        write_table(str(tmp_path), table())


def test_the_stable_version_answers() -> None:
    """Unpinned requests go to `stable`; without one, or with one that is unknown, to none."""
    chosen = choose(table())
    assert chosen is not None
    assert chosen.version == "v1"
    assert choose(table(stable=None)) is None
    assert choose(table(stable="v9")) is None
