"""Every runtime and every format keeps the port's contract, on real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import yaml

from hotswap.core.signature import Signature
from hotswap.core.spec import VersionSettings
from hotswap.plugins import find_runtime
from hotswap.ports import Array
from hotswap.testing.checks import check_runtime
from tests.models import FORMATS, TRUSTED_ONLY, breast_cancer, expected, write_breast_cancer


def text(values: Any) -> Array:
    """An object array of `bytes`, as BYTES travel."""
    array = np.empty(len(values), dtype=object)
    array[:] = [str(value).encode() for value in values]
    return array


def check(
    folder: Path,
    inputs: dict[str, Array],
    wanted: dict[str, Array] | None,
    runtime: str | None = None,
    settings: VersionSettings | None = None,
    atol: float = 1e-6,
) -> Signature:
    found, _ = find_runtime(folder, runtime)
    return check_runtime(found, folder, inputs, wanted, settings=settings, atol=atol)


@pytest.mark.parametrize("fmt", FORMATS)
def test_breast_cancer(fmt: str, tmp_path: Path) -> None:
    """Each format of the same model answers labels and probabilities as its own library does."""
    rows = breast_cancer()[0][:40]
    folder = write_breast_cancer(tmp_path / "v1", fmt, seed=3)
    runtime, entry = find_runtime(folder)
    assert (runtime.runs_code(folder, entry) is not None) == (fmt in TRUSTED_ONLY)
    atol = 1e-4 if fmt == "onnx" else 1e-6
    signature = check(folder, {"input": rows}, expected(fmt, 3, rows), atol=atol)
    if fmt == "python":
        assert signature.unvalidated
    else:
        assert {spec.name for spec in signature.outputs} == {"predict", "predict_proba"}
        assert signature.inputs[0].shape == (-1, 30)


def dump(model: Any, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    joblib.dump(model, folder / "model.joblib")
    return folder


def iris() -> tuple[Array, Array]:
    from sklearn import datasets

    loaded: Any = datasets.load_iris
    rows, labels = loaded(return_X_y=True)
    return rows, labels


def classifiers() -> dict[str, Any]:
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    small = {"n_estimators": 5, "random_state": 0}
    found = {
        "forest": RandomForestClassifier(n_jobs=2, **small),
        "extra": ExtraTreesClassifier(**small),
        "boosting": GradientBoostingClassifier(**small),
        "hist": HistGradientBoostingClassifier(max_iter=5),
        "tree": DecisionTreeClassifier(),
        "logistic": LogisticRegression(max_iter=500),
        "bayes": GaussianNB(),
        "neighbours": KNeighborsClassifier(),
        "mlp": MLPClassifier((4,), solver="lbfgs", max_iter=2000, random_state=0),
        "svc": SVC(),
        "search": GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}),
    }
    return {name: make_pipeline(StandardScaler(), model) for name, model in found.items()}


@pytest.mark.parametrize("labels", ["int", "str"])
@pytest.mark.parametrize("name", sorted(classifiers()))
def test_classifiers(name: str, labels: str, tmp_path: Path) -> None:
    """What is answered for both outputs at once is what the estimator's own methods answer."""
    rows, numbers = iris()
    targets = numbers if labels == "int" else np.array(["ant", "bee", "cat"])[numbers]
    model = classifiers()[name].fit(rows, targets)
    wanted = {"predict": model.predict(rows)}
    if labels == "str":
        wanted["predict"] = text(wanted["predict"])
    if name != "svc":
        wanted["predict_proba"] = model.predict_proba(rows)
    signature = check(dump(model, tmp_path), {"input": rows}, wanted)
    assert [spec.name for spec in signature.outputs] == list(wanted)
    assert signature.outputs[0].datatype == ("INT64" if labels == "int" else "BYTES")


def test_regressors(tmp_path: Path) -> None:
    """A regressor answers values, one or several a row; the outputs are learned by running it."""
    from sklearn.linear_model import LinearRegression

    rows, numbers = iris()
    for name, targets in (("one", numbers), ("two", np.stack([numbers, -numbers], axis=1))):
        model = LinearRegression().fit(rows, targets)
        signature = check(
            dump(model, tmp_path / name), {"input": rows}, {"predict": model.predict(rows)}
        )
        assert signature.outputs[0].shape == (-1, *targets.shape[1:])
        assert signature.learned


