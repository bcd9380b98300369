"""What one version was worth on labelled rows. Definitions as scikit-learn has them."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from hotswap.core.quality_views import Bin, Side
from hotswap.records.quality_rows import Answered, Array, Floats, Rows, as_numbers
from hotswap.stats import auc, losses

_CALIBRATION: Final = 10
_RESIDUALS: Final = 30
#: Residuals that differ by less of their size are alike.
_ALIKE: Final = 1e-9
_ROC: Final = 200
_FEW: Final = 20


def task_of(rows: Rows) -> str:
    """binary, multiclass or regression; "" without rows."""
    if not len(rows):
        return ""
    if any(side.chances is not None for side in rows.sides):
        return "binary" if all(
            side.chances is None or side.chances.shape[1] == 2 for side in rows.sides
        ) else "multiclass"  # fmt: skip
    if np.isnan(rows.numbers).any():
        return "binary" if len(set(map(text, rows.labels))) <= 2 else "multiclass"
    values = np.unique(rows.numbers)
    given = np.concatenate([as_numbers(side.predictions) for side in rows.sides])
    known = given[~np.isnan(given)]
    whole = bool((values == np.floor(values)).all()) and bool((known == np.floor(known)).all())
    if set(values.tolist()) <= {0.0, 1.0} and (whole or bool(((known >= 0) & (known <= 1)).all())):
        return "binary"
    return "multiclass" if whole and len(values) <= _FEW else "regression"


def text(value: Any) -> str:
    """A class as it is written.

    >>> text(1.0), text(True), text("cat")
    ('1', '1', 'cat')
    """
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def classes_of(side: Answered, task: str) -> Array:
    """Its predicted classes as text, "" for none; a lone score is cut at one half."""
    found = []
    for each in side.predictions:
        if each is None or (isinstance(each, float) and each != each):
            found.append("")
        elif task == "binary" and isinstance(each, float) and not each.is_integer():
            found.append(str(int(each >= 0.5)))
        else:
            found.append(text(each))
    return np.array(found, dtype=object)


def measured(rows: Rows, side: Answered, task: str) -> Side:
    """All that can be told of one side."""
    missing = int(side.missing.sum())
    if task == "regression":
        return _regression(rows, side, missing)
    metrics: dict[str, float] = {}
    truth = np.array([text(each) for each in rows.labels], dtype=object)
    given = classes_of(side, task)
    if len(truth):
        metrics["accuracy"] = float((truth == given).mean())
        metrics |= _precision(truth, given, task, rows.classes)
    metrics |= _probabilistic(rows, side)
    calibration: tuple[Bin, ...] = ()
    roc: tuple[tuple[float, float], ...] = ()
    positive = rows.positive
    if task == "binary" and positive is not None:
        known = ~np.isnan(side.score)
        if positive.any() and (~positive).any():
            metrics["auc"] = auc.auc(side.score[positive], side.score[~positive])
            roc = _roc(side.score[known], positive[known])
        if known.any() and side.score[known].min() >= 0.0 and side.score[known].max() <= 1.0:
            calibration = _calibration(side.score[known], positive[known])
    elif side.chances is not None and rows.places is not None:
        macro = _macro_auc(rows.places, side.chances)
        if macro is not None:
            metrics["auc"] = macro
    return Side(side.version, len(rows), missing, metrics, None, calibration, (), roc)


def _precision(truth: Array, given: Array, task: str, named: tuple[str, ...]) -> dict[str, float]:
    """Of the positive class where there are two, else the plain mean over classes."""
    classes = sorted(set(truth.tolist()) | set(given[given != ""].tolist()))
    wanted = classes
    if task == "binary" and len(named) == 2:
        wanted = [named[1]]
    elif task == "binary" and len(classes) <= 2:
        wanted = ["1"] if set(classes) <= {"0", "1"} else [max(classes)]
    found = []
    for each in wanted:
        hits = float(((truth == each) & (given == each)).sum())
        said, there = float((given == each).sum()), float((truth == each).sum())
        precision = hits / said if said else 0.0
        recall = hits / there if there else 0.0
        both = precision + recall
        found.append((precision, recall, 2 * precision * recall / both if both else 0.0))
    means = np.array(found).mean(axis=0)
    return dict(zip(("precision", "recall", "f1"), means.tolist(), strict=True))


def _probabilistic(rows: Rows, side: Answered) -> dict[str, float]:
    """Log loss (nats; a chance below 0.01 counts as 0.01) and Brier's score, of rows with chances."""
    found = _losses(rows, side)
    if found is None:
        return {}
    log_loss, brier = found
    known = ~np.isnan(log_loss)
    if not known.any():
        return {}
    return {
        "log_loss": float(log_loss[known].mean() * losses.NATS),
        "brier": float(brier[known].mean()),
    }


