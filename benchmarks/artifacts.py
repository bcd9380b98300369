"""The models that are served and the bodies that are sent: the same work for every server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.paths import MODELS

#: Two rows of the breast-cancer data, and the labels any right answer has for them.
CHECK_ROWS = (0, 19)

SLOW_MODEL = '''"""A model whose load takes a while: processor time, as unpacking and building trees does."""

import time

import numpy as np


class Model:
    def load(self, path):
        until = time.thread_time() + {seconds}
        total = 0
        while time.thread_time() < until:
            total += sum(range(1000))

    def predict(self, X):
        return (np.asarray(X)[:, 0] > 15.0).astype(np.int64)
'''


def bodies(rows: list[list[float]]) -> dict[str, Any]:
    """One request of each protocol for ``rows``; the values are what `json.dumps` takes."""
    flat = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])]
    return {
        "v2": {
            "inputs": [{"name": "x", "shape": shape, "datatype": "FP64", "data": flat}],
            "outputs": [{"name": "predict"}],
        },
        "v2_fp32": {
            "inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": flat}],
            "outputs": [{"name": "predict"}],
        },
        "v2_both": {
            "inputs": [{"name": "x", "shape": shape, "datatype": "FP64", "data": flat}],
            "outputs": [{"name": "predict"}, {"name": "predict_proba"}],
        },
        "mlserver": {
            "inputs": [{"name": "predict", "shape": shape, "datatype": "FP64", "data": flat}]
        },
        "features": {"features": rows[0] if len(rows) == 1 else rows},
        "bento": {"features": rows},
        "mlflow_tensor": {"inputs": rows},
        "mlflow": {"dataframe_split": {"columns": list(range(shape[1])), "data": rows}},
    }


def data() -> tuple[Any, Any]:
    """The breast-cancer data: X float64 [569, 30] and y int64 [569]."""
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    return X, y


def train() -> None:
    """Train the pipelines once and write them as joblib, skops and ONNX into the cache."""
    X, y = data()
    for row in CHECK_ROWS:
        for protocol, body in bodies([X[row].tolist()]).items():
            (MODELS / f"{protocol}-{row}.json").write_text(json.dumps(body))
    (MODELS / "labels.json").write_text(json.dumps({str(r): int(y[r]) for r in CHECK_ROWS}))
    if (MODELS / "done").exists():
        return
    import joblib
    import skops.io
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for name, strength in (("lr", 1.0), ("lr2", 0.5)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        model.fit(X, y)
        joblib.dump(model, MODELS / f"{name}.joblib")
        skops.io.dump(model, MODELS / f"{name}.skops")
        converted = to_onnx(model, X[:1].astype("float32"), options={id(model): {"zipmap": False}})
        (MODELS / f"{name}.onnx").write_bytes(converted.SerializeToString())
    (MODELS / "done").touch()


def body(protocol: str, row: int = CHECK_ROWS[0]) -> bytes:
    """The request of ``protocol`` for one of the `CHECK_ROWS`."""
    return (MODELS / f"{protocol}-{row}.json").read_bytes()


def labels() -> dict[int, int]:
    """The right label of each of the `CHECK_ROWS`."""
    return {int(k): v for k, v in json.loads((MODELS / "labels.json").read_text()).items()}


def folder(path: Path, versions: dict[str, dict[str, str]]) -> Path:
    """A models folder: ``versions[model][version]`` names an artifact of the cache."""
    shutil.rmtree(path, ignore_errors=True)
    for model, artifacts in versions.items():
        for version, artifact in artifacts.items():
            source = MODELS / artifact
            target = path / model / version / f"model{source.suffix}"
            target.parent.mkdir(parents=True)
            shutil.copyfile(source, target)
    return path


#: For a `model.py`, of which nothing else tells what it takes.
SIGNATURE = """signature:
  inputs: [{name: x, datatype: FP64, shape: [-1, 30]}]
  outputs: [{name: predict, datatype: INT64, shape: [-1]}]
"""


def slow_version(path: Path, seconds: float) -> None:
    """A version folder at ``path`` whose load takes ``seconds`` of one core."""
    path.mkdir(parents=True)
    (path / "model.py").write_text(SLOW_MODEL.replace("{seconds}", str(seconds)))
    (path / "version.yaml").write_text(SIGNATURE)


def big_onnx(path: Path, megabytes: int, seed: int) -> None:
    """An ONNX classifier whose weights fill ``megabytes``, with the input of the small one.

    It looks one row of a large table up and adds it, so that a prediction stays cheap.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rows = megabytes * 1024 * 1024 // (30 * 4)
    table = np.random.default_rng(seed).random((rows, 30), dtype=np.float32)
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["total"], keepdims=0),
        helper.make_node("Abs", ["total"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Mod", ["whole", "rows"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["moved"]),
        helper.make_node("ReduceMean", ["moved", "axis"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "limit"], ["above"]),
        helper.make_node("Cast", ["above"], ["label"], to=TensorProto.INT64),
    ]
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 30])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, [None])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([1]), "axis"),
            numpy_helper.from_array(np.array(rows), "rows"),
            numpy_helper.from_array(np.array(60.0, dtype=np.float32), "limit"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
