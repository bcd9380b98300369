"""The shortcuts for scikit-learn models answer exactly what the models' own methods answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from hotswap.core.spec import VersionSettings
from hotswap.ports import Array
from hotswap.runtimes.sklearn import SklearnExecutor
from hotswap.runtimes.sklearn_plain import plain
from hotswap.runtimes.sklearn_steps import Steps, run_alone
from tests.contract.test_runtimes import iris
from tests.models import breast_cancer, pipeline


def logistic(*scalers: Any, classes: int = 3) -> Any:
    rows, labels = iris() if classes == 3 else breast_cancer()
    return make_pipeline(*scalers, LogisticRegression(max_iter=5000)).fit(rows, labels)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "scalers",
    [(), (StandardScaler(),), (StandardScaler(with_mean=False), StandardScaler(with_std=False))],
)
def test_plain_is_equal_to_the_last_bit(scalers: tuple[Any, ...], classes: int) -> None:
    """Scaling and logistic regression in numpy give the library's own bits, in any batch."""
    model = logistic(*scalers, classes=classes)
    rows = (iris() if classes == 3 else breast_cancer())[0]
    found = plain(Steps(model))
    assert found is not None
    for count in (1, 3, 50, len(rows)):
        pair = found.both(rows[:count])
        assert pair is not None
        assert np.array_equal(pair[0], model.predict(rows[:count]))
        assert np.array_equal(pair[1], model.predict_proba(rows[:count]))


class Stubborn(LogisticRegression):  # type: ignore[misc]
    """A subclass with an opinion of its own."""

    def predict(self, rows: Any) -> Array:
        return np.zeros(len(rows), dtype=int)


def test_plain_is_only_for_what_is_known() -> None:
    """Another scaler, a subclass, another estimator: the library answers."""
    rows, labels = iris()
    for model in (
        logistic(MinMaxScaler()),
        make_pipeline(StandardScaler(), Stubborn(max_iter=500)).fit(rows, labels),
        RandomForestClassifier(3).fit(rows, labels),
    ):
        assert plain(Steps(model)) is None


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (np.full((1, 30), np.nan), "NaN"),
        (np.full((2, 30), np.inf), "infinity"),
        (np.zeros((2, 29)), "29 features"),
        (np.zeros(30), "2D array"),
    ],
)
def test_bad_rows_get_the_librarys_own_error(bad: Array, error: str) -> None:
    """What plain numpy would let through is left to the library, which says what is wrong."""
    executor = SklearnExecutor(pipeline(0), Path(), VersionSettings())
    with pytest.raises(ValueError, match=error):
        executor.predict({"input": bad}, ())


def test_a_tie_is_left_to_predict() -> None:
    """Scores too small to show in the probabilities still decide the label."""
    model = LogisticRegression().fit(np.array([[-1.0], [1.0]]), ["a", "b"])
    model.coef_, model.intercept_ = np.array([[1e-17]]), np.array([0.0])
    rows = np.array([[1.0], [-1.0], [0.0]])
    assert model.predict_proba(rows)[:, 1].tolist() == [0.5, 0.5, 0.5]
    labels, _ = Steps(model).both(rows)
    assert labels.tolist() == model.predict(rows).tolist() == ["b", "a", "a"]


class Counting(StandardScaler):  # type: ignore[misc]
    """Counts its transforms."""

    calls = 0

    def transform(self, rows: Any, copy: Any = None) -> Any:
        type(self).calls += 1
        return super().transform(rows, copy)


def test_both_outputs_transform_once() -> None:
    """For labels and probabilities the rows are transformed once."""
    model = logistic(Counting())
    executor = SklearnExecutor(model, Path(), VersionSettings())
    Counting.calls = 0
    rows = iris()[0]
    answers = executor.predict({"input": rows}, ())
    assert Counting.calls == 1
    assert np.array_equal(answers["predict"], model.predict(rows))


def test_no_estimator_keeps_its_jobs() -> None:
    """However deep an estimator lies, it starts no threads of its own."""
    forest = RandomForestClassifier(3, n_jobs=4)
    model = make_pipeline(StandardScaler(), make_pipeline(forest)).fit(*iris())
    run_alone(model)
    assert model[-1][-1].n_jobs == 1
