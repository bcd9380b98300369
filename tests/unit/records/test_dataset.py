"""What is asked of records: compacted or live, of whatever columns, damaged here and there."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileOpener

from hotswap.ipc.records import Label
from hotswap.records import dataset, schema
from hotswap.records.compact import FEW
from hotswap.records.files import LABELS
from hotswap.records.segments import read_segment
from tests.unit.records.recorded import START, Keeping, chunk, table


def ask(root: Path, sql: str, **more: Any) -> list[tuple[Any, ...]]:
    with dataset.open(root, "m", **more) as opened:
        return opened.sql.execute(sql).fetchall()


def labels(root: Path, *given: tuple[Any, ...], number: int = 1) -> None:
    """(request, row, label, text, reward) each, a second after the one before."""
    columns = {
        "request_id": [each[0] for each in given],
        "row": [each[1] for each in given],
        "label": [each[2] for each in given],
        "label_text": [each[3] for each in given],
        "reward": [each[4] for each in given],
        "received": [int((START + number * 100 + at) * 1e6) for at in range(len(given))],
    }
    made = {f.name: pa.array(columns[f.name], f.type) for f in schema.labels()}
    dataset.write_parquet(root, LABELS, pa.table(made), number)


def test_nothing_was_recorded(tmp_path: Path) -> None:
    """The views are there, with the columns that all have."""
    with dataset.open(tmp_path, "m") as opened:
        assert opened.sql.execute("SELECT count(*) FROM labelled").fetchone() == (0,)
        assert list(opened.columns) == schema.fixed().names
        assert opened.columns["time"] == "TIMESTAMP WITH TIME ZONE"
        assert opened.columns["key_hash"] == "UBIGINT"
        assert opened.skipped == []


def test_columns_of_all_schemas(tmp_path: Path) -> None:
    """Null where a record has none; live ones and compacted ones alike."""
    keeping = Keeping(tmp_path)
    dataset.write_parquet(keeping.root, "m", table("a", input_age=[5], output_predict=[1]), 1)
    dataset.write_parquet(keeping.root, "m", table("b", input_zip=["x"], output_predict=[0.5]), 2)
    keeping.put(chunk("c"))
    keeping.drain()
    sql = "SELECT request_id, input_age, input_zip, output_predict FROM records ORDER BY 1"
    assert keeping.ask(sql) == [("a", 5.0, None, 1.0), ("b", None, "x", 0.5), ("c", 1.5, None, 0.0)]
    keeping.kill()


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ([1], ["yes"], ["1", "yes"]),
        ([1], [0.5], [1.0, 0.5]),
        ([True], [2], [1, 2]),
        ([0.5], [[1.5, 2.5]], [[0.5], [1.5, 2.5]]),
        ([[1.5]], ["yes"], [["1.5"], ["yes"]]),
        ([None], [[1.5]], [None, [1.5]]),
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_outputs_whose_type_changed(
    tmp_path: Path, one: list[Any], other: list[Any], both: list[Any], live: bool
) -> None:
    """As a forced version's may: both can be read, as the wider of both."""
    kinds = [pa.array(one), pa.array(other)]
    if one == [None]:
        kinds[0] = pa.array(one, pa.float64())
    dataset.write_parquet(tmp_path, "m", table("a", output_y=kinds[0]), 1)
    if live:
        from hotswap.records.writer import Writer

        writer = Writer(tmp_path, "run", START)
        writer.write("m", table("b", output_y=kinds[1]).to_batches()[0], {}, START)
        writer.close()
    else:
        dataset.write_parquet(tmp_path, "m", table("b", output_y=kinds[1]), 2)
    found = ask(tmp_path, "SELECT output_y FROM records ORDER BY request_id")
    assert [row[0] for row in found] == both


