"""A frozen reference: the bins of each column and how often each was hit.

Numbers get at most twenty bins of equal share, and one below and one above everything that was
seen; categories the most frequent values, and one bin for all others. Counts begin with the rows
that have no value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from hotswap.records.dataset import quoted
from hotswap.records.drift_columns import Column

if TYPE_CHECKING:
    import duckdb

#: Bins of equal share that numbers are cut into.
BINS: Final = 20
#: Categories that are told apart; the rest are one.
CATEGORIES: Final = 20


class Bins(msgspec.Struct, frozen=True):
    """One column's bins. ``cuts``: of numbers, a bin ends at each (included), the last is what is
    above; ``categories``: of categories, the last bin is all others. ``counts``: no value, then
    bin by bin.
    """

    column: Column
    cuts: tuple[float, ...]
    categories: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bins, the one of no value included."""
        return len(self.counts)

    @property
    def sql(self) -> str:
        """The number of the bin that a row falls into; 0 for no value."""
        value = self.column.sql
        if self.column.kind == "number":
            missing = f"{value} IS NULL OR isnan({value})"
            cases = "".join(
                f" WHEN {value} <= '{cut!r}'::DOUBLE THEN {at}"  # exactly that number
                for at, cut in enumerate(self.cuts, 1)
            )
            return f"CASE WHEN {missing} THEN 0{cases} ELSE {len(self.cuts) + 1} END"
        listed = ", ".join(quoted(each) for each in self.categories)
        place = f"list_position([{listed}]::VARCHAR[], {value})"
        others = len(self.categories) + 1
        return f"CASE WHEN {value} IS NULL THEN 0 ELSE coalesce({place}, {others}) END"

    def label(self, at: int) -> str:
        """What falls into a bin, in words.

        >>> Bins(Column("x", "x", "number"), (1.0, 2.0), (), (0, 1, 1, 0)).label(2)
        'above 1 to 2'
        """
        if at == 0:
            return "no value"
        if self.column.kind == "category":
            if at > len(self.categories):
                return "other values"
            return repr(self.categories[at - 1])
        if at == 1:
            return f"at most {self.cuts[0]:g}" if self.cuts else "any value"
        if at > len(self.cuts):
            return f"above {self.cuts[-1]:g}"
        return f"above {self.cuts[at - 2]:g} to {self.cuts[at - 1]:g}"


def freeze(sql: duckdb.DuckDBPyConnection, table: str, column: Column) -> Bins | None:
    """The bins of a column over a table of records. None: it has no value in any row."""
    cuts: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    value = column.sql
    if column.kind == "number":
        cuts = _cuts(sql, table, value)
        if not cuts:
            return None
    else:
        rows = sql.execute(
            f"SELECT value, count(*) AS hits FROM (SELECT {value} AS value FROM {table}) "
            f"WHERE value IS NOT NULL GROUP BY value ORDER BY hits DESC, value LIMIT {CATEGORIES}"
        ).fetchall()
        categories = tuple(row[0] for row in rows)
        if not categories:
            return None
    size = 2 + (len(cuts) if column.kind == "number" else len(categories))
    bins = Bins(column, cuts, categories, (0,) * size)
    counts = [0] * size
    for at, hits in sql.execute(
        f"SELECT {bins.sql} AS bin, count(*) FROM {table} GROUP BY bin"
    ).fetchall():
        counts[at] = hits
    return msgspec.structs.replace(bins, counts=tuple(counts))


def _cuts(sql: duckdb.DuckDBPyConnection, table: str, value: str) -> tuple[float, ...]:
    """Where bins end: just below the smallest value, at quantiles, and at the largest."""
    shares = ", ".join(str(at / BINS) for at in range(1, BINS))
    ((lowest, middle, highest),) = sql.execute(
        f"SELECT min(value), quantile_disc(value, [{shares}]), max(value) "
        f"FROM (SELECT {value} AS value FROM {table}) WHERE value IS NOT NULL AND NOT isnan(value)"
    ).fetchall()
    if lowest is None:
        return ()
    found = {math.nextafter(lowest, -math.inf), *middle, highest}
    finite = sorted(cut for cut in found if math.isfinite(cut))
    return tuple(finite) or (0.0,)  # infinities alone: told apart by their sign


__all__ = ["BINS", "CATEGORIES", "Bins", "freeze"]
