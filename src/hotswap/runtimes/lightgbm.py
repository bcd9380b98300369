"""LightGBM boosters from LightGBM's own text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError
from hotswap.ports import Array
from hotswap.runtimes import boosting
from hotswap.runtimes.entries import pick
from hotswap.runtimes.packages import require, unthreaded
from hotswap.runtimes.signatures import INPUT, agreed


class LightgbmRuntime:
    """Loads ``.txt``. Classifiers answer labels and probabilities."""

    name = "lightgbm"
    platform = "lightgbm"
    extra = "lightgbm"
    files = ("model.txt",)

    def entry(self, folder: Path) -> str | None:
        """``model.txt``, or the only other text file that begins like a model."""
        return pick(folder, (".txt",), lambda start: start.startswith(b"tree"))

    def runs_code(self, folder: Path, entry: str) -> str | None:
        """Trees and numbers only."""
        return None

    @unthreaded()
    def preload(self) -> None:
        """Import lightgbm."""
        require("lightgbm", "lightgbm", self.extra)

    def load(self, artifact: Artifact, settings: VersionSettings) -> LightgbmExecutor:
        """Read the booster; it uses ``settings.threads`` threads."""
        path = Path(artifact.folder) / artifact.entry
        text = _read(path)
        library = require("lightgbm", "lightgbm", self.extra)
        try:
            booster = library.Booster(model_str=text)
        except Exception as error:
            raise LoadError(f"lightgbm cannot load {path.name}: {error}") from error
        executor = LightgbmExecutor(booster, _objective(text), settings.threads)
        agreed(executor.signature, settings)
        return executor


class LightgbmExecutor:
    """One booster; the file holds the iterations up to the best one."""

    def __init__(self, booster: Any, objective: str, threads: int) -> None:
        self._booster = booster
        self._threads = threads
        self._width = int(booster.num_feature())
        self._task = _task(objective)
        self.signature = boosting.signature(
            self._task,
            self._width,
            int(booster.num_model_per_iteration()),
            booster.feature_name(),
        )

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """One prediction for all rows; NaN is a missing value."""
        rows = boosting.rows_of(inputs[INPUT], self._width)
        raw = self._booster.predict(rows, num_threads=self._threads)
        return boosting.answers(self._task, raw, self.signature, outputs)

    def close(self) -> None:
        """The booster goes with its last reference."""


def _task(objective: str) -> boosting.Task:
    if objective == "binary":
        return "binary"
    return "multiclass" if objective in ("multiclass", "multiclassova") else "value"


def _objective(text: str) -> str:
    start = text[: text.find("\nTree=0")]
    line = next((line for line in start.split("\n") if line.startswith("objective=")), "=")
    return (line.partition("=")[2].split() or [""])[0]


def _read(path: Path) -> str:
    """The model's text. Raises `LoadError` if it is not one, or ends early."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise LoadError(f"{path.name} is not a LightGBM text model") from None
    if not text.startswith("tree"):
        raise LoadError(f"{path.name} is not a LightGBM text model: it does not begin with 'tree'")
    for end in ("end of trees", "end of parameters"):  # without them the library crashes
        if f"\n{end}" not in text:
            raise LoadError(f"{path.name} is cut short: {end!r} is missing")
    return text
