"""Which runtimes a version's hosts will need imported, told by its files' names. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from hotswap.core.spec import Artifact

_MLFLOW: Final = "mlflow"
_WITHIN: Final = {
    ".skops": "sklearn",
    ".pkl": "sklearn",
    ".joblib": "sklearn",
    ".onnx": "onnx",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".lgb": "lightgbm",
    ".pt": "torch",
    ".pt2": "torch",
    ".pth": "torch",
}


def runtimes_of(artifact: Artifact) -> tuple[str, ...]:
    """Its own, and for an MLflow folder those of the models in it: they load what it holds.

    A wrong guess costs memory in the process that hosts are forked from; a missing one, seconds
    at each load.

    >>> from hotswap.core.spec import ManifestEntry
    >>> files = (ManifestEntry("MLmodel", 1, ""), ManifestEntry("model.skops", 1, ""))
    >>> runtimes_of(Artifact("/a", ".", "mlflow", "sha256:0", files))
    ('mlflow', 'sklearn')
    """
    if artifact.runtime != _MLFLOW:
        return (artifact.runtime,)
    suffixes = {PurePosixPath(entry.path).suffix for entry in artifact.manifest}
    return (_MLFLOW, *sorted({_WITHIN[suffix] for suffix in suffixes & _WITHIN.keys()}))
