"""The demo's training: real models in safe formats, with what they must answer."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from hotswap.app import demo_models
from hotswap.app.demo import coded
from hotswap.app.demo_bench import DemoModel
from hotswap.app.demo_models import require_libraries, train
from hotswap.app.demo_rollouts import SHADOWED
from hotswap.errors import MissingDependency
from hotswap.sources.settings import read_version_yaml

pytest.importorskip("xgboost")
pytest.importorskip("lightgbm")
pytest.importorskip("skl2onnx")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[DemoModel, ...], list[str]]:
    """The models, and what the training said."""
    said: list[str] = []
    return train(tmp_path_factory.mktemp("demo") / "trained", said.append), said


def test_every_model_has_versions_in_several_formats(
    trained: tuple[tuple[DemoModel, ...], list[str]],
) -> None:
    """Three models, each with v1 and more, and one line of progress for each version."""
    models, said = trained
    assert [model.name for model in models] == ["cancer", "digits", "diabetes"]
    assert [[v.version for v in m.versions] for m in models] == [
        ["v1", "v2", "v3", "v4"],
        ["v1", "v2"],
        ["v1", "v2"],
    ]
    assert len(said) == sum(len(model.versions) for model in models)
    formats = {version.format.split()[0] for model in models for version in model.versions}
    assert formats == {"scikit-learn", "ONNX", "XGBoost", "LightGBM", "Python"}


def test_one_artifact_alone_is_code(trained: tuple[tuple[DemoModel, ...], list[str]]) -> None:
    """All but cancer/v4 are in formats that need no trust; each has a readable version.yaml."""
    safe = {"model.skops", "model.onnx", "model.ubj", "model.txt"}
    for model in trained[0]:
        for version in model.versions:
            names = {path.name for path in version.folder.iterdir()} - {"version.yaml"}
            assert names <= safe or (model.name, version.version) == ("cancer", "v4")
            assert read_version_yaml(version.folder).changelog == version.changelog
    (code,) = coded(trained[0])
    assert {path.name for path in code.iterdir()} == {"model.py", "weights.npz", "version.yaml"}


def test_v3_is_a_mistake_that_raises_nothing(
    trained: tuple[tuple[DemoModel, ...], list[str]],
) -> None:
    """It answers every row, and most of them unlike v2: more than the guardrail allows."""
    cancer = trained[0][0]
    first, second, third, _ = (version.expected for version in cancer.versions)
    assert set(third) <= {0, 1}
    (limit,) = (each["max"] for each in SHADOWED if each["metric"] == "disagreement")
    assert (third != second).mean() > 2 * limit
    assert (first != second).mean() < limit / 1.5
    assert _quality(cancer, third) < _quality(cancer, first)


def test_v4_raises_on_the_rows_that_are_said_and_on_no_others(
    trained: tuple[tuple[DemoModel, ...], list[str]],
) -> None:
    """Its class, run as the server runs it, predicts what is expected and raises where NaN is."""
    cancer = trained[0][0]
    version = cancer.versions[3]
    space = runpy.run_path(str(version.folder / "model.py"))
    model = space["Model"]()
    model.load(version.folder)
    bad = np.isnan(version.expected)
    assert 0 < bad.sum() < 0.1 * len(bad)
    assert (model.predict(cancer.rows[~bad]) == version.expected[~bad]).all()
    for row in cancer.rows[bad]:
        with pytest.raises(ValueError, match="math domain error"):
            model.predict(row[None])
    samples = np.array(read_version_yaml(version.folder).samples)
    assert model.predict_proba(samples).sum(axis=1) == pytest.approx([1.0] * len(samples))


def test_later_versions_are_better(trained: tuple[tuple[DemoModel, ...], list[str]]) -> None:
    """On rows that no training saw, v2 beats v1 for every model."""
    for model in trained[0]:
        first, second = (_quality(model, version.expected) for version in model.versions[:2])
        assert second > first


def test_expected_has_one_prediction_a_row(
    trained: tuple[tuple[DemoModel, ...], list[str]],
) -> None:
    """What a version must answer is known for every held-out row."""
    for model in trained[0]:
        assert len(model.rows) == len(model.labels)
        assert all(version.expected.shape == (len(model.rows),) for version in model.versions)


def test_missing_libraries_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an extra the error names what is missing and the pip command."""
    monkeypatch.setitem(demo_models.NEEDED, "no_such_library", "onnx")
    with pytest.raises(
        MissingDependency, match=r"no_such_library.*pip install 'hotswap\[sklearn,onnx"
    ):
        require_libraries()


def test_training_refuses_a_folder_in_use(
    trained: tuple[tuple[DemoModel, ...], list[str]],
) -> None:
    """It never writes over an earlier artifact."""
    folder: Path = trained[0][0].versions[0].folder.parent.parent
    with pytest.raises(FileExistsError):
        train(folder, lambda _: None)


def _quality(
    model: DemoModel, predictions: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> float:
    if model.task == "classification":
        return float((predictions == model.labels).mean())
    return -float(np.abs(predictions.astype(float) - model.labels).mean())