def test_several_targets(tmp_path: Path) -> None:
    """A classifier of several targets answers labels (n, targets) and chances (n, targets, classes)."""
    from sklearn.ensemble import RandomForestClassifier

    rows, numbers = iris()
    model = RandomForestClassifier(5, random_state=0).fit(rows, np.stack([numbers, numbers], 1))
    wanted = {
        "predict": model.predict(rows).astype(np.int64),
        "predict_proba": np.stack(model.predict_proba(rows), axis=1),
    }
    check(dump(model, tmp_path), {"input": rows}, wanted)


def table_model(impute: bool = True) -> tuple[Any, dict[str, Array], Any]:
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.DataFrame(
        {
            "age": [22.0, 35.5, 58.0, 41.0, 30.0, 66.0],
            "town": ["Ulm", "Rom", "Ulm", "Zürich", "Rom", "Zürich"],
            "floors": [1, 2, 1, 3, 2, 3],
        }
    )
    encoder: Any = OneHotEncoder(handle_unknown="ignore")
    names = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder) if impute else encoder
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["age"]),
            ("names", names, ["town"]),
            ("codes", OneHotEncoder(handle_unknown="ignore"), ["floors"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1, 0, 1, 1, 1])
    inputs = {
        "age": frame["age"].to_numpy(),
        "town": text(frame["town"]),
        "floors": frame["floors"].to_numpy(),
    }
    return model, inputs, frame


@pytest.mark.parametrize("fmt", ["joblib", "skops"])
def test_table(fmt: str, tmp_path: Path) -> None:
    """A pipeline fitted on a data frame takes columns by name, text among them."""
    import skops.io

    model, inputs, frame = table_model()
    if fmt == "joblib":
        dump(model, tmp_path)
    else:
        skops.io.dump(model, tmp_path / "model.skops")
    wanted = {"predict": model.predict(frame), "predict_proba": model.predict_proba(frame)}
    signature = check(tmp_path, inputs, wanted)
    assert signature.kind == "table"
    assert [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs] == [
        ("age", "FP64", (-1,)),
        ("town", "BYTES", (-1,)),
        ("floors", "INT64", (-1,)),
    ]


def test_documents(tmp_path: Path) -> None:
    """A vectorizer's pipeline takes one column of text."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    documents = ["good day", "bad night", "good night", "bad day"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(documents, [1, 0, 1, 0])
    signature = check(
        dump(model, tmp_path), {"input": text(documents)}, {"predict": model.predict(documents)}
    )
    assert (signature.inputs[0].datatype, signature.inputs[0].shape) == ("BYTES", (-1,))


@pytest.mark.parametrize(
    "objective",
    ["multi:softprob", "multi:softmax", "reg:squarederror", "gblinear", "early", "json"],
)
def test_xgboost(objective: str, tmp_path: Path) -> None:
    """Boosters answer as XGBoost's own scikit-learn classes do, cut at their best iteration."""
    import xgboost

    rows, numbers = iris()
    options: dict[str, Any] = {"n_estimators": 12, "max_depth": 3, "n_jobs": 1, "random_state": 0}
    if objective == "reg:squarederror":
        model: Any = xgboost.XGBRegressor(**options).fit(rows, numbers)
    elif objective == "early":
        model = xgboost.XGBClassifier(**{**options, "n_estimators": 60}, early_stopping_rounds=2)
        chance = np.random.default_rng(0)
        noise = chance.integers(0, 2, len(rows))
        model.fit(rows, noise, eval_set=[(rows[::-1], noise)], verbose=False)
        assert model.best_iteration < 59
    elif objective == "gblinear":
        model = xgboost.XGBClassifier(booster="gblinear", n_estimators=5, n_jobs=1)
        model.fit(rows, numbers)
    else:
        extra = {} if objective == "json" else {"objective": objective}
        model = xgboost.XGBClassifier(**options, **extra).fit(rows, numbers)
    model.save_model(tmp_path / ("model.json" if objective == "json" else "model.ubj"))
    wanted = {"predict": np.asarray(model.predict(rows))}
    if hasattr(model, "predict_proba"):
        wanted["predict_proba"] = model.predict_proba(rows)
    signature = check(tmp_path, {"input": rows}, wanted)
    assert [spec.name for spec in signature.outputs] == list(wanted)


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_lightgbm(kind: str, tmp_path: Path) -> None:
    """Boosters answer as LightGBM's own; real column names are told."""
    import lightgbm

    rows, numbers = iris()
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    settings: dict[str, Any] = {"objective": kind, "verbose": -1, "num_threads": 1}
    if kind == "multiclass":
        settings["num_class"] = 3
    data = lightgbm.Dataset(rows, numbers, feature_name=names)
    booster = lightgbm.train(settings, data, num_boost_round=5)
    booster.save_model(tmp_path / "model.txt")
    raw: Any = booster.predict(rows)
    wanted: dict[str, Array] = {"predict": raw}
    if kind == "multiclass":
        wanted = {"predict": raw.argmax(axis=1), "predict_proba": raw}
    signature = check(tmp_path, {"input": rows}, wanted)
    assert signature.feature_names == tuple(names)


