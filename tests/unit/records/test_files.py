"""Which files count."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.errors import ConfigError
from hotswap.records.files import (
    LABELS,
    Location,
    Part,
    models,
    part_name,
    segment_folder,
    segments,
    shown,
    without_held,
)

DAY = "2023-11-15"


def part(first: int, last: int, schema: str = "a" * 8, day: str = DAY) -> Part:
    return Part(part_name(first, last, schema), day, first, last, schema)


def test_what_lies_within_another_is_left_out() -> None:
    """Of the same day and schema."""
    parts = [
        part(1, 1),
        part(2, 2),
        part(1, 5),
        part(5, 5, "b" * 8),
        part(5, 6),
        part(3, 3, day="x"),
    ]
    assert [(p.first, p.last, p.schema[0], p.day) for p in without_held(parts)] == [
        (1, 5, "a", DAY), (5, 6, "a", DAY), (5, 5, "b", DAY), (3, 3, "a", "x"),
    ]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)).map(lambda p: part(p[0], sum(p)))))
def test_every_segment_is_still_in_something(parts: list[Part]) -> None:
    """Whatever is left out."""
    kept = without_held(parts)
    covered = {number for p in parts for number in range(p.first, p.last + 1)}
    assert {number for p in kept for number in range(p.first, p.last + 1)} == covered
    assert not any(a is not b and a.holds(b.first, b.last, b.schema) for a in kept for b in kept)


def test_other_files_do_not_disturb(tmp_path: Path) -> None:
    """Whatever lies between ours."""
    folder = tmp_path / "days" / "model=m" / f"day={DAY}"
    for name in (part_name(1, 1, "a" * 8), "x.parquet", f".{part_name(2, 2, 'a' * 8)}.part"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1234")
    (folder.parent / "notes.txt").write_bytes(b"")
    (folder.parent / "day=tomorrow").mkdir()
    place = Location(tmp_path)
    assert [(p.first, p.size, p.day) for p in place.parts("m")] == [(1, 4, DAY)]
    assert place.parts("other") == []
    live = segment_folder(tmp_path, "n")
    live.mkdir(parents=True)
    (live / "notes.txt").write_bytes(b"")
    assert segments(tmp_path, "n") == segments(tmp_path, "other") == []
    assert models(tmp_path, place) == ["m", "n"]


def test_days_are_chosen_by_both_times(tmp_path: Path) -> None:
    """Their first and last included."""
    for day in ("2023-11-14", DAY, "2023-11-16"):
        folder = tmp_path / "days" / "model=m" / f"day={day}"
        folder.mkdir(parents=True)
        (folder / part_name(1, 1, "a" * 8)).write_bytes(b"")
    start = 1_700_006_400.0
    place = Location(tmp_path)
    assert [p.day for p in place.parts("m", start, start + 86399)] == [DAY]
    assert [p.day for p in place.parts("m", start - 1)] == ["2023-11-14", DAY, "2023-11-16"]
    assert [p.day for p in place.parts("m", None, start - 1)] == ["2023-11-14"]


def test_a_model_has_no_place_of_the_labels(tmp_path: Path) -> None:
    """Nor the other way round."""
    assert segment_folder(tmp_path, "labels") != segment_folder(tmp_path, LABELS)
    assert Location(tmp_path).models() == []


@pytest.mark.parametrize("location", ["nothing://x", "nothing://me:secret@x"])
def test_a_place_that_nobody_knows_is_refused(tmp_path: Path, location: str) -> None:
    """Without what it takes to write there."""
    with pytest.raises(ConfigError, match="'nothing://x'") as raised:
        Location(tmp_path, location)
    assert "secret" not in str(raised.value)


def test_what_people_may_see_of_a_location() -> None:
    """Never who may write there."""
    assert shown("s3://bucket/prefix") == "s3://bucket/prefix"
    assert shown("/var/records") == "/var/records"
    assert "secret" not in shown("ftp://me:p@ss:secret@host/a?key=secret")
