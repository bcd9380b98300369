"""A user's own class: ``model.py`` with ``Model``, its ``load(path)`` and ``predict(X)``."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from hotswap.core.signature import Signature
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError
from hotswap.ports import Array
from hotswap.runtimes.frames import as_output, decoded, frame
from hotswap.runtimes.packages import missing
from hotswap.runtimes.samples import as_bytes, generated_samples, load_samples
from hotswap.runtimes.signatures import INPUT, spec_of, untold
from hotswap.runtimes.threads import ThreadLimit
from hotswap.runtimes.trust import sentence


class PythonRuntime:
    """Runs ``model.py`` of the version's folder, with the folder on the module path."""

    name = "python"
    platform = "python"
    extra = "all"
    files = ("model.py",)

    def entry(self, folder: Path) -> str | None:
        """``model.py``, and no other name."""
        return "model.py" if (folder / "model.py").is_file() else None

    def runs_code(self, folder: Path, entry: str) -> str | None:
        """It is code."""
        return sentence(f"{entry} is a Python program, which")

    def preload(self) -> None:
        """Nothing is known of what it will import."""

    def load(self, artifact: Artifact, settings: VersionSettings) -> PythonExecutor:
        """Run the file, make a ``Model`` and have it load.

        Raises `LoadError` if there is no such class, or with what it raised.
        """
        folder = Path(artifact.folder)
        module = _execute(folder, artifact)
        make = getattr(module, "Model", None)
        if not isinstance(make, type) or not callable(getattr(make, "predict", None)):
            raise LoadError(
                f"{artifact.entry} must define a class 'Model' with the methods load(self, path) "
                "and predict(self, X)"
            )
        limit = ThreadLimit(settings.threads)
        limit()
        model = _called(make, "Model()")
        if callable(getattr(model, "load", None)):
            _called(lambda: model.load(folder), "Model.load")
        return PythonExecutor(model, _signature(model, folder, settings), folder, settings, limit)


class PythonExecutor:
    """One ``Model``. What ``predict`` returns is the output ``predict``, or, if it is a dict, one a key.

    A model of one input is given its array; of several, a dict of arrays; of a ``table``
    signature, a data frame. Where ``predict`` has a parameter named ``shadow``, it is true for
    copies of requests that are only compared with what was answered.
    """

    signature: Signature

    def __init__(
        self,
        model: Any,
        signature: Signature,
        folder: Path,
        settings: VersionSettings,
        limit: ThreadLimit,
    ) -> None:
        self._model = model
        self._limit = limit
        self._proba = getattr(model, "predict_proba", None)
        self._tagged = _takes_shadow(model.predict)
        self._shadow = False
        self.signature = signature
        if not signature.outputs:
            self._learn(folder, settings)

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Call ``predict``, ``predict_proba`` or both, as the wanted outputs need."""
        self._limit()
        rows = self._rows(inputs)
        specs = {spec.name: spec for spec in self.signature.outputs}
        answers = self._answers(rows, outputs or list(specs))
        missing = [name for name in outputs if name not in answers]
        if missing:
            raise LookupError(
                f"the model has no output {missing[0]!r}; it has: {', '.join(answers)}"
            )
        return {
            name: as_output(answers[name], specs[name])
            if name in specs
            else _natural(answers[name])
            for name in outputs or answers
        }

    def mark_shadow(self, shadow: bool) -> None:
        """Whether the calls from here on are copies that nobody waits for."""
        self._shadow = shadow

    def close(self) -> None:
        """Call the model's own ``close``, once, if it has one."""
        model, self._model, self._proba = self._model, None, None
        if model is not None and callable(getattr(model, "close", None)):
            model.close()

    def _rows(self, inputs: Mapping[str, Array]) -> Any:
        if self.signature.kind == "table":
            return frame(self.signature, inputs)
        arrays = {name: decoded(array) for name, array in inputs.items()}
        if len(self.signature.inputs) > 1:
            return arrays
        return arrays[self.signature.inputs[0].name if self.signature.inputs else INPUT]

    def _answers(self, rows: Any, names: Sequence[str]) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        if self._proba is not None and (not names or "predict_proba" in names):
            answers["predict_proba"] = self._proba(rows)
        if not names or any(name != "predict_proba" for name in names):
            more = {"shadow": self._shadow} if self._tagged else {}
            values = self._model.predict(rows, **more)
            named = dict(values) if isinstance(values, Mapping) else {"predict": values}
            answers = {**named, **answers}
        return answers

    def _learn(self, folder: Path, settings: VersionSettings) -> None:
        rows = load_samples(folder, settings, self.signature)
        if rows is None:
            rows = generated_samples(self.signature, 2)
        if rows is None:
            return
        try:
            answers = self._answers(self._rows(rows), ())
        except Exception:
            if settings.samples is not None:
                raise
            return  # made-up rows need not suit the model: validation will tell
        found = tuple(spec_of(name, _natural(values)) for name, values in answers.items())
        self.signature = msgspec.structs.replace(self.signature, outputs=found, learned=True)


def _takes_shadow(predict: Any) -> bool:
    """Whether the model's ``predict`` has a parameter of that name."""
    try:
        return "shadow" in inspect.signature(predict).parameters
    except (TypeError, ValueError):  # nothing tells what it takes
        return False


def _natural(values: Any) -> Array:
    """The array in its own datatype, text as `bytes`."""
    array = np.asarray(values)
    return as_bytes(array) if array.dtype.kind in "OUS" else array


def _execute(folder: Path, artifact: Artifact) -> ModuleType:
    name = f"hotswap_model_{artifact.digest.rpartition(':')[2][:16] or 'unnamed'}"
    spec = importlib.util.spec_from_file_location(name, folder / artifact.entry)
    if spec is None or spec.loader is None:
        raise LoadError(f"{artifact.entry} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    sys.modules[name] = module
    loader = spec.loader
    _called(lambda: loader.exec_module(module), artifact.entry)
    return module


def _called(function: Any, what: str) -> Any:
    try:
        return function()
    except ModuleNotFoundError as error:
        raise missing(what, error) from error
    except Exception as error:
        raise LoadError(f"{what} raised {type(error).__name__}: {error}") from error


def _signature(model: Any, folder: Path, settings: VersionSettings) -> Signature:
    """The model's own ``signature`` (attribute or method; ours, or a dict of its form), or as `untold`."""
    own = getattr(model, "signature", None)
    if callable(own):
        own = _called(own, "Model.signature")
    if own is None:
        return untold(folder, settings)
    try:
        return own if isinstance(own, Signature) else msgspec.convert(own, Signature)
    except msgspec.ValidationError as error:
        raise LoadError(f"the signature of Model is not valid: {error}") from error
