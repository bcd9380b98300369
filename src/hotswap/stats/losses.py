"""What an answer lost, row by row, against the label; and two answers' difference in [−1, 1].

All functions take arrays of one entry a row and give one `float` a row, larger is worse. A row
without an output (``None``, not a number, infinite, or probabilities that are none) has the loss
NaN, and `scaled_difference` says what that is worth: a candidate without an output has lost
everything, stable alone without one as well, and both alike is a tie. Labels must be there: join
first, then ask what was lost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
#: Numbers or texts, one a row; ``None`` is missing.
Column = Sequence[Any] | npt.NDArray[Any]

#: A probability counts as this at least, so that the loss of one row is bounded.
LEAST: Final = 0.01
#: Nats to a log loss of 1.
NATS: Final = -math.log(LEAST)
#: So many losses freeze a scale.
ENOUGH: Final = 100
_SUM: Final = 0.01  # how far from 1 probabilities may add up, as 16-bit ones of many classes do
_SLACK: Final = 1e-6
#: Texts that files and models write for the same class as a number.
_TRUTHS: Final = {"true": "1", "false": "0"}
#: Not 01, which is a name.
_NUMBER: Final = re.compile(r"[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?")


def wrong(labels: Column, predictions: Column) -> Floats:
    """1 where the prediction is not the label, else 0; NaN without a prediction.

    Numbers are compared as numbers, in the predictions' precision, texts as texts, and a number
    with a text by what it is written like: 1.0 is ``"1"``, ``"1.0"`` and ``"true"``. The 0-1 loss: its mean is 1 − accuracy.

    >>> wrong([1, 0, 1], [1.0, 1.0, math.nan]).tolist(), wrong(["cat", "2"], ["dog", 2]).tolist()
    ([0.0, 1.0, nan], [1.0, 0.0])
    """
    truth, given = _column(labels), _column(predictions)
    _check_lengths(truth, given)
    gone = _missing(given)
    _check_labels(_missing(truth))
    if _numeric(truth) and _numeric(given):
        same = truth.astype(given.dtype if given.dtype.kind == "f" else np.float64) == given
    else:
        same = _written(truth) == _written(given)
    return np.where(gone, np.nan, np.where(same, 0.0, 1.0))


def places(labels: Column, classes: Column) -> Numbers:
    """Each label's place among a classifier's classes, as `wrong` compares them; −1 if nowhere.

    For `log_loss` and `brier` of models whose classes are not 0, 1, 2 … in order.

    >>> places(["no", "yes", "maybe"], ["no", "yes"]).tolist(), places([1.0], ["0", "1"]).tolist()
    ([0, 1, -1], [1])
    """
    truth = _column(labels)
    _check_labels(_missing(truth))
    where = {name: at for at, name in enumerate(_written(_column(classes)).tolist())}
    return np.array([where.get(name, -1) for name in _written(truth).tolist()], np.int64)


def log_loss(places: npt.ArrayLike, probabilities: npt.ArrayLike) -> Floats:
    """−ln p of the label's class over ln 100, in [0, 1]: p counts as 0.01 at least.

    ``probabilities``: (rows,) of class 1 against class 0, or (rows, classes). ``places``: whole
    numbers, the label's class; one that the model does not have (−1) has the loss 1. Times `NATS`
    it is in nats (Good 1952).

    >>> log_loss([1, 0, 1], [1.0, 0.9, 0.001]).round(4).tolist()
    [0.0, 0.5, 1.0]
    """
    chosen, matrix, gone = _forecasts(places, probabilities)
    inside = (chosen >= 0) & (chosen < matrix.shape[1])
    own = np.where(inside, matrix[np.arange(len(chosen)), np.where(inside, chosen, 0)], 0.0)
    with np.errstate(invalid="ignore"):
        lost = -np.log(np.clip(own, LEAST, 1.0)) / NATS
    return np.where(gone, np.nan, lost + 0.0)


def brier(places: npt.ArrayLike, probabilities: npt.ArrayLike) -> Floats:
    """The squared distance of the probabilities from the label's, in [0, 1].

    Arguments as for `log_loss`. Of class 1 against class 0: (p − y)², as Brier's score is mostly
    told; of more classes half of the sum over them, which for two is the same (Brier 1950).

    >>> brier([1, 0], [0.8, 0.8]).round(4).tolist(), brier([0], [[0.2, 0.8]]).round(4).tolist()
    ([0.04, 0.64], [0.64])
    """
    chosen, matrix, gone = _forecasts(places, probabilities)
    truth = (chosen[:, None] == np.arange(matrix.shape[1])).astype(np.float64)
    lost = 0.5 * ((matrix - truth) ** 2).sum(axis=1)
    lost = lost + 0.5 * (truth.sum(axis=1) == 0.0)  # what a class would have that it does not know
    return np.where(gone, np.nan, np.clip(lost, 0.0, 1.0))


def absolute_error(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> Floats:
    """abs(prediction − label), in the label's unit; NaN without a prediction.

    Its mean is the MAE. Unbounded: give it to `scaled_difference` with a frozen scale.

    >>> absolute_error([1.0, 2.0], [3.0, math.inf]).tolist()
    [2.0, nan]
    """
    truth, given, gone = _numbers(labels, predictions)
    return np.where(gone, np.nan, np.abs(given - truth))


def squared_error(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> Floats:
    """(prediction − label)², in the label's unit squared; NaN without a prediction.

    Its mean is the square of the RMSE. Unbounded: give it to `scaled_difference` with a frozen
    scale.

    >>> squared_error([1.0, 2.0], [3.0, math.nan]).tolist()
    [4.0, nan]
    """
    truth, given, gone = _numbers(labels, predictions)
    with np.errstate(over="ignore"):
        return np.where(gone, np.nan, (given - truth) ** 2)


def scaled_difference(
    candidate: npt.ArrayLike, stable: npt.ArrayLike, scale: float = 1.0
) -> Floats:
    """(candidate's loss − stable's) / ``scale``, cut to [−1, 1], for `differences.buckets`.

    Losses that are not finite are missing: the candidate's alone counts 1, stable's alone −1, both
    0. ``scale`` is 1 for losses in [0, 1], else frozen before (`freeze_scale`); a margin in the
    losses' unit is divided by it too. What is beyond the scale is cut, for both signs alike: the
    claim is then one about the cut differences.

    >>> scaled_difference([3.0, math.nan, 9.0, math.nan], [1.0, 0.0, math.nan, math.nan], 4).tolist()
    [0.5, 1.0, -1.0, 0.0]
    """
    ours, theirs = np.asarray(candidate, np.float64), np.asarray(stable, np.float64)
    _check_lengths(ours, theirs)
    if not 0.0 < scale < math.inf:
        raise ValueError(f"A scale of losses is above 0 and finite, not {scale}.")
    lost, other = ~np.isfinite(ours), ~np.isfinite(theirs)
    with np.errstate(over="ignore"):
        known = (np.where(lost, 0.0, ours) - np.where(other, 0.0, theirs)) / scale
    return np.where(
        lost | other, lost.astype(np.float64) - other.astype(np.float64), np.clip(known, -1.0, 1.0)
    )


def freeze_scale(stable_losses: npt.ArrayLike) -> float:
    """A scale for an unbounded loss: the 99th percentile of stable's, above 0; once, beforehand.

    Rank statistics do not care for outliers: it is one of the losses, and one wild row in a hundred
    is not it; that is cut at ±1 later. Needs `ENOUGH` losses, else `ValueError`; missing ones are left out. If nearly
    all are 0 it is the largest, and if all are, 1.

    Take losses from before the rollout. Else the rows that it was frozen from must be left out of
    the counts, for both versions: bets on rows that had a part in choosing the scale are not bets.
    Never freeze it anew while counts of the old scale are kept.

    >>> freeze_scale(range(101)), freeze_scale([0.0] * 500 + [7.0])
    (99.0, 7.0)
    """
    losses = np.asarray(stable_losses, np.float64).ravel()
    losses = losses[np.isfinite(losses)]
    if losses.size < ENOUGH:
        raise ValueError(
            f"A scale is frozen from {ENOUGH} losses at least, not from {losses.size}."
        )
    if losses.min() < 0.0:
        raise ValueError(f"A loss is 0 at least, not {losses.min()}.")
    scale = float(np.quantile(losses, 0.99, method="lower")) or float(losses.max())
    return scale or 1.0


def _forecasts(
    places: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[Numbers, Floats, npt.NDArray[np.bool_]]:
    """The labels' places, (rows, classes) of probabilities, and which rows have none."""
    given = np.asarray(probabilities, np.float64)
    if given.ndim == 1:
        given = np.stack([1.0 - given, given], axis=1)
    if given.ndim != 2 or given.shape[1] < 2:
        raise ValueError(f"Probabilities are (rows,) or (rows, classes), not {given.shape}.")
    chosen = np.asarray(places)
    _check_lengths(chosen, given)
    whole = chosen.astype(np.int64) if chosen.dtype.kind in "iub" else _whole(chosen)
    with np.errstate(invalid="ignore"):
        fits = (given >= -_SLACK) & (given <= 1.0 + _SLACK)
        gone = ~(fits.all(axis=1) & (np.abs(given.sum(axis=1) - 1.0) <= _SUM))
    return whole, given, gone


