"""The last run: hosts and tables on disk, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from hotswap.app.last import Last, LastRun
from hotswap.core.routing import HostRef, RouteTable, VersionEntry
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.ipc.messages import HostSpec, Tripped

SPEC = HostSpec(
    "a", "m", "v1", 0, 0, Artifact("/f", "x", "fake", "sha256:1"), VersionSettings(), None, False, 9
)
TABLE = RouteTable(
    "m", 1, 4, "v1", None, (VersionEntry("v1", "x", "READY", hosts=(HostRef("a", "ha", 0),)),)
)


def test_what_ran_is_read_again(tmp_path: Path) -> None:
    """By another process, from the file alone."""
    LastRun(tmp_path / "last").write([SPEC], [TABLE])
    last = LastRun(tmp_path / "last").read()
    assert last is not None
    assert (last.hosts, last.tables) == ((SPEC,), (TABLE,))
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_what_was_taken_out_is_read_again(tmp_path: Path) -> None:
    """A restart must not bring a candidate back that control or a breaker took out."""
    tripped = Tripped(1, "t", "failed five times in a row", 5)
    LastRun(tmp_path / "last").write([SPEC], [TABLE], {1: "t"}, [tripped])
    last = LastRun(tmp_path / "last").read()
    assert last is not None
    assert (last.lowered, last.tripped) == ({1: "t"}, (tripped,))


def test_nothing_ran_yet(tmp_path: Path) -> None:
    """No file is no last run, and no warning."""
    with capture_logs() as logs:
        assert LastRun(tmp_path / "last").read() is None
    assert logs == []


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", b"\x93\x01", msgspec.msgpack.encode({"version": 1})]
)
def test_a_damaged_file_is_said_and_passed_over(tmp_path: Path, content: bytes) -> None:
    """Control restores from its store then."""
    (tmp_path / "last").write_bytes(content)
    with capture_logs() as logs:
        assert LastRun(tmp_path / "last").read() is None
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_a_file_of_another_version_is_passed_over(tmp_path: Path) -> None:
    """What this code may not understand is not acted on."""
    (tmp_path / "last").write_bytes(msgspec.msgpack.encode(Last(99, (), ())))
    assert LastRun(tmp_path / "last").read() is None


def test_the_same_is_not_written_twice(tmp_path: Path) -> None:
    """Every change of a host asks for a write; most change nothing."""
    run = LastRun(tmp_path / "last")
    run.write([SPEC], [])
    (tmp_path / "last").unlink()
    run.write([SPEC], [])
    assert not (tmp_path / "last").exists()
    run.write([], [])
    assert (tmp_path / "last").exists()


def test_a_disk_that_is_full_costs_a_warning(tmp_path: Path) -> None:
    """Serving goes on; it is said once, and written when there is room again."""
    folder = tmp_path / "state"
    run = LastRun(folder / "last")
    with capture_logs() as logs:
        run.write([SPEC], [])
        run.write([], [])
    assert len(logs) == 1
    folder.mkdir()
    run.write([SPEC], [])
    last = LastRun(folder / "last").read()
    assert last is not None
    assert last.hosts == (SPEC,)