@pytest.mark.parametrize("zipmap", [True, False])
def test_onnx_classifier_with_text_labels(zipmap: bool, tmp_path: Path) -> None:
    """Text labels are BYTES, and a ZipMap's dicts become one array."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows, numbers = iris()
    rows = rows.astype(np.float32)
    model = LogisticRegression(max_iter=500).fit(rows, np.array(["ant", "bee", "cat"])[numbers])
    proto = to_onnx(model, rows[:1], options=None if zipmap else {"zipmap": False})
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    wanted = {
        "predict": text(model.predict(rows)),
        "predict_proba": model.predict_proba(rows).astype(np.float32),
    }
    signature = check(tmp_path, {"X": rows}, wanted, atol=1e-4)
    assert signature.inputs[0].datatype == "FP32"


def test_onnx_regressor(tmp_path: Path) -> None:
    """A converted regressor answers ``predict`` with one value a row, as the original does."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    rows, numbers = iris()
    rows = rows.astype(np.float32)
    model = LinearRegression().fit(rows, numbers)
    (tmp_path / "regressor.onnx").write_bytes(to_onnx(model, rows[:1]).SerializeToString())
    wanted = {"predict": model.predict(rows).astype(np.float32)}
    signature = check(tmp_path, {"X": rows}, wanted, atol=1e-4)
    assert signature.outputs[0].shape == (-1,)


