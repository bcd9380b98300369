"""From segments to days and from many files to few, stopped anywhere: nothing twice, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotswap.records import compact as compacting
from hotswap.records import dataset
from hotswap.records.compact import FEW, merge, retire, tidy
from hotswap.records.files import LABELS, Location, day_of, segments
from hotswap.records.gone import gone_until
from tests.unit.records.recorded import START, Keeping, chunk, table

DAY = day_of(START)


class Killed(BaseException):
    pass


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def files(root: Path) -> list[str]:
    return sorted(p.name for p in root.rglob("*") if p.is_file() and "days" in p.parts)


def test_a_segment_becomes_a_file_a_day(keeping: Keeping) -> None:
    """Sorted by time; the segment goes."""
    keeping.put(chunk("b", at=START + 5), chunk("a", at=START - 5), chunk("c", at=START + 9))
    keeping.drain()
    keeping.compact()
    assert segments(keeping.root, "m") == []
    place = Location(keeping.root)
    assert [part.day for part in place.parts("m")] == [day_of(START - 5), DAY]
    assert keeping.ids() == ["a", "b", "c"]
    assert [row[0] for row in keeping.ask("SELECT request_id FROM records", since=START)] == [
        "b",
        "c",
    ]


def test_killed_between_two_days_of_a_segment(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The day that is there is not read twice, the other still is."""
    keeping.put(chunk("b", at=START + 5), chunk("a", at=START - 5))
    keeping.drain()
    write = compacting.write_part
    done: list[Any] = []

    def second(*given: Any) -> str:
        if done:
            raise Killed
        path = write(*given)
        done.append(path)
        return path

    with monkeypatch.context() as patch:
        patch.setattr(compacting, "write_part", second)
        with pytest.raises(Killed):
            keeping.compact()
    assert keeping.ids() == ["a", "b"]
    assert keeping.ids(since=START) == ["b"]
    assert keeping.ids(until=START) == ["a"]
    keeping.again()
    keeping.drain()
    keeping.compact()
    assert keeping.ids() == ["a", "b"]