def test_names_that_only_case_tells_apart(tmp_path: Path) -> None:
    """And names of any characters; nothing is raised, and none is anything but a name."""
    odd: dict[str, Any] = {
        "input_A": [1],
        "input_a": [2],
        'input_"; DROP VIEW records; --': [3],
        "input_": [4],
    }
    dataset.write_parquet(tmp_path, "m", table("a", **odd), 1)
    with dataset.open(tmp_path, "m") as opened:
        (row,) = opened.sql.execute("SELECT * FROM records").fetchall()
        assert row[-4:] == (1, 2, 3, 4)
        name = dataset.named('input_"; DROP VIEW records; --')
        assert opened.sql.execute(f"SELECT {name} FROM records").fetchall() == [(3,)]


def test_between_two_times(tmp_path: Path) -> None:
    """The first included, the second not, to the microsecond."""
    dataset.write_parquet(tmp_path, "m", table("a", "b", "c"), 1)
    micro = 1e-6
    found = ask(
        tmp_path, "SELECT request_id FROM records", since=START + micro, until=START + 2 * micro
    )
    assert found == [("b",)]


def test_the_latest_label_counts(tmp_path: Path) -> None:
    """Of each row; a reward beside a label; a text in place of a number and the other way round."""
    dataset.write_parquet(tmp_path, "m", table("a", "b", "c", "d"), 1)
    labels(
        tmp_path, ("a", 0, 1.0, None, None), ("a", 0, 0.0, None, None), ("b", 0, 1.0, None, None),
        ("b", 0, None, "yes", None), ("c", 0, None, "yes", None), ("c", 0, 2.0, None, None),
        ("d", 0, None, None, 5.0), ("d", 0, 1.0, None, None),
    )  # fmt: skip
    labels(tmp_path, ("a", 0, 0.0, None, None), ("a", 1, 1.0, None, None), number=2)
    sql = "SELECT request_id, label, label_text, reward FROM labelled ORDER BY 1"
    assert ask(tmp_path, sql) == [
        ("a", 0.0, None, None), ("b", None, "yes", None), ("c", 2.0, None, None),
        ("d", 1.0, None, 5.0),
    ]  # fmt: skip
    assert ask(tmp_path, "SELECT count(*) FROM labels") == [(5,)]


def test_ids_of_several_requests_are_ambiguous(tmp_path: Path) -> None:
    """Never joined; each row of one request is another matter."""
    dataset.write_parquet(tmp_path, "m", table("twice", "twice", "once"), 1)
    rows = table("two", "two", row=[0, 1], rows=[2, 2])
    dataset.write_parquet(tmp_path, "m", rows, 2)
    labels(tmp_path, *[(name, row, 1.0, None, None) for name in ("twice", "once", "two", "none")
                       for row in (0, 1)])  # fmt: skip
    found = ask(tmp_path, 'SELECT request_id, "row" FROM labelled ORDER BY 1, 2')
    assert found == [("once", 0), ("two", 0), ("two", 1)]


def test_a_label_before_its_record(tmp_path: Path) -> None:
    """Is joined when that is there."""
    keeping = Keeping(tmp_path)
    keeping.label(Label("a", 0, 1.0), received=START - 5)
    keeping.drain()
    assert keeping.ask("SELECT count(*) FROM labelled") == [(0,)]
    keeping.put(chunk("a"))
    keeping.drain()
    assert keeping.ask("SELECT request_id, label FROM labelled") == [("a", 1.0)]
    keeping.kill()


def test_a_damaged_file_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    """One that is no file at all, one that is empty, one that is cut."""
    paths = [
        Path(dataset.write_parquet(tmp_path, "m", table(n), k)) for k, n in enumerate("abcd", 1)
    ]
    paths[0].write_bytes(b"nothing")
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[:-20])
    with dataset.open(tmp_path, "m") as opened:
        assert opened.sql.execute("SELECT request_id FROM records").fetchall() == [("d",)]
        said = sorted(each.partition(" ")[0] for each in opened.skipped)
        assert said == sorted(path.name for path in paths[:3])


