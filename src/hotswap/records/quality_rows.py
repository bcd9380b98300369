"""Labelled rows as arrays, each version's answer on its side, in order of arrival."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hotswap.records import schema
from hotswap.records.answers import Answers
from hotswap.records.dataset import Opened, named, quoted

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

#: Of more labelled rows only the newest are looked at: each takes about a kilobyte.
MOST: Final = 500_000


@dataclass
class Answered:
    """One side. ``predictions``: as they are, None for none; ``chances``: rows by classes, NaN where
    there are none, or None for a model without; ``score``: of the last class, or the prediction.
    """

    version: str
    predictions: Array
    chances: Floats | None
    score: Floats

    @property
    def missing(self) -> Array:
        """Rows without an answer."""
        gone = np.array([each is None or each != each for each in self.predictions], dtype=bool)
        if self.chances is not None:
            return gone & np.isnan(self.chances).any(axis=1)
        return gone

    def take(self, at: Array) -> Answered:
        """Some of the rows."""
        chances = None if self.chances is None else self.chances[at]
        return Answered(self.version, self.predictions[at], chances, self.score[at])


@dataclass
class Rows:
    """``labels``: numbers or texts; ``numbers``: the same, NaN for texts. ``times``: Unix. ``names``:
    request and row, for chances that depend on nothing else. ``segment``: the values of the column
    that was asked for. ``classes`` are those of the probabilities, and ``places`` each label's among
    them (−1 for none); None where no side has probabilities (see
    `hotswap.records.quality_classes`).
    """

    times: Floats
    names: list[str]
    labels: Array
    sides: tuple[Answered, ...]
    segment: Array | None = None
    cut: bool = False
    numbers: Floats = field(init=False)
    classes: tuple[str, ...] = ()
    places: Array | None = None

    def __post_init__(self) -> None:
        numbers = as_numbers(self.labels)
        self.numbers = np.where(np.isfinite(numbers), numbers, np.nan)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def positive(self) -> Array | None:
        """Of two classes, rows labelled with the second; None where labels do not tell."""
        if self.places is not None:
            found: Array = self.places == 1
            return found
        return None if np.isnan(self.numbers).any() else self.numbers >= 0.5

    def take(self, at: Array) -> Rows:
        """Some of the rows, before their classes are named."""
        return Rows(
            self.times[at],
            [self.names[each] for each in at.tolist()],
            self.labels[at],
            tuple(side.take(at) for side in self.sides),
            None if self.segment is None else self.segment[at],
            self.cut,
        )


def as_numbers(values: Sequence[Any] | Array) -> Floats:
    """Values as numbers, NaN for what is none."""
    return np.array([_number(each) for each in values], dtype=np.float64)


def _number(value: Any) -> float:
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def side_columns(answers: Answers, columns: Mapping[str, str], version: str) -> tuple[str, str]:
    """SQL of a version's prediction and probabilities, whichever side of a record it is on."""

    def of(own: str) -> str:
        if not own or own not in columns:
            return "NULL"
        other = schema.OTHER + own.removeprefix(schema.OUTPUT)
        theirs = named(other) if other in columns else "NULL"
        return f"CASE WHEN version = {quoted(version)} THEN {named(own)} ELSE {theirs} END"

    return of(answers.prediction), of(answers.probabilities)


def read(
    opened: Opened, answers: Answers, versions: Sequence[str], where: str, by: str | None
) -> Rows:
    """The newest labelled rows of ``where``, oldest first. ``by``: an input column to keep."""
    picked = [
        "epoch_us(time) / 1e6 AS at", "request_id", '"row"',
        "label", "label_text",
    ]  # fmt: skip
    for number, version in enumerate(versions):
        prediction, chances = side_columns(answers, opened.columns, version)
        picked += [f"{prediction} AS p{number}", f"{chances} AS c{number}"]
    if by is not None:
        picked.append(f"{named(schema.INPUT + by)} AS segment")
    query = (
        f"SELECT {', '.join(picked)} FROM labelled WHERE {where} "
        "AND (label IS NOT NULL OR label_text IS NOT NULL) "
        f'ORDER BY time DESC, request_id, "row" LIMIT {MOST + 1}'
    )
    opened.sql.execute("SET preserve_insertion_order = true")
    table = opened.sql.sql(query).to_arrow_table()
    cut = table.num_rows > MOST
    table = table.slice(0, MOST)
    lists = {f"c{number}" for number in range(len(versions))}
    plain = [name for name in table.column_names if name not in lists]
    given = {name: _objects(table[name].to_pylist())[::-1] for name in plain}
    labels = np.where(
        np.array([each is None for each in given["label"]], dtype=bool),
        given["label_text"],
        given["label"],
    )
    sides = tuple(
        _side(version, given[f"p{number}"], _matrix(table[f"c{number}"]))
        for number, version in enumerate(versions)
    )
    names = [f"{a}\0{b}" for a, b in zip(given["request_id"], given["row"], strict=True)]
    times = np.asarray(given["at"], dtype=np.float64)
    return Rows(times, names, labels, sides, given.get("segment"), cut)


def _matrix(column: pa.ChunkedArray) -> Floats | None:
    """Lists as rows, the last first; NaN where there is none. Never as Python's objects, of which
    millions would take gigabytes. None if no list has two values.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_list(column.type) or not len(column):
        return None
    lengths = pc.list_value_length(column)
    size = pc.max(lengths).as_py() or 0
    if size < 2:
        return None
    fits = pc.fill_null(pc.equal(lengths, size), False)
    made = np.full((len(column), size), np.nan)
    flat = pc.list_flatten(column.filter(fits)).cast(pa.float64()).to_numpy()
    made[fits.to_numpy()] = flat.reshape(-1, size)
    made[~np.isfinite(made).all(axis=1)] = np.nan
    return made[::-1]


def _side(version: str, predictions: Array, matrix: Floats | None) -> Answered:
    # NaN and infinity are no answer.
    predictions = _objects([
        None if isinstance(each, float) and not math.isfinite(each) else each
        for each in predictions
    ])  # fmt: skip
    if matrix is not None and all(each is None for each in predictions) and len(matrix):
        known: Array = np.logical_not(np.isnan(matrix).any(axis=1))
        best = np.nan_to_num(matrix, nan=-1.0).argmax(axis=1)
        predictions = _objects([int(b) if k else None for b, k in zip(best, known, strict=True)])
    score = matrix[:, -1] if matrix is not None else as_numbers(predictions)
    return Answered(version, predictions, matrix, score)


def _objects(values: list[Any]) -> Array:
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


__all__ = ["MOST", "Answered", "Rows", "as_numbers", "read", "side_columns"]
