"""Importing a runtime's library when it is needed, or saying what to install."""

from __future__ import annotations

import importlib
from typing import Any

from hotswap.errors import MissingDependency


def require(module: str, package: str, extra: str) -> Any:
    """Import ``module``. Raises `MissingDependency` naming the pip extra if it is not there."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        what = package if module.split(".")[0] == missing.split(".")[0] else missing
        raise MissingDependency(
            f"{what} is not installed; install it with: pip install 'hotswap[{extra}]'"
        ) from error
