"""How good a model's versions were: on the same requests where both answered, else each on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from hotswap.core.naming import natural_key
from hotswap.core.quality_views import Coverage, Quality, Segment, Side
from hotswap.errors import BadInput, NotFound
from hotswap.records import answers as answer_columns
from hotswap.records import quality_classes, schema
from hotswap.records.answers import Answers
from hotswap.records.dataset import Opened, quoted
from hotswap.records.quality_agreement import agreement, rows_apart
from hotswap.records.quality_coverage import coverage, latency
from hotswap.records.quality_differences import ALPHA, chances_of, compare
from hotswap.records.quality_metrics import classes_of, measured, task_of, text
from hotswap.records.quality_rows import MOST, Answered, Array, Rows, as_numbers, read
from hotswap.records.quality_texts import without_texts
from hotswap.stats import differences, losses

_GROUPS: Final = 10
_QUARTERS: Final = 4
_FEW: Final = 20
_ALONE: Final = 10
#: Until it is counted, once for both kinds of report.
_NO_COVERAGE: Final = Coverage(0, 0, 0, 0)
#: Where a stage asks one version alone, the other is recorded for a candidate that failed; those
#: rows by themselves would be no fair comparison.
_ASKED_BOTH: Final = (
    "(fallback IS NULL OR (coalesce(test, ''), coalesce(stage, -1)) IN (SELECT coalesce(test, ''), "
    "coalesce(stage, -1) FROM records WHERE other_version IS NOT NULL AND fallback IS NULL))"
)


def measure(
    opened: Opened,
    model: str,
    *,
    versions: tuple[str, str] | None = None,
    stable: str | None = None,
    by: str | None = None,
    hidden: Sequence[str] = (),
    mature_before: float | None = None,
    whole: bool = True,
) -> Quality:
    """The report of what was opened. ``versions``: stable and candidate, else those that most
    requests were asked of both; ``stable``: which of two is stable; ``by``: an input column;
    ``hidden``: inputs that are never shown, such as those that are redacted since;
    ``mature_before``: rows from before then (Unix time) should have their label; ``whole``: no label
    can be meant for a record that was not opened.

    Raises `NotFound` if there is nothing, `BadInput` for versions or a column that are not there.
    """
    ends = opened.sql.execute(
        "SELECT count(*), min(epoch_us(time)) / 1e6, max(epoch_us(time)) / 1e6 FROM records"
    ).fetchone()
    if ends is None or not ends[0]:
        raise NotFound(
            f"nothing of model {model!r} is recorded in that time: predictions are recorded as they "
            "are answered (--records on)"
        )
    _check_column(opened, by, hidden)
    found = answer_columns.seen(opened)
    notes: list[str] = []
    pair = _pair(opened, versions, stable)
    if pair is None:
        quality = _each(opened, model, found, stable, by, notes)
    else:
        quality = _both(opened, model, found, pair, by, notes, hidden)
    return msgspec.structs.replace(
        quality,
        coverage=coverage(opened, mature_before, whole),
        first=ends[1],
        last=ends[2],
        notes=tuple(dict.fromkeys(notes)),
        skipped=tuple(opened.skipped),
    )


def _check_column(opened: Opened, by: str | None, hidden: Sequence[str]) -> None:
    if by is None:
        return
    if by in hidden:
        raise BadInput(f"input {by!r} is redacted or hashed: reports do not show it")
    kind = opened.columns.get(schema.INPUT + by)
    if kind is None:
        names = [n.removeprefix(schema.INPUT) for n in opened.columns if n.startswith(schema.INPUT)]
        names = [name for name in names if name not in hidden]
        raise BadInput(f"no input {by!r} is recorded; there are: {', '.join(names[:30]) or 'none'}")
    if kind == "UBIGINT" or kind.endswith("[]"):
        raise BadInput(f"input {by!r} has no values to divide by: it is a hash or a list")


def _pair(
    opened: Opened, versions: tuple[str, str] | None, stable: str | None
) -> tuple[str, str] | None:
    """(stable, candidate) that were asked the same requests; None if no two were."""
    counts: dict[tuple[str, str], int] = {}
    for ours, theirs, many in opened.sql.execute(
        "SELECT version, other_version, count(*) FROM records WHERE other_version IS NOT NULL "
        f"AND {_ASKED_BOTH} GROUP BY ALL"
    ).fetchall():
        key = (ours, theirs) if natural_key(ours) < natural_key(theirs) else (theirs, ours)
        counts[key] = counts.get(key, 0) + many
    if versions is not None:
        known = {row[0] for row in opened.sql.execute(
            "SELECT DISTINCT version FROM records UNION SELECT DISTINCT other_version FROM records"
        ).fetchall()}  # fmt: skip
        for each in versions:
            if each not in known:
                there = ", ".join(sorted((v for v in known if v), key=natural_key))
                raise BadInput(f"nothing of version {each!r} is recorded; there are: {there}")
        wanted = tuple(sorted(versions, key=natural_key))
        return versions if wanted in counts else None
    if not counts:
        return None
    first, second = max(counts, key=lambda key: counts[key])
    return (second, first) if stable == second else (first, second)


def _both(
    opened: Opened,
    model: str,
    found: Answers,
    pair: tuple[str, str],
    by: str | None,
    notes: list[str],
    hidden: Sequence[str],
) -> Quality:
    a, b = quoted(pair[0]), quoted(pair[1])
    where = (
        f"((version = {a} AND other_version = {b}) OR (version = {b} AND other_version = {a})) "
        f"AND {_ASKED_BOTH}"
    )
    rows = _labelled(opened, found, pair, where, by, notes)
    task = task_of(rows) or _task_of_answers(found)
    _note(rows, notes)
    sides = tuple(
        msgspec.structs.replace(
            measured(rows, side, task), latency=latency(opened, side.version, where)
        )
        for side in rows.sides
    )
    main = "mae" if task == "regression" else "accuracy"
    return Quality(
        model=model,
        task=task,
        paired=True,
        stable=pair[0],
        candidate=pair[1],
        sides=sides,
        differences=compare(rows, task) if len(rows) else (),
        agreement=agreement(opened, found, pair, where, task),
        apart=rows_apart(opened, found, pair, where, task, hidden),
        coverage=_NO_COVERAGE,
        main=main,
        segments_by=by or "",
        segments=_segments(rows, task) if by else (),
    )


def _labelled(
    opened: Opened,
    found: Answers,
    versions: Sequence[str],
    where: str,
    by: str | None,
    notes: list[str],
) -> Rows:
    rows = without_texts(read(opened, found, versions, where, by), found, notes)
    if any(side.chances is not None for side in rows.sides):
        rows.classes = quality_classes.names(rows)
        rows.places = quality_classes.places(rows)
    return rows


def _task_of_answers(found: Answers) -> str:
    """Without labels: by what the outputs are."""
    if found.classifies or found.kind not in ("DOUBLE", "FLOAT"):
        return "binary" if found.classes == 2 else "multiclass"
    return "regression"


def _each(
    opened: Opened, model: str, found: Answers, stable: str | None, by: str | None, notes: list[str]
) -> Quality:
    """No two versions were asked the same requests."""
    named = [row[0] for row in opened.sql.execute(
        "SELECT version FROM records GROUP BY 1 ORDER BY count(*) DESC"
    ).fetchall()]  # fmt: skip
    if len(named) > _ALONE:
        notes.append(f"Only the {_ALONE} versions with the most records are shown.")
    notes.append(
        "No two versions were asked the same requests, so each stands for its own: what differs may "
        "be the requests. A shadow or a champion/challenger rollout compares them on the same."
    )
    sides: list[Side] = []
    task = ""
    segments: tuple[Segment, ...] = ()
    for version in sorted(named[:_ALONE], key=natural_key):
        where = f"version = {quoted(version)}"
        rows = _labelled(opened, found, (version,), where, by, notes)
        own = task_of(rows)
        task = task or own
        _note(rows, notes)
        side = measured(rows, rows.sides[0], own) if own else Side(version, 0, 0, {})
        sides.append(msgspec.structs.replace(side, latency=latency(opened, version, where)))
        if by and version == (stable or named[0]):
            segments = _segments(rows, own)
    return Quality(
        model=model,
        task=task,
        paired=False,
        stable=stable if stable is not None and stable in named else "",
        candidate="",
        sides=tuple(sides),
        differences=(),
        agreement=None,
        apart=(),
        coverage=_NO_COVERAGE,
        main="mae" if task == "regression" else "accuracy",
        segments_by=by or "",
        segments=segments,
    )


def _note(rows: Rows, notes: list[str]) -> None:
    if rows.cut:
        notes.append(f"Only the newest {MOST:,} labelled rows are looked at.")
    texts = int(np.isnan(rows.numbers).sum())
    if 0 < texts < len(rows):
        some = "1 label is a text" if texts == 1 else f"{texts:,} labels are texts"
        notes.append(f"{some} and the others numbers: classes are compared as text.")


# --- segments


def _segments(rows: Rows, task: str) -> tuple[Segment, ...]:
    """The main metric in parts of an input: quarters of numbers, else the most frequent values."""
    if rows.segment is None or not len(rows) or not task:
        return ()
    found = []
    for name, at in _parts(rows.segment):
        values = [_main(rows, side, task, at) for side in rows.sides]
        bounds = _bounds(rows, task, at) if len(rows.sides) == 2 else None
        low, high = bounds if bounds is not None else (None, None)
        second = values[1] if len(values) == 2 else None
        found.append(Segment(name, len(at), values[0], second, low, high))
    return tuple(found)


def _parts(values: Sequence[object] | Array) -> list[tuple[str, Array]]:
    numbers = as_numbers(values)
    missing = np.array([each is None or each != each for each in values], dtype=bool)
    texts = any(isinstance(each, str) for each in values)
    parts: list[tuple[str, Array]] = []
    different = {each for each in values if each is not None and each == each}
    if not texts and len(different) > _FEW:
        edges = np.quantile(numbers[~np.isnan(numbers)], np.linspace(0, 1, _QUARTERS + 1))
        place = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, _QUARTERS - 1)
        for at in range(_QUARTERS):
            mine = np.flatnonzero((place == at) & ~missing)
            if len(mine):
                parts.append((f"{edges[at]:.4g} to {edges[at + 1]:.4g}", mine))
    else:
        written = np.array(
            ["" if gone else text(v) for v, gone in zip(values, missing, strict=True)]
        )
        names, counts = np.unique(written[~missing], return_counts=True)
        frequent = [str(names[at]) for at in np.argsort(-counts, kind="stable")[:_GROUPS]]
        parts += [(name[:80], np.flatnonzero((written == name) & ~missing)) for name in frequent]
        rest = np.flatnonzero(~np.isin(written, frequent) & ~missing)
        if len(rest):
            parts.append(("all others", rest))
    if missing.any():
        parts.append(("missing", np.flatnonzero(missing)))
    return parts


def _lost(rows: Rows, side: Answered, task: str, at: Array) -> Array:
    part = side.take(at)
    if task == "regression":
        return losses.absolute_error(rows.numbers[at], as_numbers(part.predictions))
    given = classes_of(part, task)
    truth = np.array([text(each) for each in rows.labels[at]], dtype=object)
    return np.where(given == "", np.nan, (truth != given).astype(np.float64))


def _main(rows: Rows, side: Answered, task: str, at: Array) -> float | None:
    lost = _lost(rows, side, task, at)
    if task == "regression":
        known = lost[np.isfinite(lost)]
        return float(known.mean()) if len(known) else None
    return float(1.0 - np.where(np.isnan(lost), 1.0, lost).mean())


def _bounds(rows: Rows, task: str, at: Array) -> tuple[float, float] | None:
    """Candidate minus stable of the main metric; by classes alone, where no scale need be frozen."""
    if task == "regression":
        return None
    lost = [_lost(rows, side, task, at) for side in rows.sides]
    apart = losses.scaled_difference(lost[1], lost[0])
    chance = chances_of([rows.names[each] for each in at.tolist()])
    low, high = differences.interval(differences.buckets(apart, chance), ALPHA)
    return -high, -low


__all__ = ["measure"]
