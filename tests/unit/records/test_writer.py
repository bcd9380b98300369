"""Segments that say how far they reach, and whoever comes back to them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hotswap.ipc.records import Label, Labels
from hotswap.records import writer as writing
from hotswap.records.assemble import assemble_labels
from hotswap.records.files import LABELS, part_name, segments
from hotswap.records.segments import read_segment
from hotswap.records.writer import AGE, Writer
from tests.unit.records.recorded import START, table


def batch(*ids: str, **more: Any) -> pa.RecordBatch:
    return table(*ids, **more).to_batches()[0]


def ids(root: Path, model: str = "m") -> list[str]:
    return [
        each
        for segment in segments(root, model)
        for lines in read_segment(segment.path).batches
        for each in lines["request_id"].to_pylist()
    ]


def test_lines_can_be_read_while_the_segment_is_open(tmp_path: Path) -> None:
    """Each batch is whole at once."""
    writer = Writer(tmp_path, "run", START)
    for name in "abc":
        writer.write("m", batch(name), {"0.0": 8}, START)
        assert ids(tmp_path)[-1] == name
    assert writer.closed("m") == []
    writer.close()
    assert len(writer.closed("m")) == 1
    assert ids(tmp_path) == ["a", "b", "c"]


def test_each_schema_has_segments_of_its_own(tmp_path: Path) -> None:
    """And each model."""
    writer = Writer(tmp_path, "run", START)
    writer.write("m", batch("a"), {}, START)
    writer.write("m", batch("b", input_x=[1.0]), {}, START)
    writer.write("n", batch("c"), {}, START)
    writer.close()
    assert len(segments(tmp_path, "m")) == 2
    assert ids(tmp_path) == ["a", "b"]
    assert ids(tmp_path, "n") == ["c"]


@pytest.mark.parametrize("later", [AGE, -AGE])
def test_a_segment_is_closed_when_it_is_old(tmp_path: Path, later: float) -> None:
    """Also when the clock was set back since."""
    writer = Writer(tmp_path, "run", START)
    writer.write("m", batch("a"), {}, START)
    writer.rotate(START + later / 2)
    assert writer.closed("m") == []
    writer.rotate(START + later)
    assert len(writer.closed("m")) == 1
    writer.write("m", batch("b"), {}, START + later)
    writer.close()
    assert [segment.number for segment in segments(tmp_path, "m")] == [
        START * 100 + 1, START * 100 + 2,
    ]  # fmt: skip


def test_who_comes_back_knows_what_is_written(tmp_path: Path) -> None:
    """By model, schema and ring; of this run of the server alone."""
    first = Writer(tmp_path, "run", START)
    first.write("m", batch("a"), {"0.0": 80, "1.0": 40}, START)
    first.write("m", batch("b"), {"0.0": 160}, START)
    labels = assemble_labels(Labels(START * 1_000_000, [Label("a", 0, 1.0), Label("b", 0, 1.0)]))
    first.write(LABELS, labels, {"0.0": 200}, START)
    first.close()
    second = Writer(tmp_path, "run", START)
    assert second.has("m", batch("x"), "0.0", 160)
    assert not second.has("m", batch("x"), "0.0", 168)
    assert second.has("m", batch("x"), "1.0", 40)
    assert not second.has("m", batch("x"), "2.0", 0)
    assert not second.has("m", batch("x", input_x=[1.0]), "0.0", 8)
    assert not second.has("n", batch("x"), "0.0", 8)
    assert second.has(LABELS, labels, "0.0", 200)
    assert second.label_us == START * 1_000_000 + 1
    assert not Writer(tmp_path, "another", START).has("m", batch("x"), "0.0", 8)


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    """Whatever is left of the folder; a new folder begins with the time."""
    first = Writer(tmp_path, "run", START)
    first.write("m", batch("a"), {}, START)
    first.close()
    (segment,) = segments(tmp_path, "m")
    segment.path.unlink()
    second = Writer(tmp_path, "run", 0.0)
    second.write("m", batch("a"), {}, START)
    second.close()
    assert segments(tmp_path, "m")[0].number == segment.number + 1
    (tmp_path / "next").write_text("")
    folder = tmp_path / "days" / "model=other" / "day=2023-11-15"
    folder.mkdir(parents=True)
    (folder / part_name(1, 999_999_999_998, "0" * 8)).write_bytes(b"")
    third = Writer(tmp_path, "run", 0.0)
    third.write("m", batch("a"), {}, START)
    third.close()
    assert segments(tmp_path, "m")[-1].number == 999_999_999_999


def full(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The disk has room for so many more bytes; what is too long is written in part."""
    left = [after]

    class Disk:
        def __init__(self, path: Path, *_: object, **__: object) -> None:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            self.closed = False

        def write(self, data: Any) -> int:
            view = memoryview(data).cast("B")
            fits = min(left[0], len(view))
            left[0] -= fits
            if len(view) and not fits:
                raise OSError(28, "No space left on device")
            return os.write(self._fd, view[:fits])  # in part, as the system does

        def tell(self) -> int:
            return os.lseek(self._fd, 0, os.SEEK_CUR)

        def fileno(self) -> int:
            return self._fd

        def flush(self) -> None:
            pass

        def close(self) -> None:
            if not self.closed:
                self.closed = True
                os.close(self._fd)

        def readable(self) -> bool:
            return False

        def writable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return False

    monkeypatch.setattr(writing, "open", Disk, raising=False)


def test_a_disk_that_is_full_leaves_whole_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in a batch it happens: what was whole stays, and writing goes on when it can."""
    whole = Writer(tmp_path / "whole", "run", START)
    whole.write("m", batch("a"), {"0.0": 8}, START)
    one = segments(tmp_path / "whole", "m")[0].path.stat().st_size
    whole.write("m", batch("b"), {"0.0": 8}, START)
    two = segments(tmp_path / "whole", "m")[0].path.stat().st_size
    whole.close()
    # The last piece of a batch is short: it must not be taken for written when there is room for some.
    for room in sorted({*range(0, two, 37), *range(one - 24, one), *range(two - 24, two)}):
        root = tmp_path / str(room)
        writer = Writer(root, "run", START)
        written = []
        with monkeypatch.context() as patch:
            full(patch, room)
            for name in "ab":
                try:
                    writer.write("m", batch(name), {"0.0": 8}, START)
                except OSError:
                    break
                written.append(name)
        assert len(written) == (room >= one)
        assert ids(root) == written
        assert all(not read_segment(s.path).cut for s in segments(root, "m"))
        writer.write("m", batch("after"), {"0.0": 8}, START)
        writer.close()
        assert ids(root) == [*written, "after"]


def test_a_damaged_segment_stops_nobody(tmp_path: Path) -> None:
    """Positions are read as far as they can be."""
    writer = Writer(tmp_path, "run", START)
    writer.write("m", batch("a"), {"0.0": 8}, START)
    writer.write("m", batch("b"), {"0.0": 16}, START)
    writer.close()
    (segment,) = segments(tmp_path, "m")
    data = segment.path.read_bytes()
    for at in range(0, len(data), 29):
        segment.path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        Writer(tmp_path, "run", START)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The recorder tries again later."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        Writer(tmp_path / "file" / "records", "run", START)
