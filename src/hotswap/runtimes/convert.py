"""Conversion to formats that run no code, with a proof that the answers stay the same."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from hotswap.core.signature import Signature
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError
from hotswap.ports import Array, Executor
from hotswap.runtimes.lightgbm import LightgbmRuntime
from hotswap.runtimes.onnx import OnnxRuntime
from hotswap.runtimes.packages import require
from hotswap.runtimes.plausible import plausible_rows
from hotswap.runtimes.samples import load_samples
from hotswap.runtimes.sklearn import SklearnRuntime, read_model
from hotswap.runtimes.skops_files import load_skops
from hotswap.runtimes.xgboost import XgboostRuntime

ROWS: Final = 512
"""How many rows are made up for a proof without samples."""


class ParityReport(msgspec.Struct, frozen=True):
    """How far the converted model is from the original, over ``rows`` rows and all outputs.

    ``worst_row`` is the index of the row with the largest absolute difference; the relative one
    is over that output's expected values greater than ``parity_atol``.
    """

    rows: int
    worst_absolute: float
    worst_relative: float
    worst_row: int


def to_onnx(
    artifact: Artifact,
    settings: VersionSettings,
    samples: Mapping[str, Array] | None,
    out: Path,
) -> ParityReport:
    """Write the scikit-learn, XGBoost or LightGBM ``artifact`` as ONNX to the file ``out``.

    The proof: both models answer ``samples`` (by the original's input names; else those of
    ``settings``; else `ROWS` made-up rows): labels must be equal, numbers within
    ``parity_atol + parity_rtol * |expected|``. Raises `LoadError` naming the worst row if they
    are not, and leaves no file; or if the model has no ONNX counterpart.

    A pickled artifact is unpickled: it must have been trusted before.
    """
    original, model, proto = _converted(artifact, settings)
    folder = Path(artifact.folder)
    rows = samples or load_samples(folder, settings, original.signature)
    if rows is None:
        rows = plausible_rows(original.signature, model, ROWS)
    if rows is None:
        raise LoadError(
            "the conversion cannot be proved without sample rows: name a file of them as "
            "'samples' in version.yaml"
        )
    out.write_bytes(proto.SerializeToString())
    try:
        candidate = OnnxRuntime().load(
            Artifact(str(out.parent.resolve()), out.name, "onnx", artifact.digest), settings
        )
        return prove(original, candidate, rows, settings)
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def to_skops(artifact: Artifact, out: Path) -> None:
    """Write a pickle or joblib ``artifact``, trusted before, as skops to the file ``out``.

    It is read back as it will be served: a type that is not on our list raises `LoadError`,
    and no file is left.
    """
    model = read_model(Path(artifact.folder) / artifact.entry)
    skops = require("skops.io", "skops", "sklearn")
    try:
        skops.dump(model, out)
        load_skops(out)
    except LoadError:
        out.unlink(missing_ok=True)
        raise
    except Exception as error:
        out.unlink(missing_ok=True)
        raise LoadError(f"skops cannot write this model: {error}") from error


def prove(
    original: Executor,
    candidate: Executor,
    rows: Mapping[str, Array],
    settings: VersionSettings,
) -> ParityReport:
    """Compare two executors on the same rows, or raise `LoadError` naming the worst row."""
    try:
        wanted = original.predict(rows, ())
    except Exception as error:
        raise LoadError(
            f"the original model fails on the rows of the proof ({type(error).__name__}: {error}); "
            "name a file of good ones as 'samples' in version.yaml"
        ) from error
    got = candidate.predict(_as_candidate(candidate.signature, rows), ())
    count = len(next(iter(rows.values())))
    worst = ParityReport(count, 0.0, 0.0, 0)
    for name, expected in wanted.items():
        if name not in got:
            raise LoadError(f"the ONNX version has no output {name!r}; it has {', '.join(got)}")
        worst = _compared(name, expected, got[name], rows, settings, worst)
    return worst


def _converted(artifact: Artifact, settings: VersionSettings) -> tuple[Executor, Any, Any]:
    """The original's executor, its library's object, and the ONNX model."""
    path = Path(artifact.folder) / artifact.entry
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if artifact.runtime == "sklearn":
            original: Executor = SklearnRuntime().load(artifact, settings)
            model = read_model(path)
            return original, model, _tried(lambda: _of_sklearn(model, original.signature))
        if artifact.runtime == "xgboost":
            original = XgboostRuntime().load(artifact, settings)
            model = require("xgboost", "xgboost", "xgboost").Booster(model_file=str(path))
            return original, model, _tried(lambda: _of_xgboost(model))
        if artifact.runtime == "lightgbm":
            original = LightgbmRuntime().load(artifact, settings)
            model = require("lightgbm", "lightgbm", "lightgbm").Booster(model_file=str(path))
            return original, model, _tried(lambda: _of_lightgbm(model))
    raise LoadError(
        f"a version of the runtime {artifact.runtime} cannot be converted to ONNX; those of "
        "sklearn, xgboost and lightgbm can"
    )


def _tried(convert: Any) -> Any:
    try:
        return convert()
    except (LoadError, ImportError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise LoadError(f"this model cannot be converted to ONNX: {reason}") from error


def _of_sklearn(model: Any, signature: Signature) -> Any:
    skl2onnx = require("skl2onnx", "skl2onnx", "convert")
    types = require("skl2onnx.common.data_types", "skl2onnx", "convert")
    of = {
        "BYTES": types.StringTensorType,
        "INT64": types.Int64TensorType,
        "BOOL": types.BooleanTensorType,
    }
    table = signature.kind == "table"
    initial = []
    for spec in signature.inputs:
        width = [1] if table else [size if size > 0 else None for size in spec.shape[1:]]
        initial.append((spec.name, of.get(spec.datatype, types.FloatTensorType)([None, *width])))
    if not initial:
        raise LoadError("the model does not tell its inputs: fit it with scikit-learn's own API")
    last = model
    while hasattr(last, "steps") or hasattr(last, "best_estimator_"):
        last = last.best_estimator_ if hasattr(last, "best_estimator_") else last.steps[-1][1]
    options = {id(last): {"zipmap": False}} if hasattr(last, "classes_") else None
    return skl2onnx.convert_sklearn(model, initial_types=initial, options=options)


def _of_xgboost(booster: Any) -> Any:
    convert = require("onnxmltools.convert", "onnxmltools", "convert")
    best = booster.attr("best_iteration")
    if best is not None:
        booster = booster[: int(best) + 1]
    booster.feature_names = None  # the converter knows no others than f0, f1, …
    return convert.convert_xgboost(booster, initial_types=_floats(booster.num_features()))


def _of_lightgbm(booster: Any) -> Any:
    convert = require("onnxmltools.convert", "onnxmltools", "convert")
    return convert.convert_lightgbm(
        booster, initial_types=_floats(booster.num_feature()), zipmap=False
    )


def _floats(width: int) -> list[tuple[str, Any]]:
    types = require("onnxmltools.convert.common.data_types", "onnxmltools", "convert")
    return [("input", types.FloatTensorType([None, int(width)]))]


def _as_candidate(signature: Signature, rows: Mapping[str, Array]) -> Mapping[str, Array]:
    """The rows by the candidate's names: converters rename a lone input."""
    if len(rows) == 1 and len(signature.inputs) == 1:
        return {signature.inputs[0].name: next(iter(rows.values()))}
    return rows