@pytest.mark.parametrize("where", ["open", "mv", "unlink"])
def test_killed_while_a_segment_is_compacted(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Before the file is whole, before it has its name, before the segment goes."""
    keeping.put(chunk("a", "b"))
    keeping.drain()
    with monkeypatch.context() as patch:
        if where == "unlink":
            patch.setattr(Path, "unlink", killed)
        else:
            from fsspec.implementations.local import LocalFileSystem

            patch.setattr(LocalFileSystem, where, killed)
        with pytest.raises(Killed):
            keeping.compact()
    assert keeping.ids() == ["a", "b"]
    keeping.again()
    keeping.drain()
    keeping.compact()
    assert keeping.ids() == ["a", "b"]
    assert segments(keeping.root, "m") == []


def small(root: Path, first: int = 1, many: int = FEW, **more: Any) -> list[str]:
    """So many small files of one day; their lines' ids."""
    ids = [f"r{number:03}" for number in range(first, first + many)]
    for number, name in enumerate(ids, first):
        dataset.write_parquet(root, "m", table(name, at=START + number, **more), number)
    return ids


def read(root: Path, model: str = "m") -> list[str]:
    with dataset.open(root, model) as opened:
        assert opened.skipped == []
        found = opened.sql.execute("SELECT request_id FROM records ORDER BY 1").fetchall()
        return [row[0] for row in found]


def test_many_small_files_become_one(tmp_path: Path) -> None:
    """From a number on; those of another schema or day stay."""
    ids = small(tmp_path, many=FEW - 1)
    assert merge(Location(tmp_path), tmp_path, "m", DAY) == 0
    ids += small(tmp_path, FEW, 1) + small(tmp_path, 100, 2, input_x=[1.0])
    assert merge(Location(tmp_path), tmp_path, "m", DAY) == FEW
    assert len(files(tmp_path)) == 3
    assert files(tmp_path)[0].startswith(f"{1:012d}-{FEW:012d}-")
    assert read(tmp_path) == ids
    assert merge(Location(tmp_path), tmp_path, "m", DAY) == 0


@pytest.mark.parametrize("removals", [0, 1, 7, FEW - 1])
def test_killed_while_the_merged_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    """Nothing is read twice, and what was left goes with the next."""
    ids = small(tmp_path)
    place = Location(tmp_path)
    done: list[Any] = []
    remove = compacting._remove

    def some(*given: Any) -> None:
        if len(done) == removals:
            raise Killed
        done.append(given)
        remove(*given)

    with monkeypatch.context() as patch:
        patch.setattr(compacting, "_remove", some)
        with pytest.raises(Killed):
            merge(place, tmp_path, "m", DAY)
    assert read(tmp_path) == ids
    assert len(files(tmp_path)) == 1 + FEW - removals
    merge(place, tmp_path, "m", DAY)
    assert read(tmp_path) == ids
    assert len(files(tmp_path)) == 1


def test_what_lies_within_another_does_not_come_back(tmp_path: Path) -> None:
    """When the large file's time is over, neither count."""
    ids = small(tmp_path)
    kept = tmp_path / "kept"
    place = Location(tmp_path)
    days = tmp_path / "days" / "model=m" / f"day={DAY}"
    days.rename(kept)
    small(tmp_path)
    merge(place, tmp_path, "m", DAY)
    for path in kept.iterdir():
        path.rename(days / path.name)
    assert read(tmp_path) == ids
    retire(place, tmp_path, ["m"], "2000-01-01", 0)
    assert files(tmp_path) == []
    assert not days.exists()


def test_nothing_that_is_elsewhere_seems_to_be_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file, or a segment that is not compacted yet, lies between: they are not merged over."""
    ids = [*small(tmp_path, 1, 4), *small(tmp_path, 6, 3)]
    place = Location(tmp_path)
    big = dataset.write_parquet(tmp_path, "m", table("big", at=START), 9)
    ids += [*small(tmp_path, 10, 9), "big"]
    real = Location.all

    def all_(self: Location, model: str) -> Any:
        return [p._replace(size=1 << 30) if p.path == big else p for p in real(self, model)]

    with monkeypatch.context() as patch:
        patch.setattr(Location, "all", all_)
        assert merge(place, tmp_path, "m", DAY) == 0
    segment = tmp_path / "segments" / "m" / f"{5:012d}-01234567.arrows"
    segment.parent.mkdir(parents=True)
    segment.write_bytes(b"")
    assert merge(place, tmp_path, "m", DAY) == 0
    segment.unlink()
    assert merge(place, tmp_path, "m", DAY) == 17
    assert read(tmp_path) == sorted(ids)


def test_a_damaged_file_is_not_merged_away(tmp_path: Path) -> None:
    """It stops the merge of its day, and nothing goes."""
    small(tmp_path)
    path = tmp_path / "days" / "model=m" / f"day={DAY}" / files(tmp_path)[3]
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(Exception, match=r"magic|footer|Parquet"):
        merge(Location(tmp_path), tmp_path, "m", DAY)
    assert len(files(tmp_path)) == FEW
    with dataset.open(tmp_path, "m") as opened:
        assert len(opened.skipped) == 1
        found = opened.sql.execute("SELECT count(*) FROM records").fetchone()
        assert found == (FEW - 1,)


def test_half_written_files_go(tmp_path: Path) -> None:
    """Who wrote them was killed."""
    small(tmp_path, many=1)
    folder = tmp_path / "days" / "model=m" / f"day={DAY}"
    (folder / ".000000000002-000000000002-01234567.parquet.part").write_bytes(b"half")
    tidy(Location(tmp_path), "m", DAY)
    assert [path.name[0] for path in folder.iterdir()] == ["0"]


def test_what_is_old_goes_and_then_what_is_too_much(tmp_path: Path) -> None:
    """Whole days by age; by bytes the oldest first, over all models and labels."""
    sizes = {}
    for number, model in enumerate(("m", "n", "m"), 1):
        path = dataset.write_parquet(tmp_path, model, table("a", at=START + 86400 * number), number)
        sizes[path] = Path(path).stat().st_size
    first, second, third = sizes
    place = Location(tmp_path)
    models = ["m", "n", LABELS]
    assert retire(place, tmp_path, models, day_of(START + 86400), 1 << 40) == []
    assert retire(place, tmp_path, models, day_of(START + 86400 * 2), 1 << 40) == [first]
    assert retire(place, tmp_path, models, "", sizes[third]) == [second]
    assert retire(place, tmp_path, models, "", 0) == [third]


def test_what_had_to_go_for_lack_of_room_is_known(tmp_path: Path) -> None:
    """Up to when; what was old enough is no loss, and labels are nobody's requests."""
    place = Location(tmp_path)
    dataset.write_parquet(tmp_path, "m", table("a", "b"), 1)
    retire(place, tmp_path, ["m"], "2999-01-01", 1 << 40)
    assert gone_until(tmp_path, "m") == 0.0
    dataset.write_parquet(tmp_path, "m", table("c", "d", "e"), 2)
    dataset.write_parquet(tmp_path, "m", table("f", at=START + 100), 3)
    (newer,) = [part.size for part in place.parts("m") if part.first == 3]
    retire(place, tmp_path, ["m", LABELS], "", newer)
    assert gone_until(tmp_path, "m") == pytest.approx(START + 2e-6, abs=1e-6)
    retire(place, tmp_path, ["m", LABELS], "", 0)
    assert gone_until(tmp_path, "m") == START + 100
    assert gone_until(tmp_path, "n") == 0.0


def test_live_segments_count_too(keeping: Keeping) -> None:
    """And stay: compacted files make room for them."""
    path = dataset.write_parquet(keeping.root, "m", table("old"), 1)
    keeping.put(chunk("live"))
    keeping.drain()
    size = Path(path).stat().st_size
    assert retire(Location(keeping.root), keeping.root, ["m"], "", size) == [path]
    assert keeping.ids() == ["live"]


def test_a_segment_that_is_begun_meanwhile_is_not_closed(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction runs beside what writes: never of a file that is appended to."""
    keeping.put(chunk("a"))
    keeping.drain()
    keeping.recording.rotate(START, everything=True)

    def later(root: Path, model: str) -> Any:
        if model == "m" and not keeping.ring().filled:
            keeping.put(chunk("b"))
            keeping.drain()
        return segments(root, model)

    with monkeypatch.context() as patch:
        patch.setattr("hotswap.records.writer.segments", later)
        keeping.recording.compact(START)
    keeping.put(chunk("c"))
    keeping.drain()
    assert keeping.ids()[-2:] == ["b", "c"]


def test_a_round_of_everything(keeps: Callable[..., Keeping]) -> None:
    """Many segments, merged in the end, and read as one."""
    keeping = keeps()
    ids = []
    for number in range(FEW + 3):
        ids.append(f"r{number:02}")
        keeping.put(chunk(ids[-1], at=START + number))
        keeping.drain()
        keeping.compact()
        assert keeping.ids() == ids
    assert len(files(keeping.root)) == 4
