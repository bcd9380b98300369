"""Conversions keep the answers, or are refused with the row that differs most."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from hotswap.core.signature import Signature
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError
from hotswap.plugins import find_runtime
from hotswap.ports import Array
from hotswap.runtimes.convert import ROWS, prove, to_onnx, to_skops
from hotswap.runtimes.signatures import spec_of
from hotswap.testing.checks import check_runtime
from tests.contract.test_runtimes import iris, table_model
from tests.models import breast_cancer, expected, write_breast_cancer


def artifact_of(folder: Path) -> Artifact:
    runtime, entry = find_runtime(folder)
    return Artifact(str(folder), entry, runtime.name, "sha256:00")


@pytest.mark.parametrize("fmt", ["joblib", "skops", "xgb-ubj", "lgbm-txt"])
def test_breast_cancer_to_onnx(fmt: str, tmp_path: Path) -> None:
    """Every tabular format converts, is proved on made-up rows, and serves the same answers."""
    source = write_breast_cancer(tmp_path / "v1", fmt, seed=4)
    target = tmp_path / "v2"
    target.mkdir()
    report = to_onnx(artifact_of(source), VersionSettings(), None, target / "model.onnx")
    assert report.rows == ROWS
    assert 0 < report.worst_absolute < 1e-4
    rows = breast_cancer()[0][:50]
    runtime, _ = find_runtime(target)
    check_runtime(runtime, target, {"input": rows}, expected(fmt, 4, rows), atol=1e-4)


def test_samples_are_what_is_proved(tmp_path: Path) -> None:
    """Given samples, the proof is about those rows."""
    source = write_breast_cancer(tmp_path, "joblib")
    samples = {"input": breast_cancer()[0][:7]}
    report = to_onnx(artifact_of(source), VersionSettings(), samples, tmp_path / "out.onnx")
    assert report.rows == 7


def test_table_to_onnx(tmp_path: Path) -> None:
    """A data-frame pipeline converts with an input a column, and stays a table."""
    model, inputs, frame = table_model(impute=False)  # for text, the converter knows no imputer
    joblib.dump(model, tmp_path / "model.joblib")
    target = tmp_path / "onnx"
    target.mkdir()
    report = to_onnx(artifact_of(tmp_path), VersionSettings(), None, target / "model.onnx")
    assert report.rows == ROWS
    runtime, _ = find_runtime(target)
    given = {**inputs, "age": inputs["age"].astype(np.float32)}
    wanted = {"predict": model.predict(frame), "predict_proba": model.predict_proba(frame)}
    signature = check_runtime(runtime, target, given, wanted, atol=1e-4)
    assert signature.kind == "table"
    assert [spec.datatype for spec in signature.inputs] == ["FP32", "BYTES", "INT64"]


@pytest.mark.parametrize("library", ["sklearn", "xgboost", "lightgbm"])
def test_several_classes_and_values(library: str, tmp_path: Path) -> None:
    """Three classes, and regressors, convert too."""
    rows, numbers = iris()
    models: dict[str, Any] = {}
    if library == "sklearn":
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        models = {"c": RandomForestClassifier(4), "r": RandomForestRegressor(4)}
    elif library == "xgboost":
        import xgboost

        settings: dict[str, Any] = {"n_estimators": 4, "n_jobs": 1}
        models = {
            "c": xgboost.XGBClassifier(**settings),
            "r": xgboost.XGBRegressor(**settings),
        }
    else:
        import lightgbm

        settings = {"n_estimators": 4, "n_jobs": 1, "verbose": -1}
        models = {"c": lightgbm.LGBMClassifier(**settings), "r": lightgbm.LGBMRegressor(**settings)}
    for name, model in models.items():
        folder = tmp_path / name
        folder.mkdir()
        model.fit(rows.astype(np.float32), numbers)
        if library == "sklearn":
            joblib.dump(model, folder / "model.joblib")
        elif library == "xgboost":
            model.save_model(folder / "model.ubj")
        else:
            model.booster_.save_model(folder / "model.txt")
        report = to_onnx(artifact_of(folder), VersionSettings(), None, folder / "out.onnx")
        assert report.rows == ROWS


class Fixed:
    """An executor that answers what it was given."""

    def __init__(self, **answers: Array) -> None:
        self.answers = answers
        self.signature = Signature((spec_of("x", np.zeros((1, 2))),), ())

    def predict(self, inputs: Any, outputs: Any) -> dict[str, Array]:
        return self.answers

    def close(self) -> None: ...


def test_a_difference_names_the_worst_row() -> None:
    """Index, input, expected, got and difference are in the sentence."""
    rows = {"x": np.arange(6.0).reshape(3, 2)}
    original = Fixed(predict_proba=np.array([0.1, 0.5, 0.9]))
    other = Fixed(predict_proba=np.array([0.1, 0.8, 0.8]))
    with pytest.raises(
        LoadError,
        match=r"row 1 of 3, input .*\[2\.0, 3\.0\].* expected 0\.5, got 0\.8, difference 0\.3",
    ):
        prove(original, other, rows, VersionSettings())
    report = prove(original, other, rows, VersionSettings(parity_rtol=1.0))
    assert report.worst_row == 1
    assert report.worst_absolute == pytest.approx(0.3)
    assert report.worst_relative == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (Fixed(predict=np.array([0, 2, 2])), "row 1 of 3, .*expected 1, got 2, difference another"),
        (Fixed(predict=np.array([0, 1])), r"has the shape \[2\], the original's \[3\]"),
        (Fixed(label=np.array([0, 1, 2])), "has no output 'predict'; it has label"),
    ],
)
def test_labels_must_be_equal(other: Fixed, error: str) -> None:
    """No tolerance applies to labels, nor to shapes and names."""
    original = Fixed(predict=np.array([0, 1, 2]))
    with pytest.raises(LoadError, match=error):
        prove(original, other, {"x": np.zeros((3, 2))}, VersionSettings(parity_atol=9))


def test_nan_is_a_difference() -> None:
    """A NaN where the original has a number fails; NaN in both does not."""
    rows = {"x": np.zeros((2, 2))}
    original = Fixed(predict=np.array([np.nan, 1.0]))
    assert prove(original, original, rows, VersionSettings()).worst_absolute == 0
    with pytest.raises(LoadError, match="row 1 of 2"):
        prove(original, Fixed(predict=np.array([np.nan, np.nan])), rows, VersionSettings())


def test_a_failed_proof_leaves_no_file(tmp_path: Path) -> None:
    """With a tolerance that FP32 cannot keep, nothing is written."""
    source = write_breast_cancer(tmp_path, "joblib")
    settings = VersionSettings(parity_atol=0, parity_rtol=0)
    out = tmp_path / "out.onnx"
    with pytest.raises(LoadError, match="differs from the original in 'predict_proba'"):
        to_onnx(artifact_of(source), settings, None, out)
    assert not out.exists()


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    """Another runtime's version, and an estimator without a counterpart, are told apart."""
    source = write_breast_cancer(tmp_path / "p", "python")
    with pytest.raises(LoadError, match="runtime python cannot be converted"):
        to_onnx(artifact_of(source), VersionSettings(), None, tmp_path / "out.onnx")
    from sklearn.kernel_ridge import KernelRidge

    model: Any = KernelRidge().fit(np.arange(6.0).reshape(3, 2), np.arange(3.0))
    folder = tmp_path / "i"
    folder.mkdir()
    joblib.dump(model, folder / "model.joblib")
    with pytest.raises(LoadError, match="cannot be converted to ONNX"):
        to_onnx(artifact_of(folder), VersionSettings(), None, tmp_path / "out.onnx")


def test_to_skops(tmp_path: Path) -> None:
    """A joblib file becomes a skops file that answers the same."""
    source = write_breast_cancer(tmp_path / "v1", "joblib", seed=6)
    target = tmp_path / "v2"
    target.mkdir()
    to_skops(artifact_of(source), target / "model.skops")
    rows = breast_cancer()[0][:20]
    runtime, entry = find_runtime(target)
    assert runtime.runs_code(target, entry) is None
    check_runtime(runtime, target, {"input": rows}, expected("joblib", 6, rows))


def test_to_skops_refuses_what_it_could_not_load(tmp_path: Path) -> None:
    """A type that is not on the list is named, and no file is left."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.tree import DecisionTreeClassifier

    rows, numbers = iris()
    model = make_pipeline(FunctionTransformer(shutil.rmtree), DecisionTreeClassifier())
    model.steps[1][1].fit(rows, numbers)
    joblib.dump(model, tmp_path / "model.joblib")
    out = tmp_path / "out.skops"
    with pytest.raises(LoadError, match=r"shutil\.rmtree|shutil\._RmtreeType"):
        to_skops(artifact_of(tmp_path), out)
    assert not out.exists()
