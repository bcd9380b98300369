"""The demo's models: trained here and now, on data that comes with scikit-learn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from hotswap.app.demo_bench import Bench, DemoModel, onnx, skops, split
from hotswap.app.demo_cancer import cancer
from hotswap.errors import MissingDependency
from hotswap.ports import Array

#: What the demo imports, and the extra that installs it.
NEEDED: Final = {
    "sklearn": "sklearn",
    "skops": "sklearn",
    "onnxruntime": "onnx",
    "skl2onnx": "convert",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
}


def require_libraries() -> None:
    """Raise MissingDependency, naming the pip command, unless all that the demo uses is here."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(dict.fromkeys(NEEDED.values()))
        raise MissingDependency(
            f"the demo needs {', '.join(missing)}: install it with: pip install 'hotswap[{extras}]'"
        )


def train(folder: Path, say: Callable[[str], None]) -> tuple[DemoModel, ...]:
    """Train every version into ``folder/<model>/<version>/``; ``say`` is told of each."""
    require_libraries()
    return tuple(make(Bench(folder, say)) for make in (cancer, _digits, _diabetes))


def _digits(bench: Bench) -> DemoModel:
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, live, labels, truth = split(load_digits, stratify=True)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(rows, labels)
    forest = RandomForestClassifier(60, random_state=0).fit(rows, labels)
    versions = (
        bench.version("digits/v1", "Logistic regression on the pixels.", skops(linear, live)),
        bench.version("digits/v2", "A forest of 60 trees.", onnx(forest, live)),
    )
    return DemoModel("digits", "classification", live, truth, versions)


def _diabetes(bench: Bench) -> DemoModel:
    import lightgbm
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge

    rows, live, labels, truth = split(load_diabetes, stratify=False)
    line = Ridge().fit(rows, labels)
    parameters = {
        "objective": "regression",
        "learning_rate": 0.05,
        "num_leaves": 6,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "feature_fraction": 0.5,
        "min_data_in_leaf": 15,
        "num_threads": 1,
        "seed": 0,
        "verbose": -1,
    }
    boosted = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), num_boost_round=80)

    def write_lightgbm(target: Path) -> tuple[str, Array]:
        boosted.save_model(target / "model.txt")
        again = lightgbm.Booster(model_file=str(target / "model.txt"))
        return "LightGBM (txt)", np.asarray(again.predict(live))

    versions = (
        bench.version("diabetes/v1", "Ridge regression.", skops(line, live)),
        bench.version("diabetes/v2", "LightGBM: 80 small trees.", write_lightgbm),
    )
    return DemoModel("diabetes", "regression", live, truth, versions)