def test_damage_inside_a_page_is_found_when_it_is_looked_for(tmp_path: Path) -> None:
    """A query says that something is damaged; who opens it again, checking, reads the rest."""
    ids = [uuid.UUID(int=n * 0x9E3779B97F4A7C15).hex for n in range(2000)]
    path = Path(dataset.write_parquet(tmp_path, "m", table(*ids), 1))
    dataset.write_parquet(tmp_path, "m", table("good"), 2)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    with dataset.open(tmp_path, "m") as opened:
        assert opened.skipped == []
    with dataset.open(tmp_path, "m", verify=True) as opened:
        assert opened.sql.execute("SELECT request_id FROM records").fetchall() == [("good",)]
        assert opened.skipped[0].startswith(path.name)


def test_a_file_that_is_merged_meanwhile_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went between the look and the reading: its lines are in another."""
    path = Path(dataset.write_parquet(tmp_path, "m", table("a"), 1))
    check = dataset.check_part
    moved: list[Path] = []

    def once(place: Any, part: Any, verify: bool) -> str:
        if not moved:
            moved.append(path.rename(path.with_name(path.name.replace("1-", "9-", 1))))
            assert moved[0].name != path.name
        return check(place, part, verify)

    monkeypatch.setattr(dataset, "check_part", once)
    assert ask(tmp_path, "SELECT request_id FROM records") == [("a",)]


def test_a_segment_that_is_compacted_meanwhile_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it was read, before the files are listed."""
    keeping = Keeping(tmp_path)
    keeping.put(chunk("a"))
    keeping.drain()
    read = read_segment

    def then_compacted(path: Path) -> Any:
        found = read(path)
        keeping.compact()
        return found

    monkeypatch.setattr(dataset, "read_segment", then_compacted)
    assert keeping.ids() == ["a"]
    monkeypatch.undo()
    assert keeping.ids() == ["a"]


def test_nothing_is_left_of_what_was_spilled(tmp_path: Path) -> None:
    """Nor can anything be asked any more."""
    opened = dataset.open(tmp_path, "m")
    spill = Path(opened._spill)
    assert spill.is_dir()
    opened.close()
    assert not spill.exists()
    with pytest.raises(duckdb.Error):
        opened.sql.execute("SELECT 1")


@pytest.mark.parametrize("kind", ["memory", "file", "path"])
def test_compacted_files_elsewhere(tmp_path: Path, kind: str) -> None:
    """Written, merged, retired and read by DuckDB at any place that fsspec knows."""
    location = {
        "memory": f"memory://{uuid.uuid4().hex}/records",
        "file": (tmp_path / "elsewhere").as_uri(),
        "path": str(tmp_path / "else where"),
    }[kind]
    keeping = Keeping(tmp_path, location=location)
    ids = []
    for number in range(20):
        ids.append(f"r{number:02}")
        keeping.put(chunk(ids[-1], at=START + number))
        keeping.label(Label(ids[-1], 0, 1.0), received=START + number)
        keeping.drain()
        keeping.compact()
    assert keeping.recording.counts.compact_problem == ""
    assert keeping.ids() == ids
    assert keeping.ask("SELECT count(*) FROM labelled") == [(20,)]
    assert not list(keeping.root.rglob("*.parquet"))
    assert not list(keeping.root.rglob("*.arrows"))
    keeping.recording.compact(START + 86400 * 40)
    assert keeping.ids() == []
    keeping.kill()


def test_threads_that_share_an_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB reads several groups of rows of one file at a time, through one handle."""
    keeping = Keeping(tmp_path, location=(tmp_path / "elsewhere").as_uri())
    for number in range(FEW):
        keeping.put(chunk(f"r{number:02}", at=START + number))
        keeping.drain()
        keeping.compact()
    seek = LocalFileOpener.seek

    def then_others(self: LocalFileOpener, *args: Any) -> int:
        at = seek(self, *args)
        time.sleep(0.002)  # another thread's turn, between `seek` and `read`
        return int(at)

    monkeypatch.setattr(LocalFileOpener, "seek", then_others)
    assert keeping.ids() == [f"r{number:02}" for number in range(FEW)]
