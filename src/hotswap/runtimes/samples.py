"""Sample inputs: read from beside the artifact, or made up from the signature."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hotswap.core.datatypes import FLOATS, NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import VersionSettings
from hotswap.errors import LoadError
from hotswap.ports import Array


def load_samples(
    folder: Path, settings: VersionSettings, signature: Signature | None
) -> dict[str, Array] | None:
    """The samples of ``settings`` by input name, all with the same number of rows; None if none are set.

    A file is ``.json`` (a list of rows, a list of ``{name: value}``, or
    ``{"inputs": {name: rows}}``), ``.npy``, ``.npz`` or ``.csv`` (a header line names the
    columns), within ``folder``. ``signature`` gives names and datatypes; without it, or without
    inputs in it, numbers are FP64, text is BYTES, and one unnamed array is called ``input``.
    Raises `LoadError` if they cannot be read or do not fit.
    """
    if settings.samples is None:
        return None
    what, value = "the samples", settings.samples
    if isinstance(value, str):
        what = f"the samples file {value}"
        value = _read(folder, value, what)
    try:
        arrays = _arrays(value, signature if signature and signature.inputs else None)
    except (ValueError, TypeError, KeyError) as error:
        raise LoadError(f"{what} cannot be given to the model: {_text(error)}") from error
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1 or counts == {0}:
        raise LoadError(f"{what} must hold at least one row, the same number for every input")
    return arrays


def generated_samples(signature: Signature, rows: int) -> dict[str, Array] | None:
    """``rows`` made-up rows: zeros, ones, then a ramp, and ``b"a"`` for BYTES.

    The same each time. None if a dimension other than the first is not known, or there are no
    inputs.
    """
    if not signature.inputs:
        return None
    if any(size < 0 for spec in signature.inputs for size in spec.shape[1:]):
        return None
    return {spec.name: _made_up(spec, rows) for spec in signature.inputs}


def _made_up(spec: TensorSpec, rows: int) -> Array:
    shape = (rows, *spec.shape[1:])
    if spec.datatype == "BYTES":
        filled = np.empty(shape, dtype=object)
        filled[...] = b"a"
        return filled
    values = np.zeros(shape)
    values[1:2] = 1.0
    width = int(np.prod(shape[1:], dtype=int))
    for row in range(2, rows):
        values[row] = (np.arange(width).reshape(shape[1:]) + row) % 7 / 2.0
    if spec.datatype == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(NUMPY_OF[spec.datatype])


def _read(folder: Path, name: str, what: str) -> Any:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise LoadError(f"{what} must lie in the version's folder")
    readers = {".json": _json, ".npy": _numpy, ".npz": _numpy, ".csv": _csv}
    reader = readers.get(path.suffix)
    if reader is None:
        raise LoadError(f"{what} must end in .json, .npy, .npz or .csv")
    try:
        return reader(path)
    except FileNotFoundError:
        raise LoadError(f"{what} is not there") from None
    except (OSError, ValueError, EOFError, csv.Error) as error:
        raise LoadError(f"{what} cannot be read: {_text(error)}") from error


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _numpy(path: Path) -> Any:
    loaded = np.load(path, allow_pickle=False)
    return {"inputs": dict(loaded)} if path.suffix == ".npz" else loaded


def _csv(path: Path) -> Any:
    with path.open(newline="", encoding="utf-8") as file:
        rows = [[_number(cell) for cell in row] for row in csv.reader(file) if row]
    if rows and all(isinstance(cell, str) for cell in rows[0]):
        names = rows.pop(0)
        return [dict(zip(names, row, strict=True)) for row in rows]
    return rows


def _number(cell: str) -> float | str:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        return cell


def _arrays(value: Any, signature: Signature | None) -> dict[str, Array]:
    if isinstance(value, Mapping):
        named = value.get("inputs")
        if not isinstance(named, Mapping):
            raise ValueError('an object must have the form {"inputs": {name: rows}}')
        return _by_name(named, signature)
    if not isinstance(value, np.ndarray) and value and isinstance(value[0], Mapping):
        return _by_records(value, signature)
    if signature is None:
        return {"input": as_array(value, None)}
    if len(signature.inputs) == 1 and signature.kind == "tensor":
        spec = signature.inputs[0]
        flat = len(value) > 0 and np.ndim(value) == 1 and len(spec.shape) == 2  # one row
        return {spec.name: as_array([value] if flat else value, spec)}
    columns = list(zip(*value, strict=True))
    if len(columns) != len(signature.inputs):
        raise ValueError(
            f"rows have {len(columns)} values, the model takes {len(signature.inputs)}"
        )
    return {
        spec.name: as_array(column, spec)
        for spec, column in zip(signature.inputs, columns, strict=True)
    }


def _by_name(named: Mapping[str, Any], signature: Signature | None) -> dict[str, Array]:
    if signature is None:
        return {name: as_array(rows, None) for name, rows in named.items()}
    if len(signature.inputs) == 1 and len(named) == 1:
        spec = signature.inputs[0]
        return {spec.name: as_array(next(iter(named.values())), spec)}
    return {spec.name: as_array(named[spec.name], spec) for spec in signature.inputs}


def _by_records(
    records: Sequence[Mapping[str, Any]], signature: Signature | None
) -> dict[str, Array]:
    if signature is None:
        names = list(records[0])
        return {"input": as_array([[record[name] for name in names] for record in records], None)}
    if signature.kind == "tensor" and len(signature.inputs) == 1:
        spec = signature.inputs[0]
        names = list(signature.feature_names or records[0])
        return {spec.name: as_array([[record[n] for n in names] for record in records], spec)}
    return {
        spec.name: as_array([record[spec.name] for record in records], spec)
        for spec in signature.inputs
    }


def as_array(values: Any, spec: TensorSpec | None) -> Array:
    """``values`` as the spec's datatype (text as `bytes` in object arrays); checks the shape.

    Raises ValueError if the shape does not fit.
    """
    array = np.asarray(values)
    if spec is None:
        if array.dtype.kind in "OUS":
            return as_bytes(array)
        return array if isinstance(values, np.ndarray) else array.astype(np.float64)
    if spec.datatype == "BYTES":
        array = as_bytes(array)
    elif array.dtype.kind == "O" and spec.datatype in FLOATS:  # null is NaN
        array = np.where(array == np.array(None), np.nan, array).astype(NUMPY_OF[spec.datatype])
    else:
        array = array.astype(NUMPY_OF[spec.datatype])
    wanted = spec.shape[1:]
    if len(array.shape[1:]) == len(wanted) and all(
        want in (-1, got) for want, got in zip(wanted, array.shape[1:], strict=True)
    ):
        return array
    raise ValueError(f"{spec.name} must have the shape {list(spec.shape)}, not {list(array.shape)}")


def as_bytes(array: Array) -> Array:
    """An object array of `bytes`: text is encoded as UTF-8, numbers as they are written."""
    flat = [
        item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()
    ]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(array.shape)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
