"""scikit-learn, and whatever follows its conventions: skops, joblib and pickle files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError
from hotswap.ports import Array
from hotswap.runtimes.entries import pick
from hotswap.runtimes.frames import as_output, decoded, frame, wanted
from hotswap.runtimes.packages import require, unthreaded
from hotswap.runtimes.samples import generated_samples, load_samples
from hotswap.runtimes.signatures import INPUT, agreed, untold
from hotswap.runtimes.sklearn_plain import plain
from hotswap.runtimes.sklearn_signature import inputs_of, label_datatype, outputs_of
from hotswap.runtimes.sklearn_steps import Steps, run_alone
from hotswap.runtimes.threads import ThreadLimit
from hotswap.runtimes.trust import sentence


class SklearnRuntime:
    """Loads fitted estimators. The file's name says the format, and there is no second attempt."""

    name = "sklearn"
    platform = "sklearn"
    extra = "sklearn"
    files = ("model.skops", "model.joblib", "model.pkl")

    def entry(self, folder: Path) -> str | None:
        """A skops file before a joblib or pickle one."""
        return pick(folder, (".skops", ".joblib", ".pkl"))

    def runs_code(self, folder: Path, entry: str) -> str | None:
        """Unpickling runs code; reading skops does not."""
        if entry.endswith(".skops"):
            return None
        kind = "joblib file" if entry.endswith(".joblib") else "pickle"
        return sentence(f"{entry} is a {kind}, which")

    @unthreaded()
    def preload(self) -> None:
        """Import scikit-learn, skops and pandas."""
        require("sklearn.pipeline", "scikit-learn", self.extra)
        for module in (
            "sklearn.compose",
            "sklearn.ensemble",
            "sklearn.linear_model",
            "sklearn.preprocessing",
        ):
            require(module, "scikit-learn", self.extra)
        require("joblib", "joblib", self.extra)
        require("skops.io", "skops", self.extra)
        require("pandas", "pandas", self.extra)

    def load(self, artifact: Artifact, settings: VersionSettings) -> SklearnExecutor:
        """Read the file and take the fitted model apart for serving."""
        folder = Path(artifact.folder)
        require("sklearn", "scikit-learn", self.extra)
        model = read_model(folder / artifact.entry)
        return SklearnExecutor(model, folder, settings)


def read_model(path: Path) -> Any:
    """The fitted model in a file, by its suffix alone. Pickles must have been trusted before."""
    if path.suffix == ".skops":
        from hotswap.runtimes.skops_files import load_skops

        model = load_skops(path)
    else:
        from hotswap.runtimes.pickles import load_pickle

        model = load_pickle(path)
    if not callable(getattr(model, "predict", None)):
        raise LoadError(
            f"{path.name} holds a {type(model).__name__}, which has no method 'predict'; save a "
            "fitted estimator or pipeline"
        )
    return model


class SklearnExecutor:
    """One fitted model. Outputs ``predict`` and, where the model has it, ``predict_proba``."""

    signature: Signature

    def __init__(self, model: Any, folder: Path, settings: VersionSettings) -> None:
        run_alone(model)
        self._limit = ThreadLimit(settings.threads)
        self._limit()
        self._model = model
        self._steps = Steps(model)
        self._plain = plain(self._steps)
        told = inputs_of(model)
        self.signature = told if told is not None else untold(folder, settings)
        outputs = outputs_of(model)
        self.signature = msgspec.structs.replace(self.signature, outputs=outputs)
        if not outputs:
            self._learn(folder, settings)
        if told is not None:
            agreed(self.signature, settings)

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Rows in, labels (or values) and probabilities out; only what is asked for is run."""
        self._limit()
        rows = self._rows(inputs)
        specs = wanted(self.signature, outputs)
        if not specs:
            return {spec.name: values for spec, values in self._all(rows)}
        names = [spec.name for spec in specs]
        answers = self._answers(rows, names)
        return {spec.name: _shaped(answers[spec.name], spec) for spec in specs}

    def close(self) -> None:
        """Nothing is held beyond memory."""

    def _answers(self, rows: Any, names: Sequence[str]) -> dict[str, Any]:
        pair = self._plain.both(rows) if self._plain is not None else None
        if pair is None and len(names) == 2:
            pair = self._steps.both(rows)
        if pair is not None:
            return {"predict": pair[0], "predict_proba": pair[1]}
        return {name: getattr(self._model, name)(rows) for name in names}

    def _rows(self, inputs: Mapping[str, Array]) -> Any:
        if self.signature.kind == "table":
            return frame(self.signature, inputs)
        specs = self.signature.inputs
        rows = inputs[specs[0].name if specs else INPUT]
        return decoded(rows) if rows.dtype.kind == "O" else rows

    def _learn(self, folder: Path, settings: VersionSettings) -> None:
        """Learn the outputs by running it on samples, or on made-up rows, if it takes them."""
        rows = load_samples(folder, settings, self.signature)
        if rows is None:
            rows = generated_samples(self.signature, 2)
        if rows is None:
            return
        try:
            answers = self._all(self._rows(rows))
        except Exception:
            if settings.samples is not None:
                raise
            return  # made-up rows need not suit the model: validation will tell
        self.signature = msgspec.structs.replace(
            self.signature, outputs=tuple(spec for spec, _ in answers), learned=True
        )

    def _all(self, rows: Any) -> list[tuple[TensorSpec, Array]]:
        """Every output with the spec that its values show."""
        answers: list[tuple[TensorSpec, Array]] = []
        for name in ("predict", "predict_proba"):
            if not hasattr(self._model, name):
                continue
            values = _stacked(getattr(self._model, name)(rows))
            if values is None:
                continue
            spec = TensorSpec(name, label_datatype(values.dtype), (-1, *values.shape[1:]))
            answers.append((spec, as_output(values, spec)))
        return answers


def _stacked(values: Any) -> Array | None:
    """One array; a list of one array a target is stacked to (rows, targets, classes) if it can."""
    if isinstance(values, list) and values and isinstance(values[0], np.ndarray):
        if len({part.shape for part in values}) != 1:
            return None
        return np.stack(values, axis=1)
    return np.asarray(values)


def _shaped(values: Any, spec: TensorSpec) -> Array:
    stacked = _stacked(values)
    return as_output(values if stacked is None else stacked, spec)
