"""The demo's model that is rolled out: a first version, a better one, and two mistakes.

Both mistakes are made every day. ``v3`` was saved without the scaler that it was trained behind: it
answers every request, and nearly always the same. ``v4`` takes logarithms, of which some rows have
none: the notebook had dropped those rows, and live traffic has not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from hotswap.app.demo_bench import Bench, DemoModel, DemoVersion, skops, split
from hotswap.ports import Array

#: Mean area, mean concavity and worst area: skewed, so v4 takes their logarithms. Concavity can be 0.
LOGGED: Final = (3, 6, 23)

#: v4 as its author wrote it. What it needs of the training is in ``weights.npz``.
CODE: Final = f"""\
import math

import numpy as np


class Model:
    def load(self, path):
        self.weights = dict(np.load(path / "weights.npz"))

    def scores(self, X):
        X = np.asarray(X, dtype=float)
        logs = [[math.log(row[column]) for column in {LOGGED}] for row in X]
        scaled = (np.hstack([X, logs]) - self.weights["mean"]) / self.weights["scale"]
        return scaled @ self.weights["slope"] + self.weights["offset"]

    def predict(self, X):
        return (self.scores(X) > 0).astype(np.int64)

    def predict_proba(self, X):
        yes = 1 / (1 + np.exp(-self.scores(X)))
        return np.column_stack([1 - yes, yes])
"""


def cancer(bench: Bench) -> DemoModel:
    """Is a tumour benign? Four versions, of which one deserves to take over."""
    from sklearn.datasets import load_breast_cancer

    rows, live, labels, truth = split(load_breast_cancer, stratify=True)
    versions = (
        _first(bench, rows, labels, live),
        _better(bench, rows, labels, live),
        _unscaled(bench, rows, labels, live),
        _raising(bench, rows, labels, live),
    )
    return DemoModel("cancer", "classification", live, truth, versions)


def _first(bench: Bench, rows: Array, labels: Array, live: Array) -> DemoVersion:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Mean radius and mean texture: what one would look at first.
    two = ColumnTransformer([("two", StandardScaler(), [0, 1])])
    simple = make_pipeline(two, LogisticRegression()).fit(rows, labels)
    said = "Logistic regression on radius and texture."
    return bench.version("cancer/v1", said, skops(simple, live))


def _better(bench: Bench, rows: Array, labels: Array, live: Array) -> DemoVersion:
    import xgboost

    extreme = xgboost.XGBClassifier(
        n_estimators=150,
        learning_rate=0.1,
        max_depth=3,
        subsample=0.7,
        colsample_bytree=0.5,
        random_state=0,
        n_jobs=1,
    ).fit(rows, labels)

    def write(target: Path) -> tuple[str, Array]:
        extreme.save_model(target / "model.ubj")
        return "XGBoost (ubj)", np.asarray(extreme.predict(live))

    return bench.version("cancer/v2", "XGBoost: 150 small trees on all 30 columns.", write)


def _unscaled(bench: Bench, rows: Array, labels: Array, live: Array) -> DemoVersion:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    # The mistake: the model alone is saved, and requests hold what no scaler has seen.
    model = LogisticRegression().fit(StandardScaler().fit_transform(rows), labels)
    said = "Logistic regression on all columns. (Its scaler was left behind.)"
    return bench.version("cancer/v3", said, skops(model, live))


def _raising(bench: Bench, rows: Array, labels: Array, live: Array) -> DemoVersion:
    known = rows[:, LOGGED[1]] > 0  # the mistake: what has no logarithm was dropped
    return bench.version(
        "cancer/v4",
        "With logarithms of skewed columns. (log 0 raises.)",
        _class(*_fitted(rows[known], labels[known]), live),
        samples=rows[known][:2].tolist(),
    )


def _fitted(rows: Array, labels: Array) -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    wide = np.hstack([rows, np.log(rows[:, LOGGED])])
    scaler = StandardScaler().fit(wide)
    return scaler, LogisticRegression().fit(scaler.transform(wide), labels)


def _class(scaler: Any, model: Any, live: Array) -> Callable[[Path], tuple[str, Array]]:
    def write(target: Path) -> tuple[str, Array]:
        (target / "model.py").write_text(CODE)
        np.savez(
            target / "weights.npz",
            mean=scaler.mean_,
            scale=scaler.scale_,
            slope=model.coef_[0],
            offset=model.intercept_[0],
        )
        answered = (live[:, LOGGED] > 0).all(axis=1)
        expected = np.full(len(live), np.nan)
        some = live[answered]
        wide = np.hstack([some, np.log(some[:, LOGGED])])
        expected[answered] = model.predict(scaler.transform(wide))
        return "Python (model.py)", expected

    return write
