"""ONNX models by ONNX Runtime, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError
from hotswap.ports import Array
from hotswap.runtimes.entries import pick
from hotswap.runtimes.fixed_batch import in_batches
from hotswap.runtimes.frames import decoded, wanted
from hotswap.runtimes.onnx_file import check
from hotswap.runtimes.packages import require
from hotswap.runtimes.samples import as_bytes
from hotswap.runtimes.signatures import agreed

_DATATYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

_LABELS: Final = frozenset({"label", "output_label"})
_PROBABILITIES: Final = frozenset({"probabilities", "output_probability"})
_CONVERTERS: Final = frozenset({"skl2onnx", "OnnxMLTools"})
"""Producers whose models follow scikit-learn's conventions."""


class OnnxRuntime:
    """Loads ``.onnx``; data in other files is accepted only from the version's own folder."""

    name = "onnx"
    platform = "onnxruntime_onnx"
    extra = "onnx"
    files = ("model.onnx",)

    def entry(self, folder: Path) -> str | None:
        """``model.onnx``, or the only ``.onnx`` there is."""
        return pick(folder, (".onnx",))

    def runs_code(self, folder: Path, entry: str) -> str | None:
        """An ONNX graph is data: libraries of custom operators are never registered."""
        return None

    def preload(self) -> None:
        """Import onnxruntime."""
        _library()

    def load(self, artifact: Artifact, settings: VersionSettings) -> OnnxExecutor:
        """Check the file strictly, then make a session of ``settings.threads`` threads."""
        folder = Path(artifact.folder)
        path = folder / artifact.entry
        check(path, folder)
        library = _library()
        options = library.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = library.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = str(error).replace(str(folder), ".")
            raise LoadError(f"onnxruntime cannot load {path.name}: {reason}") from error
        executor = OnnxExecutor(session)
        agreed(executor.signature, settings)
        return executor


class OnnxExecutor:
    """One session. Rows of many requests are one ``run``, unless the graph fixes their number.

    A model that scikit-learn's converters wrote answers ``predict`` and ``predict_proba``, as the
    original does, and one with a column an input is a ``table``.
    """

    signature: Signature

    def __init__(self, session: Any) -> None:
        self._run = session.run
        producer = session.get_modelmeta().producer_name
        inputs = [_input(value) for value in session.get_inputs()]
        self._columns = (
            producer in _CONVERTERS
            and len(inputs) > 1
            and all(spec.shape[1:] == (1,) for spec in inputs)
        )
        if self._columns:
            inputs = [TensorSpec(spec.name, spec.datatype, (-1,)) for spec in inputs]
        self._batch = _batch(session.get_inputs())
        graph = session.get_outputs()
        public = _public([value.name for value in graph], producer)
        self._outputs: dict[str, tuple[str, bool]] = {}
        outputs = []
        for value in graph:
            name = public[value.name]
            spec, flatten = _output(name, value, producer in _CONVERTERS)
            self._outputs[name] = (value.name, flatten)
            outputs.append(spec)
        self._dtypes = {spec.name: NUMPY_OF[spec.datatype] for spec in inputs}
        known = not any(value.type not in _DATATYPES for value in graph)
        self.signature = Signature(
            tuple(inputs),
            tuple(outputs) if known else (),
            kind="table" if self._columns else "tensor",
        )

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """One ``run`` that computes the wanted outputs alone."""
        feed = {}
        for name, dtype in self._dtypes.items():
            array = inputs[name]
            if array.dtype != dtype:
                array = array.astype(dtype)
            elif dtype.kind == "O":
                array = decoded(array)
            feed[name] = array.reshape(-1, 1) if self._columns else array
        if outputs and self.signature.outputs:
            wanted(self.signature, outputs)
        names = outputs or list(self._outputs)
        pairs = [self._outputs[name] for name in names]
        graph_names = [name for name, _ in pairs]

        def run(rows: Mapping[str, Array]) -> dict[str, Array]:
            values = self._run(graph_names, rows)
            return {
                name: _array(value, flatten)
                for name, (_, flatten), value in zip(names, pairs, values, strict=True)
            }

        return run(feed) if self._batch is None else in_batches(run, feed, self._batch)

    def close(self) -> None:
        """The session goes with its last reference."""


def _library() -> Any:
    """onnxruntime without its telemetry, which would start a thread at import and call home."""
    os.putenv("ORT_DISABLE_TELEMETRY", "1")
    return require("onnxruntime", "onnxruntime", "onnx")


def _input(value: Any) -> TensorSpec:
    if value.type not in _DATATYPES:
        raise LoadError(f"the ONNX input {value.name!r} is a {value.type}, which is not supported")
    return TensorSpec(value.name, _DATATYPES[value.type], _shape(value.shape))


def _shape(shape: Sequence[Any] | None) -> tuple[int, ...]:
    sizes = [size if isinstance(size, int) and size > 0 else -1 for size in shape or [None]]
    return (-1, *sizes[1:])


def _batch(values: Sequence[Any]) -> int | None:
    """The number of rows that the graph is fixed to; None if it takes any."""
    sizes = {value.shape[0] for value in values if value.shape and isinstance(value.shape[0], int)}
    if len(sizes) > 1:
        raise LoadError("the ONNX inputs must all have the same number of rows")
    return sizes.pop() if sizes else None


def _public(names: Sequence[str], producer: str) -> dict[str, str]:
    """Graph names → public names."""
    label = next((name for name in names if name in _LABELS), None)
    proba = next((name for name in names if name in _PROBABILITIES), None)
    if label is not None and proba is not None:
        renamed = {label: "predict", proba: "predict_proba"}
    elif list(names) == ["variable"] and producer in _CONVERTERS:
        renamed = {"variable": "predict"}
    else:
        renamed = {}
    return {name: renamed.get(name, name) for name in names}


def _output(name: str, value: Any, converted: bool) -> tuple[TensorSpec, bool]:
    """The public spec of an output, and whether its column is answered as a plain row of values."""
    datatype = _DATATYPES.get(value.type, "FP32")
    shape = _shape(value.shape) if value.type in _DATATYPES else (-1, -1)
    flatten = name == "predict" and converted and shape[1:] == (1,)
    return TensorSpec(name, datatype, (-1,) if flatten else shape), flatten


def _array(value: Any, flatten: bool) -> Array:
    if isinstance(value, list):  # a ZipMap's list of {class: probability}
        return np.asarray([list(row.values()) for row in value], dtype=np.float32)
    if value.dtype.kind in "OUS":
        value = as_bytes(value)
    return value[:, 0] if flatten else value  # type: ignore[no-any-return]
