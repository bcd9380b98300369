"""Which columns are watched, and into which bins their values fall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from hotswap.records import dataset, drift_columns
from hotswap.records.drift_columns import MOST_COLUMNS, Column, choose, recorded
from hotswap.records.drift_detect import Detectors, Watch
from hotswap.records.drift_reference import BINS, CATEGORIES, Bins, freeze

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def sql() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def put(sql: duckdb.DuckDBPyConnection, values: Any, name: str = "input_x") -> None:
    sql.register("given", pa.table({name: values}))
    sql.execute("CREATE OR REPLACE TEMP TABLE t AS SELECT * FROM given")


def frozen(sql: duckdb.DuckDBPyConnection, values: Any, kind: str = "number") -> Bins:
    put(sql, values)
    bins = freeze(sql, "t", Column("input_x", "input_x", kind))
    assert bins is not None
    return bins


def hits(sql: duckdb.DuckDBPyConnection, bins: Bins, values: Any) -> list[int]:
    put(sql, values)
    found = [0] * bins.size
    for at, n in sql.execute(f"SELECT {bins.sql} AS bin, count(*) FROM t GROUP BY bin").fetchall():
        found[at] = n
    return found


def test_numbers_fall_into_bins_of_equal_share(sql: duckdb.DuckDBPyConnection) -> None:
    """And one below and one above all that was seen, with nothing in them yet."""
    bins = frozen(sql, np.arange(1000.0))
    assert len(bins.cuts) == BINS + 1
    assert bins.counts == (0, 0, *[50] * BINS, 0)
    assert hits(sql, bins, [-1.0, 0.0, 49.0, 49.5, 999.0, 1000.0]) == [
        0, 1, 2, 1, *[0] * (BINS - 3), 1, 1,
    ]  # fmt: skip


def test_no_value_is_null_or_nan_and_infinities_are_values(sql: duckdb.DuckDBPyConnection) -> None:
    """Infinity is above everything, and minus infinity below."""
    values = pa.array([None, NAN, -INF, 1.0, 2.0, 3.0, INF, INF])
    bins = frozen(sql, values)
    assert bins.counts[0] == 2
    assert sum(bins.counts) == 8
    assert all(np.isfinite(bins.cuts))
    assert hits(sql, bins, pa.array([INF, -INF, None, NAN]))[0] == 2
    assert hits(sql, bins, [INF])[-1] == 1
    assert hits(sql, bins, [-INF])[1] == 1
    assert hits(sql, frozen(sql, [INF, INF]), [-INF, INF]) == [0, 1, 1]


def test_a_constant_column_is_seen_to_move_either_way(sql: duckdb.DuckDBPyConnection) -> None:
    """There is room below and above the only value."""
    bins = frozen(sql, [5.0] * 1000)
    assert bins.counts == (0, 0, 1000, 0)
    for moved in (4.999, 5.001):
        detectors, watch = Detectors(bins, 0.1, 1e7), Watch()
        assert detectors.update(watch, hits(sql, bins, [moved] * 300), 1)


def test_numbers_of_32_bits_are_cut_where_they_are(sql: duckdb.DuckDBPyConnection) -> None:
    """0.1 as a short number is not 0.1 as a long one: none may fall on the wrong side."""
    values = np.round(np.random.default_rng(0).random(1000), 1).astype(np.float32)
    bins = frozen(sql, values)
    assert hits(sql, bins, values) == list(bins.counts)
    assert bins.counts[1] == bins.counts[-1] == 0
    whole = frozen(sql, np.arange(100, dtype=np.int8))
    assert whole.counts[0] == 0
    assert len(whole.cuts) == BINS + 1


def test_a_column_without_any_value_is_not_watched(sql: duckdb.DuckDBPyConnection) -> None:
    """There is nothing to hold against."""
    for values in (pa.array([None, None], pa.float64()), [NAN, NAN]):
        put(sql, values)
        assert freeze(sql, "t", Column("input_x", "input_x", "number")) is None
    put(sql, pa.array([None], pa.string()))
    assert freeze(sql, "t", Column("input_x", "input_x", "category")) is None


def test_the_most_frequent_categories_are_told_apart(sql: duckdb.DuckDBPyConnection) -> None:
    """New ones and rare ones are all others; null is no value; quotes are only characters."""
    values = ["it's"] * 50 + ['say "x"'] * 30 + [""] * 20 + [None] * 10
    bins = frozen(sql, values, "category")
    assert bins.categories == ("it's", 'say "x"', "")
    assert bins.counts == (10, 50, 30, 20, 0)
    assert hits(sql, bins, ["new", "it's", None]) == [1, 1, 0, 0, 1]
    assert bins.label(1) == '"it\'s"'
    assert bins.label(4) == "other values"


def test_strings_with_a_hundred_thousand_values_stay_small(
    sql: duckdb.DuckDBPyConnection,
) -> None:
    """Ids are nearly all others, in the reference and after it: that they are new is no drift."""
    bins = frozen(sql, [f"id-{at}" for at in range(100_000)] + ["home"] * 20_000, "category")
    assert len(bins.categories) == CATEGORIES
    assert bins.categories[0] == "home"
    assert bins.counts[-1] == 100_000 - CATEGORIES + 1
    detectors, watch = Detectors(bins, 0.1, 1e7), Watch()
    new = [f"other-{at}" for at in range(10_000)] + ["home"] * 2_000
    assert not detectors.update(watch, hits(sql, bins, new), 1)


def test_a_category_that_appears_is_found(sql: duckdb.DuckDBPyConnection) -> None:
    """A quarter of the rows with a value that the reference never had."""
    bins = frozen(sql, ["a"] * 900 + ["b"] * 600, "category")
    detectors, watch = Detectors(bins, 0.1, 1e7), Watch()
    assert detectors.update(watch, hits(sql, bins, ["a"] * 300 + ["b"] * 200 + ["c"] * 170), 7)
    assert watch.alarmed == 7
    assert watch.cause == "other values: 25.4 % of the rows, 0 % in the reference"


def test_truths_are_categories(sql: duckdb.DuckDBPyConnection) -> None:
    """True and false."""
    bins = frozen(sql, [True] * 3 + [False], "category")
    assert bins.categories == ("true", "false")
    assert hits(sql, bins, pa.array([False, None])) == [1, 0, 1, 0]


def test_long_strings_are_told_apart_by_their_beginnings(sql: duckdb.DuckDBPyConnection) -> None:
    """A megabyte of text is not kept as a category."""
    bins = frozen(sql, ["x" * 1_000_000] * 3, "category")
    assert len(bins.categories[0]) == drift_columns.LETTERS
    assert hits(sql, bins, ["x" * 500])[1] == 1


# --- which columns


def test_what_cannot_be_watched_is_said() -> None:
    """Hashes, lists and anything else, each with its reason."""
    types = {
        "time": "TIMESTAMP WITH TIME ZONE",
        "input_user": "UBIGINT",
        "input_image": "FLOAT[]",
        "input_at": "TIMESTAMP",
        "input_age": "BIGINT",
        "input_name": "VARCHAR",
        "input_ok": "BOOLEAN",
        "output_predict": "DOUBLE",
    }
    columns, skipped = choose(types)
    assert [each.name for each in columns] == ["input_age", "input_name", "input_ok"]
    assert skipped == [
        "input_user is hashed, or a 64-bit unsigned number: those are not watched",
        "input_image is a list: those are not watched",
        "input_at is of type TIMESTAMP: those are not watched",
    ]


def test_of_probabilities_the_positive_class_is_watched(sql: duckdb.DuckDBPyConnection) -> None:
    """Of two classes; three have no positive one."""
    (score,), _ = choose({"output_predict_proba": "DOUBLE[]"}, side="output")
    assert score.name == "output_predict_proba[1]"
    put(sql, [[0.9, 0.1], [0.2, 0.8], [0.1, 0.2, 0.7], None], "output_predict_proba")
    assert sql.execute(f"SELECT {score.sql} FROM t").fetchall() == [
        (0.1,),
        (0.8,),
        (None,),
        (None,),
    ]
    (single,), _ = choose({"output_y": "FLOAT[]"}, side="output")
    put(sql, [[0.5], [1.0, 2.0]], "output_y")
    assert sql.execute(f"SELECT {single.sql} FROM t").fetchall() == [(0.5,), (None,)]


def test_thousands_of_columns_are_not_all_watched() -> None:
    """Unless those that matter are named."""
    types = {f"input_x{at}": "FLOAT" for at in range(2000)}
    columns, (said,) = choose(types)
    assert len(columns) == MOST_COLUMNS
    assert said.startswith(f"{2000 - MOST_COLUMNS} more input columns are not watched")
    columns, skipped = choose(types, ["x1999", "input_x7"])
    assert {each.name for each in columns} == {"input_x7", "input_x1999"}
    assert skipped == []


def test_what_is_recorded_now_is_read_from_the_newest_file(tmp_path: Path) -> None:
    """Files without inputs say nothing of it: they are of requests recorded without."""
    assert recorded(tmp_path, "m") is None
    fixed: dict[str, Any] = {
        "time": pa.array([0]).cast(pa.timestamp("us", "UTC")),
        "request_id": ["r"],
    }
    dataset.write_parquet(tmp_path, "m", pa.table(fixed | {"input_a": [1.0], "input_b": [1.0]}))
    dataset.write_parquet(tmp_path, "m", pa.table(fixed | {"input_a": [1.0]}))
    dataset.write_parquet(tmp_path, "m", pa.table(fixed))
    found = recorded(tmp_path, "m")
    assert found is not None
    assert {name for name in found if name.startswith("input_")} == {"input_a"}
