"""Records counted into bins, slice of time by slice of time, each once.

Slices lie on a fixed grid of time and are counted when they are over, so that what comes out
depends on the records alone and not on when they were counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from hotswap.records.dataset import named, quoted
from hotswap.records.drift_columns import Column
from hotswap.records.drift_reference import Bins

if TYPE_CHECKING:
    import duckdb

#: Values that are taken out of the records at a time; with one slice at least.
_CELLS: Final = 20_000_000
_WORKING: Final = "drift_working"
_TIME: Final = "epoch_us(time)"

Sliced = dict[str, tuple[int, ...]]
"""Column -> hits of its bins."""


class Slice(NamedTuple):
    """``start`` and ``end`` in µs of Unix time, ``latest``: of its last record."""

    start: int
    end: int
    rows: int
    latest: int
    counts: Sliced


class Choice(NamedTuple):
    """Which records count. ``inputs``: all columns of inputs that were recorded, for inputs;
    ``version``: whose outputs, for outputs. ``one_row``: of each request one row, which its id
    tells, so that what rows of one request have in common is not counted again and again.
    """

    inputs: tuple[str, ...] = ()
    version: str = ""
    one_row: bool = True

    @property
    def sql(self) -> str:
        """A condition on records. Requests that name a version are no traffic to be watched."""
        tests = ["(arm IS NULL OR arm <> 'pinned')"]
        if self.inputs:
            # Where only some requests are recorded with inputs, the others have none at all.
            tests.append(f"coalesce({', '.join(_is_there(name) for name in self.inputs)}, false)")
        if self.version:
            tests.append(f"version = {quoted(self.version)}")
        if self.one_row:
            tests.append(
                '"row" = CAST(hash(request_id) % CAST(greatest("rows", 1) AS UBIGINT) AS INTEGER)'
            )
        return " AND ".join(tests)


def _is_there(name: str) -> str:
    return f"CASE WHEN {named(name)} IS NOT NULL THEN true END"


def nth(sql: duckdb.DuckDBPyConnection, choice: Choice, since: int, rows: int) -> int | None:
    """The time (µs) of the ``rows``-th record from ``since`` on, None if there are fewer."""
    found = sql.execute(
        f"SELECT {_TIME} AS us FROM records WHERE {_TIME} >= {since} AND {choice.sql} "
        f"ORDER BY us LIMIT 1 OFFSET {rows - 1}"
    ).fetchall()
    return int(found[0][0]) if found else None


def there(sql: duckdb.DuckDBPyConnection, choice: Choice, since: int) -> int:
    """How many there are from ``since`` on."""
    ((found,),) = sql.execute(
        f"SELECT count(*) FROM records WHERE {_TIME} >= {since} AND {choice.sql}"
    ).fetchall()
    return int(found)


def latest(sql: duckdb.DuckDBPyConnection, choice: Choice, since: int) -> int | None:
    """The time (µs) of the last of them."""
    ((found,),) = sql.execute(
        f"SELECT max({_TIME}) FROM records WHERE {_TIME} >= {since} AND {choice.sql}"
    ).fetchall()
    return None if found is None else int(found)


def take_out(
    sql: duckdb.DuckDBPyConnection,
    choice: Choice,
    columns: Sequence[Column],
    since: int,
    until: int,
    slice_us: int = 0,
) -> str:
    """A table of the records from ``since`` to before ``until`` (µs), with these columns only."""
    sources = sorted({column.source for column in columns})
    slice_of = f"{_TIME} // {slice_us}" if slice_us else "0"
    listed = "".join(f", {named(name)}" for name in sources)
    sql.execute(
        f"CREATE OR REPLACE TEMP TABLE {_WORKING} AS "
        f"SELECT {_TIME} AS at_us, {slice_of} AS slice{listed} FROM records "
        f"WHERE {_TIME} >= {since} AND {_TIME} < {until} AND {choice.sql}"
    )
    return _WORKING


def put_away(sql: duckdb.DuckDBPyConnection) -> None:
    """Let go of what was taken out."""
    sql.execute(f"DROP TABLE IF EXISTS {_WORKING}")


def slices(
    sql: duckdb.DuckDBPyConnection,
    choice: Choice,
    bins: Sequence[Bins],
    since: int,
    until: int,
    slice_us: int,
) -> Iterator[Slice]:
    """The slices with records from ``since`` to before ``until`` (both on the grid), in order."""
    sizes = sql.execute(
        f"SELECT {_TIME} // {slice_us} AS slice, count(*), max({_TIME}) FROM records "
        f"WHERE {_TIME} >= {since} AND {_TIME} < {until} AND {choice.sql} "
        "GROUP BY slice ORDER BY slice"
    ).fetchall()
    try:
        for group in _grouped(sizes, max(1, _CELLS // max(1, len(bins)))):
            first, last = group[0][0] * slice_us, (group[-1][0] + 1) * slice_us
            columns = [each.column for each in bins]
            table = take_out(sql, choice, columns, first, last, slice_us)
            counts = _counted(sql, table, bins)
            for number, rows, latest in group:
                start = number * slice_us
                yield Slice(start, start + slice_us, rows, latest, counts.get(number, {}))
    finally:
        put_away(sql)


def _grouped(
    sizes: Sequence[tuple[int, int, int]], most: int
) -> Iterator[list[tuple[int, int, int]]]:
    """Slices that are counted together: at most so many rows, or one slice."""
    group: list[tuple[int, int, int]] = []
    rows = 0
    for each in sizes:
        if group and rows + each[1] > most:
            yield group
            group, rows = [], 0
        group.append(each)
        rows += each[1]
    if group:
        yield group


def _counted(sql: duckdb.DuckDBPyConnection, table: str, bins: Sequence[Bins]) -> dict[int, Sliced]:
    found: dict[int, dict[str, list[int]]] = {}
    for each in bins:
        name = each.column.name
        rows = sql.execute(
            f"SELECT slice, {each.sql} AS bin, count(*) FROM {table} GROUP BY slice, bin"
        ).fetchall()
        for number, at, hits in rows:
            counts = found.setdefault(number, {}).setdefault(name, [0] * each.size)
            counts[at] += hits
    return {
        number: {name: tuple(counts) for name, counts in columns.items()}
        for number, columns in found.items()
    }


__all__ = ["Choice", "Slice", "Sliced", "latest", "nth", "put_away", "slices", "take_out", "there"]
