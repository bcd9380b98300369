"""Runtimes by name: the built-in ones, and those that other packages offer as entry points.

Importing this module imports no runtime and no library.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from pathlib import Path
from typing import Final

from hotswap.errors import LoadError
from hotswap.ports import Runtime

GROUP: Final = "hotswap.runtimes"
"""The entry-point group: each names a class or a function that, called, gives a `Runtime`."""

PRELOAD_ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""What a process must be started with, if it is to preload runtimes and then be forked.

The numeric libraries start their threads when they are imported. `Runtime.load` sets the number
that a version asks for, in its own process.
"""

_BUILT_IN: Final = {
    "sklearn": "hotswap.runtimes.sklearn:SklearnRuntime",
    "xgboost": "hotswap.runtimes.xgboost:XgboostRuntime",
    "lightgbm": "hotswap.runtimes.lightgbm:LightgbmRuntime",
    "onnx": "hotswap.runtimes.onnx:OnnxRuntime",
    "torch": "hotswap.runtimes.torch:TorchRuntime",
    "mlflow": "hotswap.runtimes.mlflow:MlflowRuntime",
    "python": "hotswap.runtimes.python:PythonRuntime",
}

_log = logging.getLogger(__name__)


@cache
def runtimes() -> dict[str, Runtime]:
    """Every runtime there is, by its name.

    An entry point that cannot be loaded, or that takes a built-in name, is logged and left out.
    """
    found: dict[str, Runtime] = {}
    for name, where in _BUILT_IN.items():
        module, _, attribute = where.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)()
    from importlib.metadata import entry_points  # costs more than all the rest of this module

    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            runtime = point.load()()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            _log.warning(
                "the runtime %s (%s) could not be loaded: %s: %s",
                point.name,
                point.value,
                type(error).__name__,
                error,
            )
            continue
        if not isinstance(runtime, Runtime):
            _log.warning("the runtime %s (%s) is no Runtime: left out", point.name, point.value)
        elif runtime.name in found:
            _log.warning(
                "the runtime %s (%s) is left out: its name is taken", runtime.name, point.value
            )
        else:
            found[runtime.name] = runtime
            _log.info("loaded the runtime %s (%s)", runtime.name, point.value)
    return found


def find_runtime(folder: Path, wanted: str | None = None) -> tuple[Runtime, str]:
    """The runtime for a version's folder, and the file in it that it would load.

    ``wanted`` decides where given. Else a folder with ``MLmodel`` is MLflow's, a file
    ``model.*`` goes before one of another name, and more than one possible runtime is refused.
    Raises `LoadError` naming what was looked for.
    """
    if not folder.is_dir():
        raise LoadError(f"there is no folder {folder.name} to load a model from")
    known = runtimes()
    if wanted is not None:
        if wanted not in known:
            raise LoadError(f"there is no runtime {wanted!r}; there are: {', '.join(known)}")
        entry = known[wanted].entry(folder)
        if entry is None:
            raise LoadError(
                f"the runtime {wanted} finds no model in {folder.name}: it looks for "
                f"{_looks_for(known[wanted])}"
            )
        return known[wanted], entry
    matches = [(runtime, runtime.entry(folder)) for runtime in known.values()]
    found = [(runtime, entry) for runtime, entry in matches if entry is not None]
    for best in (_is_folder, _is_named_model):
        found = [match for match in found if best(match[1])] or found
    if not found:
        raise LoadError(
            f"there is no model in {folder.name}: looked for "
            f"{', '.join(_looks_for(runtime) for runtime in known.values())}"
        )
    if len(found) > 1:
        names = ", ".join(f"{entry} ({runtime.name})" for runtime, entry in found)
        raise LoadError(
            f"{folder.name} holds several models: {names}; say which with 'runtime:' in "
            "version.yaml or with the runtime of the registration"
        )
    return found[0]


def _is_folder(entry: str) -> bool:
    return entry == "."


def _is_named_model(entry: str) -> bool:
    return Path(entry).stem == "model"


def _looks_for(runtime: Runtime) -> str:
    files: tuple[str, ...] = getattr(runtime, "files", ())
    return ", ".join(files) or f"what {runtime.name} loads"
