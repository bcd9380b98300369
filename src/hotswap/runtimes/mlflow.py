"""MLflow's model folders: the native flavour by our own loaders, a pyfunc only when trusted."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from hotswap.core.datatypes import datatype_of
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError
from hotswap.ports import Array, Executor, Runtime
from hotswap.runtimes.frames import decoded, frame, wanted
from hotswap.runtimes.mlflow_file import FILE, read
from hotswap.runtimes.packages import require, unthreaded
from hotswap.runtimes.samples import as_bytes, generated_samples, load_samples
from hotswap.runtimes.signatures import INPUT, untold
from hotswap.runtimes.trust import sentence

_DELEGATES: Final = {
    "sklearn": ("hotswap.runtimes.sklearn", "SklearnRuntime"),
    "xgboost": ("hotswap.runtimes.xgboost", "XgboostRuntime"),
    "lightgbm": ("hotswap.runtimes.lightgbm", "LightgbmRuntime"),
    "onnx": ("hotswap.runtimes.onnx", "OnnxRuntime"),
    "torch": ("hotswap.runtimes.torch", "TorchRuntime"),
}


class MlflowRuntime:
    """Reads ``MLmodel`` and hands its native model to the runtime of that kind.

    MLflow itself is needed only for a pyfunc, which is code and needs trust.
    """

    name = "mlflow"
    platform = "mlflow"
    extra = "mlflow"
    files = (FILE,)

    def entry(self, folder: Path) -> str | None:
        """The folder itself, if it has an ``MLmodel``."""
        return "." if (folder / FILE).is_file() else None

    def runs_code(self, folder: Path, entry: str) -> str | None:
        """As the native model's own runtime says; a pyfunc always can."""
        native = read(folder)
        if not native.runtime:
            return sentence("This MLflow model is a python_function alone, which")
        return _delegate(native.runtime).runs_code(folder, native.entry)

    @unthreaded()
    def preload(self) -> None:
        """Import pandas; what the native model needs is imported by its own runtime."""
        require("pandas", "pandas", self.extra)

    def load(self, artifact: Artifact, settings: VersionSettings) -> Executor:
        """Load the native model; ``MLmodel``'s signature tells what the model itself does not."""
        folder = Path(artifact.folder)
        native = read(folder)
        told = settings.signature or native.signature
        settings = msgspec.structs.replace(settings, signature=told)
        if not native.runtime:
            return PyfuncExecutor(_pyfunc(folder), folder, settings)
        runtime = _delegate(native.runtime)
        if native.code is not None and runtime.runs_code(folder, native.entry) is not None:
            sys.path.insert(0, str(folder / native.code))
        inner = msgspec.structs.replace(artifact, entry=native.entry, runtime=native.runtime)
        executor = runtime.load(inner, settings)
        if told is not None:
            executor.signature = _refined(executor.signature, told)
        return executor


class PyfuncExecutor:
    """One pyfunc. Output ``predict``, or one a column or key if it returns a frame or a dict."""

    signature: Signature

    def __init__(self, model: Any, folder: Path, settings: VersionSettings) -> None:
        self._model = model
        self.signature = untold(folder, settings)
        rows = load_samples(folder, settings, self.signature)
        if rows is None:
            rows = generated_samples(self.signature, 2)
        if rows is None or self.signature.outputs:
            return
        try:
            answers = self._answers(rows)
        except Exception:
            if settings.samples is not None:
                raise
            return  # made-up rows need not suit the model: validation will tell
        outputs = tuple(
            TensorSpec(name, datatype_of(array.dtype), (-1, *array.shape[1:]))
            for name, array in answers.items()
        )
        self.signature = msgspec.structs.replace(self.signature, outputs=outputs, learned=True)

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """One call of the pyfunc's ``predict``."""
        answers = self._answers(inputs)
        if self.signature.outputs:
            return {spec.name: answers[spec.name] for spec in wanted(self.signature, outputs)}
        return {name: answers[name] for name in outputs or answers}

    def close(self) -> None:
        """Nothing is held beyond memory."""

    def _answers(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        specs = self.signature.inputs
        rows: Any
        if self.signature.kind == "table":
            rows = frame(self.signature, inputs)
        elif len(specs) > 1:
            rows = {spec.name: decoded(inputs[spec.name]) for spec in specs}
        else:
            rows = decoded(inputs[specs[0].name if specs else INPUT])
        values = self._model.predict(rows)
        if hasattr(values, "columns"):
            values = {str(name): values[name].to_numpy() for name in values.columns}
        named = dict(values) if isinstance(values, Mapping) else {"predict": values}
        return {name: _array(value) for name, value in named.items()}


def _delegate(name: str) -> Runtime:
    module, attribute = _DELEGATES[name]
    runtime: Runtime = getattr(importlib.import_module(module), attribute)()
    return runtime


def _pyfunc(folder: Path) -> Any:
    pyfunc = require("mlflow.pyfunc", "mlflow", "mlflow")
    try:
        return pyfunc.load_model(str(folder))
    except Exception as error:
        reason = str(error).replace(str(folder), ".").partition("\n")[0]
        raise LoadError(f"mlflow cannot load this model: {reason}") from error


def _refined(own: Signature, told: Signature) -> Signature:
    """The model's own signature, with the datatypes of columns that ``MLmodel`` names alike."""
    if own.kind != "table" or told.kind != "table":
        return own
    known = {spec.name: spec for spec in told.inputs}
    inputs = tuple(known.get(spec.name, spec) for spec in own.inputs)
    return msgspec.structs.replace(own, inputs=inputs)


def _array(values: Any) -> Array:
    array = np.asarray(values)
    return as_bytes(array) if array.dtype.kind in "OUS" else array
