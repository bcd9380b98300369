"""How many labels are in, of how many rows, and how fast answers were."""

from __future__ import annotations

from typing import Final

from hotswap.core.quality_views import Coverage, Latency
from hotswap.records.dataset import Opened, quoted

_STRETCHES: Final = 60


def coverage(opened: Opened, mature_before: float | None = None, whole: bool = True) -> Coverage:
    """Of all records that were opened. Rows from before ``mature_before`` (Unix time) should have
    their label; None where nobody says how long one takes. Labels for nothing are counted only if
    what was opened is ``whole``: all that a label could be for.
    """
    sql = opened.sql
    sql.execute(
        "CREATE OR REPLACE TEMP VIEW marked AS SELECT r.version, r.arm, r.time, l.request_id IS NOT NULL "
        'AS has FROM records r LEFT JOIN labels l ON l.request_id = r.request_id AND l."row" = r."row"'
    )
    rows, labelled = sql.execute(
        "SELECT count(*), count(*) FILTER (has) FROM marked"
    ).fetchone() or (0, 0)
    joined = sql.execute("SELECT count(*) FROM labelled").fetchone() or (0,)
    by = {
        f"{version}, {arm}" if arm else version: (many, has)
        for version, arm, many, has in sql.execute(
            "SELECT version, arm, count(*), count(*) FILTER (has) FROM marked GROUP BY ALL ORDER BY 1, 2"
        ).fetchall()
    }
    old = "false" if mature_before is None else f"epoch_us(time) < {int(mature_before * 1e6)}"
    expected, matured = sql.execute(
        f"SELECT count(*) FILTER ({old}), count(*) FILTER ({old} AND has) FROM marked"
    ).fetchone() or (0, 0)
    over_time = sql.execute(
        "WITH ends AS (SELECT min(epoch_us(time)) AS a, max(epoch_us(time)) + 1 AS b FROM marked) "
        f"SELECT min(epoch_us(time)) / 1e6, count(*), count(*) FILTER (has) FROM marked, ends "
        f"GROUP BY CAST(floor((epoch_us(time) - a) * {_STRETCHES} / (b - a)) AS INTEGER) ORDER BY 1"
    ).fetchall()
    return Coverage(
        rows, labelled, labelled - joined[0], _unknown(opened) if whole else 0, by,
        tuple((float(at), many, has) for at, many, has in over_time), expected, matured,
    )  # fmt: skip


def _unknown(opened: Opened) -> int:
    """Labels for requests that are in no record."""
    ((found,),) = opened.sql.execute(
        "SELECT count(*) FROM labels l WHERE NOT EXISTS (SELECT 1 FROM all_records r WHERE "
        'r.request_id = l.request_id AND r."row" = l."row")'
    ).fetchall()
    return int(found)


def latency(opened: Opened, version: str, where: str) -> Latency | None:
    """Of a version's answers, whichever side of a record they are on."""
    row = opened.sql.execute(
        "SELECT count(*), quantile_cont(us, 0.5), quantile_cont(us, 0.95), quantile_cont(us, 0.99) FROM "
        f"(SELECT CASE WHEN version <> {quoted(version)} THEN other_latency_us "
        # What another version could not answer took its time too: that is not this one's.
        "WHEN fallback IS NULL THEN latency_us END AS us "
        f"FROM records WHERE ({where}) AND (version = {quoted(version)} OR other_version = "
        f"{quoted(version)})) WHERE us IS NOT NULL"
    ).fetchone()
    if row is None or not row[0]:
        return None
    return Latency(row[0], row[1] / 1000, row[2] / 1000, row[3] / 1000)


__all__ = ["coverage", "latency"]
