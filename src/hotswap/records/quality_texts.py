"""Labels that are texts where a model answers numbers: typing errors, or "n/a"."""

from __future__ import annotations

from numbers import Real

import numpy as np

from hotswap.records.answers import Answers
from hotswap.records.quality_metrics import task_of
from hotswap.records.quality_rows import Rows


def without_texts(rows: Rows, found: Answers, notes: list[str]) -> Rows:
    """The rows whose label is a number, if predictions are amounts or scores; what is left out is
    said in ``notes``. Where most labels are texts, or whole numbers may be classes, all are kept.
    """
    texts = np.isnan(rows.numbers)
    many = int(texts.sum())
    if not many or 2 * many > len(rows) or not _are_numbers(rows):
        return rows
    rest = rows.take(np.flatnonzero(~texts))
    if found.kind not in ("DOUBLE", "FLOAT") and task_of(rest) != "regression":
        return rows
    notes.append(
        "1 label is a text where predictions are numbers: its row is left out."
        if many == 1
        else f"{many:,} labels are texts where predictions are numbers: their rows are left out."
    )
    return rest


def _are_numbers(rows: Rows) -> bool:
    return all(
        side.chances is None
        and all(
            each is None or (isinstance(each, Real) and not isinstance(each, bool))
            for each in side.predictions
        )
        for side in rows.sides
    )


__all__ = ["without_texts"]
