"""Small real models for tests: functions that write version folders.

Training happens once a process and format; the bytes are kept and written wherever a test
asks for them.
"""

from __future__ import annotations

import io
import json
import pickle
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from hotswap.ports import Array

FORMATS: Final = ("joblib", "pkl", "skops", "onnx", "xgb-ubj", "lgbm-txt", "python")
"""Every format that `write_breast_cancer` knows."""

TRUSTED_ONLY: Final = frozenset({"joblib", "pkl", "python"})
"""Those of `FORMATS` whose loading runs code, and so needs the operator's trust."""

FILE_OF: Final = {
    "joblib": "model.joblib",
    "pkl": "model.pkl",
    "skops": "model.skops",
    "onnx": "model.onnx",
    "xgb-ubj": "model.ubj",
    "lgbm-txt": "model.txt",
    "python": "model.py",
}

_PYTHON_MODEL: Final = '''"""Logistic regression on standardised columns, in numpy alone."""

import json
from pathlib import Path

import numpy as np


class Model:
    def load(self, path):
        weights = json.loads((Path(path) / "weights.json").read_text())
        self.mean, self.scale, self.coef = (
            np.asarray(weights[key]) for key in ("mean", "scale", "coef")
        )
        self.intercept = weights["intercept"]

    def predict_proba(self, X):
        z = ((np.asarray(X) - self.mean) / self.scale) @ self.coef + self.intercept
        p = 1.0 / (1.0 + np.exp(-z))
        return np.column_stack([1.0 - p, p])

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1).astype(np.int64)
'''


@cache
def breast_cancer() -> tuple[Array, Array]:
    """scikit-learn's breast-cancer data: rows ``(569, 30)`` FP64, labels ``(569,)`` INT64."""
    from sklearn.datasets import load_breast_cancer

    loader: Any = load_breast_cancer
    rows, labels = loader(return_X_y=True)
    return np.asarray(rows, np.float64), np.asarray(labels, np.int64)


@cache
def pipeline(seed: int = 0) -> Any:
    """StandardScaler + LogisticRegression, trained on a half of the rows that ``seed`` draws.

    Two seeds give two models whose probabilities differ on every row.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = _half(seed)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, labels)


def expected(fmt: str, seed: int, rows: Array) -> dict[str, Array]:
    """What `write_breast_cancer`'s model of that format and seed answers, by its own library.

    Keys ``predict`` (INT64, ``(n,)``) and ``predict_proba`` (``(n, 2)``). The ONNX model's
    are scikit-learn's: equal to it within 1e-4.
    """
    if fmt == "xgb-ubj":
        import xgboost

        chance = _xgboost(seed).predict(xgboost.DMatrix(rows))
    elif fmt == "lgbm-txt":
        chance = _lightgbm(seed).predict(rows)
    else:
        model = pipeline(seed)
        return {"predict": model.predict(rows), "predict_proba": model.predict_proba(rows)}
    return {
        "predict": (chance > 0.5).astype(np.int64),
        "predict_proba": np.column_stack([1 - chance, chance]),
    }


def write_breast_cancer(folder: Path, fmt: str = "joblib", seed: int = 0) -> Path:
    """Write a trained model (30 FP64 columns, labels 0 and 1) into ``folder``; returns it.

    ``fmt`` is one of `FORMATS`. The folder is made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files(fmt, seed).items():
        (folder / name).write_bytes(content)
    return folder


@cache
def _files(fmt: str, seed: int) -> dict[str, bytes]:
    name = FILE_OF[fmt]
    if fmt == "python":
        return {name: _PYTHON_MODEL.encode(), "weights.json": _weights(seed)}
    writers: dict[str, Callable[[int], bytes]] = {
        "joblib": _joblib,
        "pkl": lambda seed: pickle.dumps(pipeline(seed)),
        "skops": _skops,
        "onnx": _onnx,
        "xgb-ubj": lambda seed: bytes(_xgboost(seed).save_raw("ubj")),
        "lgbm-txt": lambda seed: _lightgbm(seed).model_to_string().encode(),
    }
    return {name: writers[fmt](seed)}


def _half(seed: int) -> tuple[Array, Array]:
    rows, labels = breast_cancer()
    chosen = np.random.default_rng(seed).permutation(len(rows))[: len(rows) // 2]
    return rows[chosen], labels[chosen]


def _joblib(seed: int) -> bytes:
    import joblib

    out = io.BytesIO()
    joblib.dump(pipeline(seed), out)
    return out.getvalue()


def _skops(seed: int) -> bytes:
    import skops.io

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skops"
        skops.io.dump(pipeline(seed), path)
        return path.read_bytes()


def _onnx(seed: int) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    proto = convert_sklearn(
        pipeline(seed),
        initial_types=[("input", FloatTensorType([None, 30]))],
        options={"zipmap": False},
        target_opset=17,
    )
    return bytes(proto.SerializeToString())


@cache
def _xgboost(seed: int) -> Any:
    import xgboost

    rows, labels = _half(seed)
    settings = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, "seed": seed}
    return xgboost.train(settings, xgboost.DMatrix(rows, labels), num_boost_round=10)


@cache
def _lightgbm(seed: int) -> Any:
    import lightgbm

    rows, labels = _half(seed)
    settings = {"objective": "binary", "num_leaves": 7, "num_threads": 1, "verbose": -1}
    return lightgbm.train({**settings, "seed": seed}, lightgbm.Dataset(rows, labels), 10)


def _weights(seed: int) -> bytes:
    model = pipeline(seed)
    scaler, last = model[0], model[-1]
    return json.dumps(
        {
            "mean": scaler.mean_.tolist(),
            "scale": scaler.scale_.tolist(),
            "coef": last.coef_[0].tolist(),
            "intercept": float(last.intercept_[0]),
        }
    ).encode()
