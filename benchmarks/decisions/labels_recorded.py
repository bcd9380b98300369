"""Predictions of real classifiers on data that comes with scikit-learn, each row held out once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.decisions.vectors import Floats, Ints


class Recorded(NamedTuple):
    """Two versions on the same rows: the labels, and the probabilities that either gave."""

    name: str
    labels: Ints
    stable: Floats
    candidate: Floats

    def wrong(self, which: str) -> Floats:
        """1 where that version's likeliest class is not the label."""
        chances: Floats = getattr(self, which)
        return np.asarray(chances.argmax(axis=1) != self.labels, np.float64)


def digits() -> Recorded:
    """Ten digits: extremely random trees, then a logistic regression."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import ExtraTreesClassifier

    values, labels = load_digits(return_X_y=True)
    name = "digits: trees → logistic regression"
    return held_out(name, values, labels, ExtraTreesClassifier(100, random_state=0), _linear())


def cancer() -> Recorded:
    """Tumours, malignant or not: a logistic regression, then boosted trees."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier

    values, labels = load_breast_cancer(return_X_y=True)
    boosted = HistGradientBoostingClassifier(max_iter=40, random_state=0)
    name = "breast cancer: logistic regression → boosting"
    return held_out(name, values, 1 - labels, _linear(), boosted)


def eights() -> Recorded:
    """Is a digit an eight? One in ten is. Twenty rounds of boosting, then only ten."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import HistGradientBoostingClassifier

    values, labels = load_digits(return_X_y=True)
    long, short = (HistGradientBoostingClassifier(max_iter=n, random_state=0) for n in (20, 10))
    name = "an eight or not: boosting of 20 rounds → of 10"
    return held_out(name, values, (labels == 8).astype(np.int64), long, short)


RECORDED: Final[tuple[Callable[[], Recorded], ...]] = (digits, cancer, eights)


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def held_out(name: str, values: Any, labels: Any, stable: Any, candidate: Any) -> Recorded:
    """Five folds, each predicted by models that saw the other four."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    chances = [
        cross_val_predict(model, values, labels, cv=folds, method="predict_proba")
        for model in (stable, candidate)
    ]
    return Recorded(name, np.asarray(labels, np.int64), *chances)