@pytest.mark.parametrize("batch", [1, 4])
def test_onnx_with_a_fixed_batch(batch: int, tmp_path: Path) -> None:
    """A graph that takes a fixed number of rows is run as often as it needs, filled up."""
    from onnx import helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [batch, 2])],
        [helper.make_tensor_value_info("y", 1, [batch, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    signature = check(tmp_path, {"x": rows}, {"y": rows * 2})
    assert signature.inputs[0].shape == (-1, 2)


def torch_module() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1)).eval()


@pytest.mark.parametrize("batch", ["open", "one", "four"])
def test_torch_export(batch: str, tmp_path: Path) -> None:
    """A torch.export program tells its signature; a fixed batch is filled up."""
    import torch

    module, rows = torch_module(), iris()[0][:11].astype(np.float32)
    example = torch.zeros(1 if batch == "one" else 4, 4)
    shapes = {0: torch.export.Dim("rows")} if batch == "open" else None
    if shapes is None:
        program = torch.export.export(module, (example,))
    else:
        program = torch.export.export(module, (example,), dynamic_shapes=(shapes,))
    torch.export.save(program, tmp_path / "model.pt2")
    with torch.inference_mode():
        wanted = {"output": module(torch.from_numpy(rows)).numpy()}
    signature = check(tmp_path, {"input": rows}, wanted)
    assert signature.inputs[0].shape == (-1, 4)
    assert signature.outputs[0].datatype == "FP32"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("told", [True, False])
def test_torchscript(told: bool, tmp_path: Path) -> None:
    """TorchScript takes its signature from the samples, or is left unvalidated."""
    import torch

    module, rows = torch_module(), iris()[0][:11]
    torch.jit.script(module).save(str(tmp_path / "model.pt"))
    with torch.inference_mode():
        wanted = {"output": module(torch.from_numpy(rows.astype(np.float32))).numpy()}
    samples = tmp_path / "samples.npy"
    np.save(samples, rows.astype(np.float32)[:2])
    settings = VersionSettings(samples="samples.npy" if told else None)
    given = rows.astype(np.float32) if told else rows
    signature = check(tmp_path, {"input": given}, wanted, settings=settings)
    assert signature.unvalidated is not told


def mlflow_folder(folder: Path, flavors: dict[str, Any], inputs: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    content = {
        "flavors": {**flavors, "python_function": {"loader_module": "mlflow.sklearn"}},
        "signature": {"inputs": json.dumps(inputs), "outputs": None},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.parametrize("fmt", ["pkl", "skops", "xgb-ubj", "lgbm-txt", "onnx"])
def test_mlflow_native_flavors(fmt: str, tmp_path: Path) -> None:
    """An MLflow folder is served by our own loader of its native flavour, with its trust rule."""
    rows = breast_cancer()[0][:20]
    file = {
        "pkl": ("sklearn", "pickled_model", "model.pkl"),
        "skops": ("sklearn", "pickled_model", "model.skops"),
        "xgb-ubj": ("xgboost", "data", "model.ubj"),
        "lgbm-txt": ("lightgbm", "data", "model.txt"),
        "onnx": ("onnx", "data", "model.onnx"),
    }[fmt]
    write_breast_cancer(tmp_path, fmt, seed=5)
    mlflow_folder(tmp_path, {file[0]: {file[1]: file[2]}}, [])
    runtime, entry = find_runtime(tmp_path)
    assert (runtime.name, entry) == ("mlflow", ".")
    assert (runtime.runs_code(tmp_path, entry) is not None) == (fmt == "pkl")
    check(tmp_path, {"input": rows}, expected(fmt, 5, rows), atol=1e-4)


def test_mlflow_signature_tells_column_types(tmp_path: Path) -> None:
    """Where the model's own columns are only numbers, MLmodel's types say which."""
    model, inputs, _ = table_model()
    dump(model, tmp_path)
    columns = [
        {"type": "float", "name": "age"},
        {"type": "string", "name": "town"},
        {"type": "long", "name": "floors"},
    ]
    mlflow_folder(tmp_path, {"sklearn": {"pickled_model": "model.joblib"}}, columns)
    signature = check(tmp_path, {**inputs, "age": inputs["age"].astype(np.float32)}, None)
    assert [spec.datatype for spec in signature.inputs] == ["FP32", "BYTES", "INT64"]


def test_python_model_with_named_outputs(tmp_path: Path) -> None:
    """A class of one's own may declare its signature, return a dict and import its neighbours."""
    (tmp_path / "neighbour_of_named_outputs.py").write_text("FACTOR = 3.0\n")
    (tmp_path / "model.py").write_text(
        "from neighbour_of_named_outputs import FACTOR\n"
        "class Model:\n"
        "    signature = {'inputs': [{'name': 'a', 'datatype': 'FP64', 'shape': [-1]},\n"
        "                            {'name': 't', 'datatype': 'BYTES', 'shape': [-1]}],\n"
        "                 'outputs': []}\n"
        "    def load(self, path):\n"
        "        self.closed = 0\n"
        "    def predict(self, X):\n"
        "        return {'scaled': X['a'] * FACTOR, 'shout': [t.upper() for t in X['t']]}\n"
        "    def close(self):\n"
        "        self.closed += 1\n"
        "        assert self.closed == 1\n"
    )
    inputs = {"a": np.array([1.0, 2.0]), "t": text(["x", "ü"])}
    signature = check(tmp_path, inputs, {"scaled": np.array([3.0, 6.0]), "shout": text(["X", "Ü"])})
    assert [spec.datatype for spec in signature.outputs] == ["FP64", "BYTES"]
    assert signature.learned


@pytest.mark.filterwarnings("ignore")
def test_mlflow_pyfunc(tmp_path: Path) -> None:
    """A trusted python_function is loaded by MLflow and given a data frame."""
    pytest.importorskip("mlflow.pyfunc")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "loader_of_a_test_pyfunc.py").write_text(
        "class Doubler:\n"
        "    def predict(self, frame):\n"
        "        return frame['a'].to_numpy() * 2\n"
        "def _load_pyfunc(path):\n"
        "    return Doubler()\n"
    )
    flavor = {"loader_module": "loader_of_a_test_pyfunc", "code": "code", "env": {}}
    content = {
        "flavors": {"python_function": flavor},
        "signature": {"inputs": json.dumps([{"type": "double", "name": "a"}]), "outputs": None},
    }
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(content))
    values = np.array([1.0, 2.5, -1.0])
    signature = check(tmp_path, {"a": values}, {"predict": values * 2})
    assert signature.kind == "table"
