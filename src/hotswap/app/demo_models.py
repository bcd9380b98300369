"""The demo's models: trained here and now, on data that comes with scikit-learn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import yaml

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


@dataclass(frozen=True)
class DemoVersion:
    """One trained version, written to ``folder``.

    ``expected`` is what it predicts for every held-out row, computed here from the artifact's
    own library: what the server must answer, to the digit.
    """

    version: str
    format: str
    changelog: str
    folder: Path
    expected: Array


@dataclass(frozen=True)
class DemoModel:
    """One model: its versions in order, and held-out rows ``[n, features]`` with their labels."""

    name: str
    task: Literal["classification", "regression"]
    rows: Array
    labels: Array
    versions: tuple[DemoVersion, ...]

    def version(self, name: str) -> DemoVersion | None:
        """The version of that name, or None."""
        return next((each for each in self.versions if each.version == name), None)


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
    return tuple(make(_Bench(folder, say)) for make in (_cancer, _digits, _diabetes))


class _Bench:
    """Where versions are written, and how each format is."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say

    def version(
        self,
        name: str,
        changelog: str,
        write: Callable[[Path], tuple[str, Array]],
    ) -> DemoVersion:
        """One version: ``name`` is ``model/version``; ``write`` returns format and predictions."""
        target = self.folder / name
        target.mkdir(parents=True)
        format, expected = write(target)
        (target / "version.yaml").write_text(yaml.safe_dump({"changelog": changelog}))
        self.say(f"{name:12} {format:22} {changelog}")
        return DemoVersion(target.name, format, changelog, target, expected)


def _split(loader: Any, *, stratify: bool) -> tuple[Array, Array, Array, Array]:
    """Half of the data to train on, half held out: the live traffic."""
    from sklearn.model_selection import train_test_split

    rows, labels = loader(return_X_y=True)
    parts = train_test_split(
        rows, labels, test_size=0.5, random_state=0, stratify=labels if stratify else None
    )
    train_rows, live_rows, train_labels, live_labels = (np.asarray(part) for part in parts)
    return train_rows, live_rows, train_labels, live_labels


def _skops(model: Any, rows: Array) -> Callable[[Path], tuple[str, Array]]:
    def write(target: Path) -> tuple[str, Array]:
        import skops.io

        skops.io.dump(model, target / "model.skops")
        return "scikit-learn (skops)", np.asarray(model.predict(rows))

    return write


def _onnx(model: Any, rows: Array) -> Callable[[Path], tuple[str, Array]]:
    def write(target: Path) -> tuple[str, Array]:
        import onnxruntime
        from skl2onnx import to_onnx

        sample = rows[:1].astype(np.float32)
        converted = to_onnx(model, sample, options={id(model): {"zipmap": False}})
        content = converted.SerializeToString()
        (target / "model.onnx").write_bytes(content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options)
        feed = {session.get_inputs()[0].name: rows.astype(np.float32)}
        return "ONNX", np.asarray(session.run(None, feed)[0])

    return write


def _cancer(bench: _Bench) -> DemoModel:
    import xgboost
    from sklearn.compose import ColumnTransformer
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, live, labels, truth = _split(load_breast_cancer, stratify=True)
    # Mean radius and mean texture: what one would look at first.
    two = ColumnTransformer([("two", StandardScaler(), [0, 1])])
    simple = make_pipeline(two, LogisticRegression())
    simple.fit(rows, labels)
    boosted = GradientBoostingClassifier(subsample=0.7, random_state=0).fit(rows, labels)
    extreme = xgboost.XGBClassifier(
        n_estimators=150,
        learning_rate=0.1,
        max_depth=3,
        subsample=0.7,
        colsample_bytree=0.5,
        random_state=0,
        n_jobs=1,
    ).fit(rows, labels)

    def write_xgboost(target: Path) -> tuple[str, Array]:
        extreme.save_model(target / "model.ubj")
        return "XGBoost (ubj)", np.asarray(extreme.predict(live))

    versions = (
        bench.version(
            "cancer/v1", "Logistic regression on radius and texture.", _skops(simple, live)
        ),
        bench.version("cancer/v2", "Gradient boosting on all 30 columns.", _onnx(boosted, live)),
        bench.version("cancer/v3", "XGBoost: 150 small trees, column sampling.", write_xgboost),
    )
    return DemoModel("cancer", "classification", live, truth, versions)


def _digits(bench: _Bench) -> DemoModel:
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, live, labels, truth = _split(load_digits, stratify=True)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(rows, labels)
    forest = RandomForestClassifier(60, random_state=0).fit(rows, labels)
    versions = (
        bench.version("digits/v1", "Logistic regression on the pixels.", _skops(linear, live)),
        bench.version("digits/v2", "A forest of 60 trees.", _onnx(forest, live)),
    )
    return DemoModel("digits", "classification", live, truth, versions)


def _diabetes(bench: _Bench) -> DemoModel:
    import lightgbm
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge

    rows, live, labels, truth = _split(load_diabetes, stratify=False)
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
        bench.version("diabetes/v1", "Ridge regression.", _skops(line, live)),
        bench.version("diabetes/v2", "LightGBM: 80 small trees.", write_lightgbm),
    )
    return DemoModel("diabetes", "regression", live, truth, versions)
