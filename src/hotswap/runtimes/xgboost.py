"""XGBoost boosters from XGBoost's own files, JSON or UBJSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError
from hotswap.ports import Array
from hotswap.runtimes import boosting, ubjson_file
from hotswap.runtimes.entries import head, pick
from hotswap.runtimes.packages import require, unthreaded
from hotswap.runtimes.signatures import INPUT, agreed


class XgboostRuntime:
    """Loads ``.ubj`` and ``.json``. Classifiers answer labels and probabilities."""

    name = "xgboost"
    platform = "xgboost"
    extra = "xgboost"
    files = ("model.ubj", "model.json")

    def entry(self, folder: Path) -> str | None:
        """``model.ubj``, ``model.json``, or the only other file that looks like one."""
        return pick(folder, (".ubj", ".json"), _looks_right)

    def runs_code(self, folder: Path, entry: str) -> str | None:
        """Trees and numbers only."""
        return None

    @unthreaded()
    def preload(self) -> None:
        """Import xgboost."""
        require("xgboost", "xgboost", self.extra)

    def load(self, artifact: Artifact, settings: VersionSettings) -> XgboostExecutor:
        """Read the booster; it uses ``settings.threads`` threads, on the CPU."""
        path = Path(artifact.folder) / artifact.entry
        _check(path)
        library = require("xgboost", "xgboost", self.extra)
        booster = library.Booster({"nthread": settings.threads, "device": "cpu"})
        try:
            booster.load_model(str(path))
        except Exception as error:
            reason = str(error).strip().partition("\n")[0].replace(artifact.folder, ".")
            raise LoadError(f"xgboost cannot load {path.name}: {reason}") from error
        booster.set_param({"nthread": settings.threads, "device": "cpu"})
        executor = XgboostExecutor(booster, library)
        agreed(executor.signature, settings)
        return executor


class XgboostExecutor:
    """One booster, cut at its best iteration where training stopped early."""

    def __init__(self, booster: Any, library: Any) -> None:
        learner = json.loads(booster.save_config())["learner"]
        objective = learner["learner_train_param"]["objective"]
        shape = learner["learner_model_param"]
        classes = max(int(shape["num_class"]), int(shape.get("num_target", 1)))
        best = booster.attr("best_iteration")
        self._range = (0, int(best) + 1) if best is not None else (0, 0)
        self._linear = learner["learner_train_param"]["booster"] == "gblinear"
        # softmax answers only the label: the scores give labels and probabilities alike.
        self._margin = objective == "multi:softmax"
        self._task = _task(objective)
        self._booster, self._library = booster, library
        self._width = int(booster.num_features())
        self.signature = boosting.signature(
            self._task, self._width, classes, booster.feature_names or ()
        )

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """One in-place prediction for all rows; NaN is a missing value."""
        rows = boosting.rows_of(inputs[INPUT], self._width)
        if self._linear:  # in-place prediction knows trees only
            matrix = self._library.DMatrix(rows, feature_names=self._booster.feature_names)
            raw = self._booster.predict(matrix, output_margin=self._margin)
        else:
            raw = self._booster.inplace_predict(
                rows,
                iteration_range=self._range,
                predict_type="margin" if self._margin else "value",
                validate_features=False,
            )
        if self._margin:
            raw = np.exp(raw - raw.max(axis=1, keepdims=True))
            raw /= raw.sum(axis=1, keepdims=True)
        return boosting.answers(self._task, raw, self.signature, outputs)

    def close(self) -> None:
        """The booster goes with its last reference."""


def _task(objective: str) -> boosting.Task:
    if objective == "binary:logistic":
        return "binary"
    return "multiclass" if objective in ("multi:softprob", "multi:softmax") else "value"


def _looks_right(start: bytes) -> bool:
    return start.lstrip()[:1] == b"{" and b"learner" in start


def _check(path: Path) -> None:
    """Refuse what is not in the format that its suffix says, and what ends early."""
    start = head(path)
    if start.lstrip()[:1] != b"{":
        raise LoadError(f"{path.name} is not an XGBoost model in {path.suffix[1:].upper()}")
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise LoadError(f"{path.name} is not whole JSON: {error}") from None
        if not isinstance(content, dict) or "learner" not in content:
            raise LoadError(f"{path.name} is not an XGBoost model: it has no 'learner'")
        return
    if b"learner" not in start:
        raise LoadError(f"{path.name} is not an XGBoost model: it has no 'learner'")
    try:
        ubjson_file.check(path)
    except ubjson_file.Malformed as error:
        raise LoadError(f"{path.name} is not whole UBJSON: {error}") from None
