"""Which column is a version's prediction, and which its probabilities: read off the columns' types.

scikit-learn-like models answer `predict` and perhaps `predict_proba`; others what they call it. The
first output that is a list of floats is taken as probabilities where the values can be some; the
first single one as the prediction.

>>> answers = of({"output_predict": "BIGINT", "output_predict_proba": "DOUBLE[]"})
>>> answers.prediction, answers.probabilities
('output_predict', 'output_predict_proba')
>>> answers.other_prediction
'other_output_predict'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from hotswap.records import schema

_FLOATS: Final = ("DOUBLE", "FLOAT")
_SINGLE: Final = (
    *_FLOATS, "BOOLEAN", "VARCHAR", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT",
    "USMALLINT", "UINTEGER", "UBIGINT",
)  # fmt: skip


class Answers(NamedTuple):
    """Names of columns, "" where there is none. ``kind``: DuckDB's type of the prediction.

    Without a single output the class of the greatest probability is the prediction.
    """

    prediction: str = ""
    probabilities: str = ""
    kind: str = ""

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
    lists = [name for name in names if columns[name] in [f"{kind}[]" for kind in _FLOATS]]
    single = [name for name in names if columns[name] in _SINGLE]
    probabilities = _first(lists, ("predict_proba", "probabilities", "probability", "proba"))
    prediction = _first(single, ("predict", "label", "prediction", "output_label"))
    return Answers(prediction, probabilities, columns.get(prediction, ""))


def _first(names: list[str], known: tuple[str, ...]) -> str:
    for name in known:
        if schema.OUTPUT + name in names:
            return schema.OUTPUT + name
    return names[0] if names else ""


def _other(name: str) -> str:
    return schema.OTHER + name.removeprefix(schema.OUTPUT) if name else ""


__all__ = ["Answers", "of"]
