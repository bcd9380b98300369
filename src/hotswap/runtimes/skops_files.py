"""Reading skops files: only types on our own list, whatever the file asks for."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any, Final

from hotswap.errors import LoadError
from hotswap.runtimes.packages import require

_PRIVATE: Final = (
    "sklearn._loss.",
    "sklearn.ensemble._hist_gradient_boosting.",
    "sklearn.ensemble._gb_losses.",
    "sklearn.gaussian_process.kernels.",
    "sklearn.linear_model._sgd_fast.",
    "sklearn.metrics._dist_metrics.",
    "sklearn.neighbors._ball_tree.",
    "sklearn.neighbors._kd_tree.",
    "sklearn.tree._tree.",
    "sklearn.calibration.",
    "sklearn.compose._column_transformer.",
)
"""Modules whose classes are parts of fitted estimators, and nothing else."""

_SCORES: Final = frozenset(
    {
        *(
            f"sklearn.feature_selection._univariate_selection.{name}"
            for name in ("chi2", "f_classif", "f_oneway", "f_regression", "r_regression")
        ),
        "sklearn.feature_selection._mutual_info.mutual_info_classif",
        "sklearn.feature_selection._mutual_info.mutual_info_regression",
    }
)
"""Functions by which feature selectors chose: arithmetic on arrays, and named one by one."""

_SCIPY: Final = ("scipy.sparse.", "scipy.interpolate.", "scipy.stats.")


def load_skops(path: Path) -> Any:
    """The estimator in a skops file; nothing that the file carries is run.

    Raises `LoadError` if it is not one, is cut short, or holds a type that is not on our list.
    """
    _check_zip(path)
    skops = require("skops.io", "skops", "sklearn")
    try:
        asked = skops.get_untrusted_types(file=path)
    except Exception as error:
        raise LoadError(
            f"{path.name} is not a whole skops file ({type(error).__name__}: {error})"
        ) from error
    refused = sorted(name for name in asked if not allowed(name))
    if refused:
        raise LoadError(
            f"{path.name} holds types that are not on hotswap's list of safe ones: "
            f"{', '.join(refused)}; save the model in its library's own format or as ONNX, or, if "
            "you trust where it comes from, as joblib with --trust-code"
        )
    try:
        return skops.load(path, trusted=sorted(name for name in asked if allowed(name)))
    except Exception as error:
        raise LoadError(
            f"{path.name} could not be read ({type(error).__name__}: {error}); it may be written "
            "with another version of scikit-learn"
        ) from error


def allowed(name: str) -> bool:
    """Whether a type that skops does not know as safe is on our list.

    On it are scikit-learn's estimators, the parts of fitted ones, scipy's sparse matrices and
    numpy's scalar types; of functions only the scores of feature selectors.

    >>> allowed("sklearn.feature_selection._univariate_selection.f_classif"), allowed("os.system")
    (True, False)
    """
    if name in _SCORES:
        return True
    if not name.startswith(("sklearn.", "scipy.", "numpy.")) or ".tests" in name:
        return False
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        return False
    if not isinstance(found, type):
        return False
    if name.startswith("sklearn."):
        base = importlib.import_module("sklearn.base").BaseEstimator
        return issubclass(found, base) or name.startswith(_PRIVATE)
    if name.startswith("numpy."):
        numpy = importlib.import_module("numpy")
        return issubclass(found, (numpy.generic, numpy.dtype))
    return name.startswith(_SCIPY)


def _check_zip(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start != b"PK\x03\x04":
            raise LoadError(f"{path.name} is not a skops file")
        with zipfile.ZipFile(path) as archive:
            if "schema.json" not in archive.namelist():
                raise LoadError(f"{path.name} is not a skops file: it has no schema.json")
    except (OSError, zipfile.BadZipFile) as error:
        raise LoadError(f"{path.name} is not a whole skops file ({error})") from error