def _whole(places: npt.NDArray[Any]) -> Numbers:
    numbers = np.asarray(places, np.float64)
    if not bool(np.all(numbers == np.rint(numbers))):
        raise ValueError("A label's class is a whole number: find it with `places`.")
    return numbers.astype(np.int64)


def _numbers(
    labels: npt.ArrayLike, predictions: npt.ArrayLike
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    truth, given = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    _check_lengths(truth, given)
    _check_labels(~np.isfinite(truth))
    gone = ~np.isfinite(given)
    return truth, np.where(gone, 0.0, given), gone


def _column(values: Column) -> npt.NDArray[Any]:
    """One value a row, of numbers if all are; never numbers turned to texts, as numpy would."""
    found = values if isinstance(values, np.ndarray) else np.array(values, object)
    if found.ndim != 1:
        raise ValueError(f"One label and one prediction a row, not an array of {found.shape}.")
    if found.dtype.kind == "O":
        kinds = {type(value) for value in found if value is not None}
        if not any(issubclass(kind, (str, bytes)) for kind in kinds):
            return found.astype(np.float64)
    return found


def _numeric(column: npt.NDArray[Any]) -> bool:
    return column.dtype.kind in "biuf"


def _missing(column: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if _numeric(column):
        return np.asarray(~np.isfinite(column), np.bool_)
    if column.dtype.kind != "O":
        return np.zeros(len(column), np.bool_)
    return np.array([value is None or value != value for value in column.tolist()], np.bool_)


def _written(column: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    return np.array([_text(value) for value in column.tolist()], object)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None:
        return "None"
    if isinstance(value, str):
        known = _TRUTHS.get(value.lower())
        if known is not None:
            return known
        if _NUMBER.fullmatch(value) is None:
            return value
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)


def _check_lengths(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
    if len(one) != len(other):
        raise ValueError(f"{len(one)} rows on one side and {len(other)} on the other: give both.")


def _check_labels(missing: npt.NDArray[np.bool_]) -> None:
    if bool(missing.any()):
        raise ValueError(f"{int(missing.sum())} rows have no label: leave them out.")
