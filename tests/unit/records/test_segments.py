"""Reading segments: what is whole is read, what is not is named, nothing is raised."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotswap.records.files import segments
from hotswap.records.segments import read_segment
from hotswap.records.writer import Writer
from tests.unit.records.recorded import START, table


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """Three batches of two lines."""
    writer = Writer(tmp_path, "run", START)
    for name in "abc":
        lines = table(f"{name}1", f"{name}2", input_x=[1.0, 2.0], input_t=["text", None])
        writer.write("m", lines.to_batches()[0], {"0.0": 8}, START)
    writer.close()
    return segments(tmp_path, "m")[0].path


def test_what_is_whole_is_read_wherever_it_is_cut(segment: Path) -> None:
    """As a writer that is killed leaves it: never damaged, never more or less than was whole."""
    data = segment.read_bytes()
    whole = []
    for length in range(len(data)):
        segment.write_bytes(data[:length])
        read = read_segment(segment)
        assert read.problem == ""
        whole.append(len(read.batches))
    assert whole == sorted(whole)
    assert (whole[0], whole[-1]) == (0, 3)
    segment.write_bytes(data)
    assert read_segment(segment)[1:] == ("", False)


@pytest.mark.parametrize("flip", [0xFF, 0x01])
def test_what_is_damaged_is_named_and_the_rest_is_read(segment: Path, flip: int) -> None:
    """What lies before the damage; whatever byte it is."""
    data = segment.read_bytes()
    problems = 0
    for at in range(0, len(data), 7):
        segment.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
        read = read_segment(segment)
        problems += bool(read.problem)
        assert not read.problem or read.problem.startswith(segment.name)
        for batch in read.batches:
            batch.validate(full=True)
            assert batch.num_rows == 2
    assert problems


def test_other_columns_than_it_says(segment: Path) -> None:
    """Would be another model's: the name tells them."""
    moved = segment.rename(segment.with_name("000000000001-01234567.arrows"))
    assert "columns" in read_segment(moved).problem
    assert read_segment(moved).batches == []


@pytest.mark.parametrize("content", [b"", b"no", b"something else altogether"])
def test_what_is_no_segment(tmp_path: Path, content: bytes) -> None:
    """Nothing is in it."""
    path = tmp_path / "000000000001-01234567.arrows"
    path.write_bytes(content)
    assert read_segment(path).batches == []
    assert read_segment(tmp_path / "gone.arrows") == ([], "", False)
