"""The commonest small pipeline in plain numpy: standard scaling, then logistic regression.

For one row, scikit-learn spends ten times longer on checking its input than on the arithmetic.
Here the same operations are done in the same order on the same arrays, so that the answers are
equal to the last bit; that is proved on rows of the model's own range when it is loaded, and
where it is not so, or a request's input is not plain (another type, not finite), the library
answers.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from hotswap.ports import Array
from hotswap.runtimes.packages import require
from hotswap.runtimes.sklearn_steps import Steps

_PROOF: Final = (1, 2, 7, 64)
"""The row counts of the proof: matrix products differ by shape."""


class PlainLogistic:
    """Scalers and a logistic regression as arrays."""

    def __init__(self, scalers: list[Any], last: Any) -> None:
        self._scalers = [
            (scaler.mean_ if scaler.with_mean else None, scaler.scale_ if scaler.with_std else None)
            for scaler in scalers
        ]
        self._coef, self._intercept, self._classes = last.coef_, last.intercept_, last.classes_
        self._expit = require("scipy.special", "scipy", "sklearn").expit
        self._width = int(last.coef_.shape[1])

    def both(self, rows: Any) -> tuple[Array, Array] | None:
        """Labels and probabilities of FP64 rows; None if the library must answer."""
        if type(rows) is not np.ndarray or rows.dtype != np.float64 or not rows.flags.c_contiguous:
            return None
        if rows.ndim != 2 or rows.shape[1] != self._width or not len(rows):
            return None
        if not np.isfinite(rows).all():  # the library has its own words for that
            return None
        for mean, scale in self._scalers:
            if mean is not None:
                rows = rows - mean
            if scale is not None:
                rows = rows / scale
        scores = rows @ self._coef.T + self._intercept
        if not np.isfinite(scores).all():  # it overflowed
            return None
        if scores.shape[1] == 1:
            scores = scores.ravel()
            labels = self._classes.take((scores > 0).view(np.int8))
            chance = self._expit(scores)
            return labels, np.stack([1 - chance, chance], axis=1)
        labels = self._classes.take(scores.argmax(axis=1))
        scores -= scores.max(axis=1).reshape(-1, 1)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1).reshape(-1, 1)
        return labels, scores


def plain(steps: Steps) -> PlainLogistic | None:
    """The plain form of a model, if it has one that was just proved equal."""
    scalers = [getattr(transform, "__self__", None) for transform in steps.transforms]
    if not _exactly(steps.last, "sklearn.linear_model._logistic", "LogisticRegression"):
        return None
    if not all(_exactly(part, "sklearn.preprocessing._data", "StandardScaler") for part in scalers):
        return None
    try:
        found = PlainLogistic(scalers, steps.last)
        equal = all(_same(found, steps, count) for count in _PROOF)
    except (AttributeError, TypeError, ValueError):
        return None
    return found if equal else None


def _same(found: PlainLogistic, steps: Steps, count: int) -> bool:
    """Whether both answer the same, to the bit, on ``count`` rows of the scaler's range."""
    chance = np.random.default_rng(count)
    rows = chance.uniform(-3, 3, (count, found._width))
    for mean, scale in reversed(found._scalers):
        rows = rows * (1.0 if scale is None else scale) + (0.0 if mean is None else mean)
    mine = found.both(np.ascontiguousarray(rows))
    labels = steps.last.predict(steps.transform(rows))
    theirs = steps.last.predict_proba(steps.transform(rows))
    return mine is not None and np.array_equal(mine[0], labels) and np.array_equal(mine[1], theirs)


def _exactly(part: Any, module: str, name: str) -> bool:
    return type(part).__module__ == module and type(part).__name__ == name