def _compared(
    name: str,
    expected: Array,
    got: Array,
    rows: Mapping[str, Array],
    settings: VersionSettings,
    worst: ParityReport,
) -> ParityReport:
    if expected.shape != got.shape:
        raise LoadError(
            f"the ONNX version's output {name!r} has the shape {list(got.shape)}, the original's "
            f"{list(expected.shape)}"
        )
    if expected.dtype.kind != "f":
        for row, (want, have) in enumerate(zip(expected.tolist(), got.tolist(), strict=True)):
            if want != have:
                raise _differs(name, row, rows, want, have, "another label")
        return worst
    want = expected.astype(np.float64).reshape(len(expected), -1)
    have = got.astype(np.float64).reshape(len(got), -1)
    apart = np.abs(want - have)
    apart[np.isnan(want) & np.isnan(have)] = 0.0
    apart[np.isnan(apart)] = np.inf
    allowed = settings.parity_atol + settings.parity_rtol * np.abs(np.nan_to_num(want))
    row = int((apart - allowed).max(axis=1).argmax())
    if (apart[row] > allowed[row]).any():
        raise _differs(name, row, rows, expected[row], got[row], f"{apart[row].max():.3g}")
    relative = apart / np.maximum(np.abs(np.nan_to_num(want)), np.finfo(np.float64).tiny)
    if apart.max() <= worst.worst_absolute:
        return worst
    return ParityReport(
        len(want),
        float(apart.max()),
        float(relative[np.abs(want) > settings.parity_atol].max(initial=0.0)),
        int(apart.max(axis=1).argmax()),
    )


def _differs(
    name: str, row: int, rows: Mapping[str, Array], want: Any, have: Any, by: str
) -> LoadError:
    given = {key: np.asarray(values[row]).tolist() for key, values in rows.items()}
    return LoadError(
        f"the ONNX version differs from the original in {name!r}: on row {row} of "
        f"{len(next(iter(rows.values())))}, input {given}, expected {_shown(want)}, got "
        f"{_shown(have)}, difference {by}; serve the original, or raise parity_atol or "
        "parity_rtol in version.yaml if that is close enough"
    )


def _shown(value: Any) -> str:
    return str(np.asarray(value).tolist())
