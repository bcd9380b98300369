"""Which column is a version's prediction, and which its probabilities: read off the columns' types.

scikit-learn-like models answer `predict` and perhaps `predict_proba`; others what they call it. The
first output that is a list of floats is taken as probabilities, the first single one as the
prediction. `seen` looks at values too: an interval or an embedding is a list of floats as well.

>>> answers = of({"output_predict": "BIGINT", "output_predict_proba": "DOUBLE[]"})
>>> answers.prediction, answers.probabilities
('output_predict', 'output_predict_proba')
>>> answers.other_prediction
'other_output_predict'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from hotswap.records import schema

if TYPE_CHECKING:
    from hotswap.records.dataset import Opened

_FLOATS: Final = ("DOUBLE", "FLOAT")
_SINGLE: Final = (
    *_FLOATS, "BOOLEAN", "VARCHAR", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT",
    "USMALLINT", "UINTEGER", "UBIGINT",
)  # fmt: skip
_CHANCES: Final = ("predict_proba", "probabilities", "probability", "proba")
#: Rows that are looked at; of so many of them the probabilities have to add up to one.
_SAMPLE: Final = 1000
_MOST: Final = 0.99


class Answers(NamedTuple):
    """Names of columns, "" where there is none. ``kind``: DuckDB's type of the prediction;
    ``classes``: how many probabilities there are, 0 if nobody looked.

    Without a single output the class of the greatest probability is the prediction.
    """

    prediction: str = ""
    probabilities: str = ""
    kind: str = ""
    classes: int = 0

    @property
    def other_prediction(self) -> str:
        """The other version's prediction."""
        return _other(self.prediction)

    @property
    def other_probabilities(self) -> str:
        """The other version's probabilities."""
        return _other(self.probabilities)

    @property
    def classifies(self) -> bool:
        """Whether the prediction is a class: with probabilities, or of a type that is no measure."""
        return bool(self.probabilities) or self.kind in ("BOOLEAN", "VARCHAR")


def of(columns: Mapping[str, str]) -> Answers:
    """Read off the columns of `hotswap.records.dataset.Opened`."""
    names = [name for name in columns if name.startswith(schema.OUTPUT)]
    lists = [name for name in names if _is_list(columns[name])]
    single = [name for name in names if columns[name] in _SINGLE]
    probabilities = _first(lists, _CHANCES)
    prediction = _first(single, ("predict", "label", "prediction", "output_label"))
    return Answers(prediction, probabilities, columns.get(prediction, ""))


def seen(opened: Opened) -> Answers:
    """As `of`; without known names only lists that add up to one are probabilities."""
    found = of({
        name: kind
        for name, kind in opened.columns.items()
        if not (name.startswith(schema.OUTPUT) and _is_list(kind))
        or name.removeprefix(schema.OUTPUT) in _CHANCES
        or _looked_at(opened, name)[0] >= _MOST
    })  # fmt: skip
    if not found.probabilities:
        return found
    return found._replace(classes=_looked_at(opened, found.probabilities)[1])


def _looked_at(opened: Opened, name: str) -> tuple[float, int]:
    """Of some rows: the share whose values are probabilities of classes, and how many they are."""
    from hotswap.records.dataset import named

    either = [named(each) for each in (name, _other(name)) if each in opened.columns]
    row = opened.sql.execute(
        "SELECT avg(CAST(len(v) > 1 AND list_min(v) > -1e-6 AND list_max(v) < 1 + 1e-6 "
        "AND abs(list_sum(v) - 1) < 0.01 AS INTEGER)), max(len(v)) FROM "
        # Where it gave no numbers it has not said what it gives.
        f"(SELECT * FROM (SELECT coalesce({', '.join(either)}) AS v FROM records) "
        f"WHERE isfinite(list_sum(v)) LIMIT {_SAMPLE})"
    ).fetchone()
    return (0.0, 0) if row is None or row[0] is None else (float(row[0]), int(row[1]))


def _is_list(kind: str) -> bool:
    return kind in [f"{each}[]" for each in _FLOATS]


def _first(names: list[str], known: tuple[str, ...]) -> str:
    for name in known:
        if schema.OUTPUT + name in names:
            return schema.OUTPUT + name
    return names[0] if names else ""


def _other(name: str) -> str:
    return schema.OTHER + name.removeprefix(schema.OUTPUT) if name else ""


__all__ = ["Answers", "of", "seen"]
