"""Reading an ``MLmodel`` file: which native flavour it holds, and its signature."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec
import numpy as np
import yaml

from hotswap.core.datatypes import datatype_of
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import LoadError
from hotswap.runtimes.signatures import INPUT

FILE: Final = "MLmodel"

_COLUMN_TYPES: Final = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
}

_FLAVORS: Final = ("sklearn", "xgboost", "lightgbm", "onnx", "pytorch")
"""Those that our own loaders read, in order of preference."""

_KEYS: Final = {"sklearn": "pickled_model", "pytorch": "model_data"}
"""What a flavour calls its file, where not ``data``."""

_RUNTIMES: Final = {
    ".skops": "sklearn",
    ".pkl": "sklearn",
    ".joblib": "sklearn",
    ".pickle": "sklearn",
    ".pt2": "torch",
    ".pth": "torch",
    ".pt": "torch",
    ".onnx": "onnx",
}


class Native(msgspec.Struct, frozen=True):
    """What to load: ``runtime`` "" for a pyfunc that only its own code can load.

    ``entry`` is relative to the folder; ``code`` a folder of modules that a pickle may need.
    """

    runtime: str
    entry: str
    code: str | None
    signature: Signature | None


def read(folder: Path) -> Native:
    """The native flavour and signature of an MLflow folder. Raises `LoadError`."""
    try:
        content = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace(str(folder), ".").partition("\n")[0]
        raise LoadError(f"MLmodel cannot be read: {reason}") from None
    flavors = content.get("flavors") if isinstance(content, dict) else None
    if not isinstance(flavors, dict) or not flavors:
        raise LoadError("MLmodel names no flavors; save the model with MLflow again")
    signature = _signature(content.get("signature"))
    for name in _FLAVORS:
        flavor = flavors.get(name)
        if isinstance(flavor, dict):
            entry = _entry(folder, name, flavor)
            runtime = _RUNTIMES.get(PurePosixPath(entry).suffix, name)
            return Native(runtime, entry, _inside(folder, flavor.get("code"), "code"), signature)
    if "python_function" in flavors:
        return Native("", "", None, signature)
    raise LoadError(
        f"MLmodel has only the flavors {', '.join(sorted(flavors))}; hotswap serves "
        f"{', '.join(_FLAVORS)} and python_function"
    )


def _entry(folder: Path, name: str, flavor: dict[str, Any]) -> str:
    key = _KEYS.get(name, "data")
    entry = _inside(folder, flavor.get(key), key)
    if entry is None:
        raise LoadError(f"MLmodel's flavor {name} does not say where its model is ({key!r})")
    if name == "pytorch":
        for file in ("model.pt2", "model.pth"):
            if (folder / entry / file).is_file():
                return f"{entry}/{file}"
    if not (folder / entry).is_file():
        raise LoadError(f"MLmodel's flavor {name} names {entry!r}, which is not there")
    return entry


def _inside(folder: Path, name: Any, key: str) -> str | None:
    if name is None:
        return None
    outside = LoadError(f"MLmodel's {key!r} must name something within the version's folder")
    if not isinstance(name, str) or "\0" in name or "\\" in name:
        raise outside
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise outside
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise outside
    return name


def _signature(told: Any) -> Signature | None:
    """MLflow's signature as ours; None if there is none, or it has types that the protocol lacks."""
    raw = told.get("inputs") if isinstance(told, dict) else None
    if raw is None:
        return None
    try:
        columns = json.loads(raw) if isinstance(raw, str) else raw
        return _of_columns(columns)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"MLmodel's signature cannot be read: {error}") from None


def _of_columns(columns: list[dict[str, Any]]) -> Signature | None:
    if not columns:
        return None
    if all(column["type"] == "tensor" for column in columns):
        specs = tuple(_tensor(column) for column in columns)
        return Signature(specs, ())
    if not all(column["type"] in _COLUMN_TYPES for column in columns):
        return None
    datatypes = [_COLUMN_TYPES[column["type"]] for column in columns]
    names = [column.get("name") for column in columns]
    if any(name is None for name in names):
        return Signature((TensorSpec(INPUT, datatypes[0], (-1, len(columns))),), ())
    specs = tuple(
        TensorSpec(str(name), datatype, (-1,))
        for name, datatype in zip(names, datatypes, strict=True)
    )
    return Signature(specs, (), kind="table")


def _tensor(column: dict[str, Any]) -> TensorSpec:
    told = column["tensor-spec"]
    shape = tuple(int(size) for size in told["shape"])
    datatype = datatype_of(np.dtype(told["dtype"]))
    return TensorSpec(str(column.get("name") or INPUT), datatype, (-1, *shape[1:]))
