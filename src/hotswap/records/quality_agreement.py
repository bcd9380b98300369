"""Where two versions answered the same requests: how often alike, and where they differ most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from hotswap.core.quality_views import Agreement, Apart
from hotswap.records import schema
from hotswap.records.answers import Answers
from hotswap.records.dataset import Opened, named
from hotswap.records.quality_metrics import text
from hotswap.records.quality_rows import side_columns

_CLASSES: Final = 20
_APART: Final = 20
_INPUTS: Final = 40
OTHER: Final = "other"


def agreement(
    opened: Opened, answers: Answers, pair: tuple[str, str], where: str, task: str
) -> Agreement | None:
    """Of all rows that both answered, labelled or not."""
    stable, candidate = _answers(opened, answers, pair, task)
    if task == "regression":
        return _numbers(opened, stable, candidate, where)
    rows = opened.sql.execute(
        f"SELECT s, c, count(*) FROM (SELECT {stable} AS s, {candidate} AS c FROM records WHERE {where}) "
        "WHERE s IS NOT NULL AND c IS NOT NULL GROUP BY ALL"
    ).fetchall()
    counts: dict[tuple[str, str], int] = {}
    for ours, theirs, many in rows:
        if not (_is_answer(ours) and _is_answer(theirs)):
            continue
        key = text(ours), text(theirs)
        counts[key] = counts.get(key, 0) + many
    if not counts:
        return None
    seen: dict[str, int] = {}
    for (ours, theirs), many in counts.items():
        seen[ours] = seen.get(ours, 0) + many
        seen[theirs] = seen.get(theirs, 0) + many
    frequent = sorted(seen, key=lambda name: -seen[name])[:_CLASSES]
    classes = [*sorted(frequent), *([OTHER] if len(seen) > len(frequent) else [])]
    place = {name: at for at, name in enumerate(classes)}
    matrix = [[0] * len(classes) for _ in classes]
    for (ours, theirs), many in counts.items():
        matrix[place.get(ours, len(classes) - 1)][place.get(theirs, len(classes) - 1)] += many
    same = sum(many for (ours, theirs), many in counts.items() if ours == theirs)
    return Agreement(
        sum(counts.values()), same, tuple(classes), tuple(tuple(row) for row in matrix)
    )


def _answers(opened: Opened, answers: Answers, pair: tuple[str, str], task: str) -> tuple[str, str]:
    """SQL of both sides' answers: the class, or the number."""
    found = []
    for version in pair:
        prediction, chances = side_columns(answers, opened.columns, version)
        if prediction == "NULL" and chances != "NULL":
            prediction = f"list_position({chances}, list_max({chances})) - 1"
        elif task == "regression":
            # Whatever it was: numbers without a sign, or of few bits, cannot all be subtracted.
            prediction = f"TRY_CAST({prediction} AS DOUBLE)"
        elif task == "binary" and answers.kind in ("DOUBLE", "FLOAT") and not answers.probabilities:
            # Not by isnan: files' statistics, which know of no NaN, would answer for the rows.
            cut = f"CAST(({prediction}) >= 0.5 AS INTEGER)"
            prediction = f"CASE WHEN isfinite({prediction}) THEN {cut} END"
        found.append(f"({prediction})")
    return found[0], found[1]


def _numbers(opened: Opened, stable: str, candidate: str, where: str) -> Agreement | None:
    row = opened.sql.execute(
        "SELECT count(*), count(*) FILTER (d <= 1e-6 * greatest(abs(s), abs(c))), "
        "quantile_cont(d, 0.5), quantile_cont(d, 0.95), quantile_cont(d, 0.99), max(d) FROM "
        f"(SELECT s, c, abs(s - c) AS d FROM (SELECT {stable} AS s, {candidate} AS c FROM records "
        f"WHERE {where}) WHERE isfinite(s) AND isfinite(c))"
    ).fetchone()
    if row is None or not row[0]:
        return None
    apart = dict(zip(("p50", "p95", "p99", "max"), map(float, row[2:]), strict=True))
    return Agreement(row[0], row[1], (), (), apart)


def rows_apart(
    opened: Opened,
    answers: Answers,
    pair: tuple[str, str],
    where: str,
    task: str,
    hidden: Sequence[str] = (),
) -> tuple[Apart, ...]:
    """The rows on which they differ most, with what is known of them but for ``hidden`` inputs."""
    stable, candidate = _answers(opened, answers, pair, task)
    scores = [
        f"list_extract({side_columns(answers, opened.columns, version)[1]}, -1)" for version in pair
    ]
    if answers.probabilities and task == "binary":
        distance = f"abs({scores[0]} - {scores[1]})"
    elif task == "regression":
        distance = f"abs({stable} - {candidate})"
    else:
        distance = f"CAST(({stable}) IS DISTINCT FROM ({candidate}) AS DOUBLE)"
    kept = _shown(opened, hidden)
    shown = ", ".join(f"r.{named(name)}" for name in kept)
    query = (
        "WITH apart AS (SELECT *, epoch_us(time) / 1e6 AS moment, "
        f"{stable} AS s, {candidate} AS c, {distance} AS d FROM records WHERE {where}), "
        # What is no number has no distance, and would be the farthest.
        "r AS MATERIALIZED (SELECT * FROM apart WHERE isfinite(d) AND d > 0 "
        f'ORDER BY d DESC, moment DESC, request_id, "row" LIMIT {_APART}), '
        # The label of an id that several requests carry may be another's.
        'o AS (SELECT request_id, "row" FROM all_records WHERE request_id IN '
        "(SELECT request_id FROM r) GROUP BY ALL HAVING count(*) = 1) "
        'SELECT r.request_id, r."row", r.moment, r.s, r.c, r.d, l.label, l.label_text'
        f"{', ' + shown if shown else ''} FROM r "
        'LEFT JOIN o ON o.request_id = r.request_id AND o."row" = r."row" '
        'LEFT JOIN labels l ON l.request_id = o.request_id AND l."row" = o."row" '
        'ORDER BY r.d DESC, r.moment DESC, r.request_id, r."row"'
    )
    found = []
    for row in opened.sql.execute(query).fetchall():
        label = row[6] if row[6] is not None else row[7]
        inputs = {
            name.removeprefix(schema.INPUT): _plain(value)
            for name, value in zip(kept, row[8:], strict=True)
        }
        found.append(
            Apart(row[0], row[1], row[2], _plain(row[3]), _plain(row[4]), float(row[5]),
                  _plain(label), inputs)
        )  # fmt: skip
    return tuple(found)


def _shown(opened: Opened, hidden: Sequence[str]) -> list[str]:
    """Columns of inputs."""
    return [
        name
        for name, kind in opened.columns.items()
        if name.startswith(schema.INPUT)
        and kind != "UBIGINT"
        and not kind.endswith("[]")
        and name.removeprefix(schema.INPUT) not in hidden
    ][:_INPUTS]


def _is_answer(value: Any) -> bool:
    """NaN and infinity are none."""
    return not isinstance(value, float) or math.isfinite(value)


def _plain(value: Any) -> Any:
    """As JSON has it: what is no number is None."""
    return value if _is_answer(value) else None


__all__ = ["OTHER", "agreement", "rows_apart"]
