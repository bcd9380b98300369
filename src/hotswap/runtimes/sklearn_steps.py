"""A fitted scikit-learn model taken apart for serving: transform once, answer once.

Labels are derived from probabilities only for the estimators whose own ``predict`` is that
same argmax, as read in scikit-learn's source; for all others ``predict`` itself is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from hotswap.ports import Array

# predict() is classes_[argmax(predict_proba)], on the very same numbers.
_SAME_NUMBERS: Final = frozenset(
    {
        "RandomForestClassifier",
        "ExtraTreesClassifier",
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
    }
)

# predict() is the argmax (or the sign) of scores of which the probabilities are a strictly
# increasing function: the same label unless rounding made a tie, for which `_TIE` stands guard.
_INCREASING: Final = frozenset(
    {
        "LogisticRegression",
        "LogisticRegressionCV",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
        "GaussianNB",
        "MultinomialNB",
        "ComplementNB",
        "BernoulliNB",
        "CategoricalNB",
        "LinearDiscriminantAnalysis",
        "QuadraticDiscriminantAnalysis",
    }
)

_TIE: Final = 1e-6
"""Two best probabilities closer than this are left to ``predict``: rounding could decide."""


class Steps:
    """The transforms before the last estimator, and the last estimator.

    A pipeline's ``predict`` does the same: each step's ``transform`` in turn, then the last
    one's method.
    """

    def __init__(self, model: Any) -> None:
        self.transforms: list[Callable[[Any], Any]] = []
        self.last = model
        while True:
            if type(self.last).__name__ == "Pipeline" and _is_sklearn(self.last):
                *before, (_, self.last) = self.last.steps
                self.transforms += [step.transform for _, step in before if _acts(step)]
            elif hasattr(self.last, "best_estimator_") and _is_sklearn(self.last):
                self.last = self.last.best_estimator_
            else:
                break
        self.labels_of: Callable[[Array], Array | None] | None = _labels_of(self.last)
        self.proba = getattr(self.last, "predict_proba", None)

    def transform(self, rows: Any) -> Any:
        """What the last estimator is given for these rows."""
        for transform in self.transforms:
            rows = transform(rows)
        return rows

    def both(self, rows: Any) -> tuple[Any, Any]:
        """``predict`` and ``predict_proba`` of untransformed rows, transforming once."""
        rows = self.transform(rows)
        assert self.proba is not None
        proba = self.proba(rows)
        labels = self.labels_of(proba) if self.labels_of is not None else None
        return (self.last.predict(rows) if labels is None else labels), proba


def _is_sklearn(estimator: Any) -> bool:
    return type(estimator).__module__.startswith("sklearn.")


def _acts(step: Any) -> bool:
    return step is not None and not (isinstance(step, str) and step == "passthrough")


def _labels_of(last: Any) -> Callable[[Array], Array | None] | None:
    classes = getattr(last, "classes_", None)
    if not _is_sklearn(last) or not isinstance(classes, np.ndarray) or classes.ndim != 1:
        return None
    name = type(last).__name__
    if name in _SAME_NUMBERS:
        return lambda proba: _named(proba.argmax(axis=1), classes)
    if name in _INCREASING and getattr(last, "multi_class", "auto") != "ovr":
        return lambda proba: _guarded(proba, classes)
    return None


def _named(indices: Array, classes: Array) -> Array:
    labels: Array = classes.take(indices)
    return labels


def _guarded(proba: Array, classes: Array) -> Array | None:
    """The labels, or None if any row has a tie (or NaN) that rounding could have made."""
    if proba.shape[1] == 2:
        ahead = proba[:, 1] - proba[:, 0]
        if not (np.abs(ahead) > _TIE).all():
            return None
        return _named((ahead > 0).view(np.int8), classes)
    best = np.partition(proba, -2, axis=1)
    if not (best[:, -1] - best[:, -2] > _TIE).all():
        return None
    return _named(proba.argmax(axis=1), classes)


def run_alone(model: Any, seen: set[int] | None = None, depth: int = 0) -> None:
    """Set ``n_jobs`` to 1 on a model and every estimator in it: no threads, no processes."""
    seen = set() if seen is None else seen
    if id(model) in seen or depth > 12:
        return
    seen.add(id(model))
    if isinstance(model, dict):
        parts = list(model.values())
    elif isinstance(model, (list, tuple)):
        parts = list(model)
    elif isinstance(model, np.ndarray) and model.dtype == object:
        parts = model.ravel().tolist()
    elif hasattr(model, "get_params") and not isinstance(model, type):
        if getattr(model, "n_jobs", 1) != 1:
            model.n_jobs = 1
        parts = list(getattr(model, "__dict__", {}).values())
    else:
        return
    for part in parts:
        run_alone(part, seen, depth + 1)