def _losses(rows: Rows, side: Answered) -> tuple[Floats, Floats] | None:
    chances = side.chances
    if chances is None:
        single = side.score
        known = single[~np.isnan(single)]
        labels = set(rows.numbers[~np.isnan(rows.numbers)].tolist())
        if not len(known) or known.min() < 0 or known.max() > 1 or not labels <= {0.0, 1.0}:
            return None
        if bool((known == np.floor(known)).all()):
            return None  # classes, not chances
        chances = np.stack([1.0 - single, single], axis=1)
        places = rows.numbers.astype(np.int64)
    elif rows.places is not None:
        places = rows.places
    else:
        return None
    return losses.log_loss(places, chances), losses.brier(places, chances)


def _macro_auc(places: Array, chances: Floats) -> float | None:
    """One class against the rest, the plain mean over classes that are there."""
    found = []
    for place in range(chances.shape[1]):
        mine = places == place
        if mine.any() and (~mine).any():
            found.append(auc.auc(chances[mine, place], chances[~mine, place]))
    return float(np.mean(found)) if found else None


def _calibration(score: Floats, positive: Array) -> tuple[Bin, ...]:
    place = np.minimum((score * _CALIBRATION).astype(int), _CALIBRATION - 1)
    found = []
    for at in range(_CALIBRATION):
        mine = place == at
        if mine.any():
            low = at / _CALIBRATION
            found.append(
                Bin(low, low + 1 / _CALIBRATION, int(mine.sum()), float(score[mine].mean()),
                    float(positive[mine].mean()))
            )  # fmt: skip
    return tuple(found)


def _roc(score: Floats, positive: Array) -> tuple[tuple[float, float], ...]:
    """From the strictest threshold to the mildest."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    false = np.cumsum(~positive[order])
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    if len(ends) > _ROC:
        ends = ends[np.linspace(0, len(ends) - 1, _ROC).astype(int)]
    total, wrong = max(1, int(hits[-1])), max(1, int(false[-1]))
    points = [(float(false[at] / wrong), float(hits[at] / total)) for at in ends.tolist()]
    return ((0.0, 0.0), *points)


def _regression(rows: Rows, side: Answered, missing: int) -> Side:
    given = as_numbers(side.predictions)
    known = np.isfinite(given) & np.isfinite(rows.numbers)
    if not known.any():
        return Side(side.version, len(rows), missing, {})
    truth, guess = rows.numbers[known], given[known]
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large cannot be told
        apart = guess - truth
        spread = float(((truth - truth.mean()) ** 2).sum())
        squares = float((apart**2).sum())
        metrics = {
            "mae": float(np.abs(apart).mean()),
            "rmse": float(np.sqrt((apart**2).mean())),
        }
    if 0 < spread < math.inf:
        metrics["r2"] = 1.0 - squares / spread
    told = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return Side(side.version, len(rows), missing, told, None, (), _residuals(apart))


def _residuals(apart: Floats) -> tuple[Bin, ...]:
    """Bins of equal width, the farthest hundredth in the outermost; empty if it cannot be told."""
    if not np.isfinite(apart).all():
        return ()
    low, high = np.quantile(apart, [0.005, 0.995]).tolist()
    cut = np.clip(apart, low, high)
    largest = max(abs(low), abs(high))
    if not math.isfinite(high - low):
        return ()
    if high - low <= _ALIKE * largest:  # all of it is rounding: too little to be divided
        half = max(0.5, _ALIKE * largest)
        low, high = low - half, high + half
    counts, edges = np.histogram(cut, bins=_RESIDUALS, range=(low, high))
    return tuple(
        Bin(float(edges[at]), float(edges[at + 1]), int(n), float((edges[at] + edges[at + 1]) / 2))
        for at, n in enumerate(counts.tolist())
    )


__all__ = ["classes_of", "measured", "task_of", "text"]
